//! A value of which somebody may have too much for one key. It is cut then: what was in it goes into sixteen parts, by
//! four bits of a hash, and each of them may be cut again. The keys are `KvTree` in `nats`.

use crate::merge::MaxMerge;

/// The parts into which one is cut.
pub const PARTS: usize = 16;
/// How often the bits of a hash last.
pub const DEEPEST: usize = 16;

/// Two values with the same content are one, however they are cut: merging does not look at it.
pub trait Parts: MaxMerge + Default {
    /// What was in it stands in its parts.
    fn is_cut(&self) -> bool;

    /// Takes everything out of it, into [`PARTS`] parts, each thing by [`part_of`] of its hash.
    fn cut(&mut self, depth: usize) -> Vec<Self>;
}

/// Into which part something goes when what stands `depth` cuts below the whole is cut.
pub fn part_of(hash: u64, depth: usize) -> usize {
    (hash >> (60 - 4 * depth)) as usize % PARTS
}

/// Things by the part they go into.
pub fn dealt<T>(all: impl IntoIterator<Item = T>, depth: usize, hash: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = (0..PARTS).map(|_| Vec::new()).collect();
    for one in all {
        parts[part_of(hash(&one), depth)].push(one);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bits_of_the_hash_at_each_depth() {
        let hash = 0x0123_4567_89ab_cdef;
        assert_eq!((0..DEEPEST).map(|depth| part_of(hash, depth)).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
        let dealt = dealt([0x1f << 56, 0x20 << 56, 0x2f << 56], 0, |hash| *hash);
        assert_eq!((dealt.len(), dealt[1].len(), dealt[2].len()), (PARTS, 1, 2));
    }
}
