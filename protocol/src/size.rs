//! Sizes in bytes: what something takes on the wire, and how much of a list goes together. Pipes carry bytes, so every
//! page and answer is bounded by them and not by a count alone.

use std::io;

use serde::Serialize;

/// What it takes as JSON, the larger of the two codecs: base64, escapes (a NUL is one byte in MessagePack and six
/// here), numbers in digits. Counted without keeping anything.
pub fn json<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("plain values have string keys, and nothing fails to count");
    counter.0
}

/// Something that takes room.
pub trait Size {
    /// In bytes.
    fn size(&self) -> usize;
}

/// How much is taken of a list: until there are `count`, or until `bytes` are reached. What reaches them is taken too,
/// so one always fits and what is not [full](Most::full) was the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    pub count: usize,
    pub bytes: usize,
}

impl Most {
    /// However large they are. For lists of small things only.
    pub fn count(count: usize) -> Self {
        Self { count, bytes: usize::MAX }
    }

    pub fn full<T: Size>(&self, taken: &[T]) -> bool {
        taken.len() >= self.count || total(taken) >= self.bytes
    }

    /// What may still be taken beside these.
    pub fn beside<T: Size>(&self, taken: &[T]) -> Self {
        Self { count: self.count.saturating_sub(taken.len()), bytes: self.bytes.saturating_sub(total(taken)) }
    }

    /// Keeps what is taken from the front.
    pub fn keep_first<T: Size>(&self, all: &mut Vec<T>) {
        let n = self.fitting(all.iter());
        all.truncate(n);
    }

    /// Keeps what is taken from the back.
    pub fn keep_last<T: Size>(&self, all: &mut Vec<T>) {
        let n = self.fitting(all.iter().rev());
        all.drain(..all.len() - n);
    }

    /// How many are taken of these.
    pub fn fitting<'a, T: Size + 'a>(&self, all: impl Iterator<Item = &'a T>) -> usize {
        let mut bytes = 0;
        all.take(self.count)
            .take_while(|t| {
                let room = bytes < self.bytes;
                bytes += t.size();
                room
            })
            .count()
    }
}

fn total<T: Size>(taken: &[T]) -> usize {
    taken.iter().map(Size::size).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Body, codec::Codec};

    impl Size for usize {
        fn size(&self) -> usize {
            *self
        }
    }

    #[test]
    fn json_is_counted_as_it_is_written_and_is_the_larger_codec() {
        let bodies = [
            Body::text("\0".repeat(10_000)),
            Body::text("\u{1F600}".repeat(10_000)),
            Body { data: Some(vec![7; 32_768].into()), ..Body::default() },
            Body::default(),
        ];
        for body in bodies {
            assert_eq!(json(&body), Codec::Json.encode(&body).len());
            assert!(json(&body) >= Codec::Msgpack.encode(&body).len());
        }
        assert_eq!(json(&Body::text("\0".repeat(10_000))), 60_011);
    }

    proptest! {
        #[test]
        fn what_is_not_full_is_everything(
            all in prop::collection::vec(0usize..50, 0..20),
            count in 0usize..20,
            bytes in 0usize..300,
        ) {
            let most = Most { count, bytes };
            for last in [false, true] {
                let mut kept = all.clone();
                if last { most.keep_last(&mut kept) } else { most.keep_first(&mut kept) };
                prop_assert!(kept.len() == all.len() || most.full(&kept));
                prop_assert!(count == 0 || bytes == 0 || all.is_empty() || !kept.is_empty(), "one always fits");
                if let Some((_, before)) = if last { kept.split_first() } else { kept.split_last() } {
                    prop_assert!(!most.full(before), "and not one more than needed");
                }
                let (a, b) = kept.split_at(kept.len() / 2);
                prop_assert_eq!(most.full(&kept), most.beside(a).full(b));
            }
        }
    }
}
