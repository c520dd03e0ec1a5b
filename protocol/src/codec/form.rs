//! The form of what a client says, in one pass over its bytes before anything is decoded: what no two readers may
//! understand differently is refused here, in fields that nobody knows too. Allocates for maps of more than a few keys
//! only.

mod json;
mod msgpack;
mod place;

use std::{borrow::Cow, collections::HashSet};

use smallvec::SmallVec;

use super::Codec;

/// Levels of maps and lists, the outermost included. Frames have four.
pub const MAX_LEVELS: usize = 32;
/// The largest whole number that a double holds together with all below it: 2^53 - 1.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;
const TOO_LARGE: &str = "a number of 2^53 or more";
/// Keys that are compared one by one; more of them go into a set.
const FEW: usize = 12;

/// What a pass over the bytes has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    /// The bytes of the values of `t` and `r` in the outermost map.
    pub t: Option<&'a [u8]>,
    pub r: Option<&'a [u8]>,
    /// The first thing that is wrong, for people. `t` and `r` may be known all the same: whoever asked shall hear of
    /// it.
    pub fault: Option<&'static str>,
}

/// Why a pass cannot go on.
type Broken = &'static str;

impl<'a> Form<'a> {
    /// `bytes` have to be one map with string keys, and nothing behind it.
    pub fn of(codec: Codec, bytes: &'a [u8]) -> Self {
        match codec {
            Codec::Msgpack => msgpack::scan(bytes),
            Codec::Json => json::scan(bytes),
        }
    }

    /// What is wrong with these bytes, for people, with the field where that can be told.
    pub fn why(&self, codec: Codec, bytes: &[u8]) -> Option<String> {
        let fault = self.fault?;
        let path = if fault == TOO_LARGE { place::of_a_large_number(codec, bytes) } else { None };
        Some(path.map_or_else(|| fault.to_owned(), |path| format!("{path}: {fault}")))
    }

    fn note(&mut self, fault: &'static str) {
        self.fault.get_or_insert(fault);
    }

    /// A field of the outermost map.
    fn field(&mut self, key: &str, value: &'a [u8]) {
        match key {
            "t" => self.t = Some(value),
            "r" => self.r = Some(value),
            _ => {}
        }
    }

    /// A field of the outermost map comes twice: neither is believed.
    fn twice(&mut self, key: &str) {
        self.note("a key comes twice in one map");
        match key {
            "t" => self.t = None,
            "r" => self.r = None,
            _ => {}
        }
    }

    fn ended(mut self, end: Result<(), Broken>) -> Self {
        if let Err(fault) = end {
            self.note(fault);
        }
        self
    }
}

/// May a map or list begin here?
fn fits(level: usize) -> Result<(), Broken> {
    if level <= MAX_LEVELS { Ok(()) } else { Err("more than 32 levels of maps and lists") }
}

/// The keys of one map.
#[derive(Default)]
struct Keys<'a> {
    few: SmallVec<[Cow<'a, str>; FEW]>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// False: it was there already.
    fn add(&mut self, key: Cow<'a, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&key) {
                return false;
            }
            if self.few.len() < FEW {
                self.few.push(key);
                return true;
            }
            self.many.extend(self.few.drain(..));
        }
        self.many.insert(key)
    }
}
