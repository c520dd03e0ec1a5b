//! An entry's bytes understood as far as the path of a message needs (step 4), and the reader that finds where fields
//! begin and end.

use crate::{cid::Cid, ids::Token, log::VERSION, times::Times};

#[derive(Debug, thiserror::Error)]
#[error("not a log entry: {0}")]
pub struct BadEntry(pub String);

/// An entry's bytes, understood just as far as the path of a message needs: borrowed, nothing allocated.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    pub seen: Option<u64>,
    pub from: &'a str,
    pub cid: Cid,
    pub kind: &'a str,
    /// `from` and everything after it, as `tail_fields` pairs of the map.
    pub(crate) tail: &'a [u8],
    pub(crate) tail_fields: u32,
}

impl<'a> EntryView<'a> {
    /// The late rule on an entry of a `chat.` subject, stored at `ts_ms` (raw time of the stream): may it be a copy
    /// that the dedupe window could not see? Only a lookup of (thread, sender, cid) below its id can tell.
    pub fn is_late(&self, ts_ms: u64, times: &Times) -> bool {
        self.cid.is_late(ts_ms, self.seen, times)
    }

    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadEntry> {
        let mut r = Reader::new(bytes);
        let fields = r.map_len()?;
        let (mut v, mut seen, mut from, mut cid, mut kind, mut body) = (0u64, None, None, None, None, false);
        let mut tail_at = None;
        for i in 0..fields {
            let before = r.at;
            match r.str()? {
                "v" if tail_at.is_none() && v == 0 => v = r.uint()?,
                "seen" if tail_at.is_none() && seen.is_none() => seen = Some(r.uint()?),
                "v" | "seen" => return Err(BadEntry("v or seen out of its place".into())),
                // Spliced behind the log's own fields, it would say the thread, id or predecessor a second time, and
                // some readers take the last.
                "t" | "thread" | "id" | "prev" | "ts" => {
                    return Err(BadEntry("a field that only the log may say".into()));
                }
                key => {
                    tail_at.get_or_insert((before, fields - i));
                    let twice = match key {
                        "from" => from.replace(r.str()?).is_some(),
                        "cid" => cid.replace(r.bin()?).is_some(),
                        "kind" => kind.replace(r.str()?).is_some(),
                        "body" => {
                            r.skip_map()?;
                            std::mem::replace(&mut body, true)
                        }
                        _ => {
                            r.skip(0)?;
                            false
                        }
                    };
                    if twice {
                        return Err(BadEntry("a field comes twice".into()));
                    }
                }
            }
        }
        let missing = |what: &str| BadEntry(format!("{what} is missing"));
        if r.at != bytes.len() {
            return Err(BadEntry("bytes behind the entry".into()));
        }
        if v == 0 || v > u64::from(VERSION) + 1 {
            return Err(BadEntry(format!("version {v}")));
        }
        if !body {
            return Err(missing("body"));
        }
        let cid: [u8; 16] =
            cid.ok_or_else(|| missing("cid"))?.try_into().map_err(|_| BadEntry("cid of a wrong length".into()))?;
        let (tail_at, tail_fields) = tail_at.ok_or_else(|| missing("from"))?;
        Ok(Self {
            seen,
            from: from.filter(|f| Token::fits(f)).ok_or_else(|| missing("an id in from"))?,
            cid: Cid::from_bytes(cid).map_err(|e| BadEntry(e.to_string()))?,
            kind: kind.ok_or_else(|| missing("kind"))?,
            tail: &bytes[tail_at..],
            tail_fields,
        })
    }
}

/// Just enough of a MessagePack reader to find where fields begin and end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Bodies are two levels deep; whatever nests further is not ours.
const MAX_DEPTH: u8 = 16;

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], BadEntry> {
        let end =
            self.at.checked_add(n).filter(|e| *e <= self.bytes.len()).ok_or_else(|| BadEntry("cut short".into()))?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn byte(&mut self) -> Result<u8, BadEntry> {
        Ok(self.take(1)?[0])
    }

    fn be(&mut self, n: usize) -> Result<u64, BadEntry> {
        Ok(self.take(n)?.iter().fold(0, |acc, b| (acc << 8) | u64::from(*b)))
    }

    fn len(&mut self, n: usize) -> Result<usize, BadEntry> {
        usize::try_from(self.be(n)?).map_err(|_| BadEntry("a length beyond memory".into()))
    }

    fn map_len(&mut self) -> Result<u32, BadEntry> {
        match self.byte()? {
            b @ 0x80..=0x8f => Ok(u32::from(b & 0x0f)),
            0xde => Ok(self.be(2)? as u32),
            _ => Err(BadEntry("not a map".into())),
        }
    }

    fn uint(&mut self) -> Result<u64, BadEntry> {
        match self.byte()? {
            b @ 0x00..=0x7f => Ok(u64::from(b)),
            0xcc => self.be(1),
            0xcd => self.be(2),
            0xce => self.be(4),
            0xcf => self.be(8),
            _ => Err(BadEntry("not a whole number".into())),
        }
    }

    fn str(&mut self) -> Result<&'a str, BadEntry> {
        let n = match self.byte()? {
            b @ 0xa0..=0xbf => usize::from(b & 0x1f),
            0xd9 => self.len(1)?,
            0xda => self.len(2)?,
            _ => return Err(BadEntry("not a short string".into())),
        };
        std::str::from_utf8(self.take(n)?).map_err(|_| BadEntry("not UTF-8".into()))
    }

    fn bin(&mut self) -> Result<&'a [u8], BadEntry> {
        match self.byte()? {
            0xc4 => {
                let n = self.len(1)?;
                self.take(n)
            }
            _ => Err(BadEntry("not short bytes".into())),
        }
    }

    fn skip_map(&mut self) -> Result<(), BadEntry> {
        match self.bytes.get(self.at) {
            Some(0x80..=0x8f | 0xde) => self.skip(0),
            _ => Err(BadEntry("the body is not a map".into())),
        }
    }

    fn skip(&mut self, depth: u8) -> Result<(), BadEntry> {
        if depth > MAX_DEPTH {
            return Err(BadEntry("nested too deep".into()));
        }
        let (bytes, items) = match self.byte()? {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
            b @ 0x80..=0x8f => (0, 2 * usize::from(b & 0x0f)),
            b @ 0x90..=0x9f => (0, usize::from(b & 0x0f)),
            b @ 0xa0..=0xbf => (usize::from(b & 0x1f), 0),
            0xc4 | 0xd9 => (self.len(1)?, 0),
            0xc5 | 0xda => (self.len(2)?, 0),
            0xc6 | 0xdb => (self.len(4)?, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xdc => (0, self.len(2)?),
            0xde => (0, 2 * self.len(2)?),
            _ => return Err(BadEntry("a type that entries do not use".into())),
        };
        self.take(bytes)?;
        for _ in 0..items {
            self.skip(depth + 1)?;
        }
        Ok(())
    }
}
