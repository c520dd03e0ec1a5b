//! Who wrote lately in a group: receipts are for them.

use natterjack_protocol::UserId;

/// So many are remembered, the latest: in a group where more write at once, the others ask.
const AUTHORS: usize = 50;

#[derive(Default)]
pub struct RecentAuthors(Vec<Box<str>>);

impl RecentAuthors {
    pub fn wrote(&mut self, author: &str) {
        match self.0.iter().rposition(|known| **known == *author) {
            // Most often the last one, or the one before.
            Some(at) => self.0[at..].rotate_left(1),
            None => {
                if self.0.len() == AUTHORS {
                    self.0.remove(0);
                }
                self.0.push(author.into());
            }
        }
    }

    pub fn has(&self, user: &UserId) -> bool {
        self.0.iter().any(|author| **author == *user.as_str())
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
