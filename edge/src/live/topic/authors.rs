//! Who wrote lately in a group: receipts are for them.

use natterjack_protocol::UserId;
use xxhash_rust::xxh3::xxh3_64;

/// So many are remembered, the latest: in a group where more write at once, the others ask.
const AUTHORS: usize = 50;

/// Their hashes: each event of the group looks here, and all 50 are 400 bytes in one place.
#[derive(Default)]
pub struct RecentAuthors(Vec<u64>);

impl RecentAuthors {
    pub fn wrote(&mut self, author: &str) {
        let author = xxh3_64(author.as_bytes());
        match self.0.iter().rposition(|known| *known == author) {
            // Most often the last one, or the one before.
            Some(at) => self.0[at..].rotate_left(1),
            None => {
                if self.0.len() == AUTHORS {
                    self.0.remove(0);
                }
                self.0.push(author);
            }
        }
    }

    pub fn has(&self, user: &UserId) -> bool {
        self.0.contains(&xxh3_64(user.as_str().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_authors_are_remembered() {
        let mut authors = RecentAuthors::default();
        let user = |n: usize| UserId::parse(&format!("u{n}")).unwrap();
        for n in 0..AUTHORS {
            authors.wrote(user(n).as_str());
        }
        authors.wrote("u0");
        authors.wrote("new");
        assert!(authors.has(&user(0)) && authors.has(&UserId::parse("new").unwrap()));
        assert!(!authors.has(&user(1)), "the first one that did not write again");
        assert!((2..AUTHORS).all(|n| authors.has(&user(n))));
        assert_eq!(authors.0.len(), AUTHORS);
    }
}
