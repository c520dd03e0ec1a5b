//! The form of MessagePack: lengths that fit, strings that are UTF-8, keys that are strings and come once.

use std::borrow::Cow;

use super::{Broken, Form, Keys, MAX_NUMBER, TOO_LARGE, fits};

pub fn scan(bytes: &[u8]) -> Form<'_> {
    let mut s = Scan { bytes, at: 0, form: Form::default() };
    let end = s.whole();
    s.form.ended(end)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    form: Form<'a>,
}

impl<'a> Scan<'a> {
    fn whole(&mut self) -> Result<(), Broken> {
        match self.bytes.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => self.value(1)?,
            _ => return Err("not a map with string keys"),
        }
        if self.at == self.bytes.len() { Ok(()) } else { Err("bytes behind the map") }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Broken> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or("cut short")?;
        self.at += n;
        Ok(taken)
    }

    /// A whole number of `n` bytes.
    fn number(&mut self, n: usize) -> Result<u64, Broken> {
        Ok(self.take(n)?.iter().fold(0, |sum, b| (sum << 8) | u64::from(*b)))
    }

    fn len(&mut self, n: usize) -> Result<usize, Broken> {
        usize::try_from(self.number(n)?).map_err(|_| "cut short")
    }

    /// One value. `level`: that of a map or list which begins here.
    fn value(&mut self, level: usize) -> Result<(), Broken> {
        match self.take(1)?[0] {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(()),
            b @ 0x80..=0x8f => self.map(usize::from(b & 0x0f), level),
            b @ 0x90..=0x9f => self.list(usize::from(b & 0x0f), level),
            b @ 0xa0..=0xbf => self.string(usize::from(b & 0x1f)),
            0xc1 => Err("0xc1 begins nothing in MessagePack"),
            b @ 0xc4..=0xc6 => self.sized(1 << (b - 0xc4), 0),
            b @ 0xc7..=0xc9 => self.sized(1 << (b - 0xc7), 1),
            0xca | 0xce | 0xd2 => self.take(4).map(drop),
            0xcb => self.take(8).map(drop),
            0xcc | 0xd0 => self.take(1).map(drop),
            0xcd | 0xd1 => self.take(2).map(drop),
            0xcf => {
                let n = self.number(8)?;
                self.whole_number(n)
            }
            0xd3 => {
                let n = self.number(8)?.cast_signed().unsigned_abs();
                self.whole_number(n)
            }
            b @ 0xd4..=0xd8 => self.take(1 + (1 << (b - 0xd4))).map(drop),
            b @ 0xd9..=0xdb => {
                let n = self.len(1 << (b - 0xd9))?;
                self.string(n)
            }
            b @ 0xdc..=0xdd => {
                let n = self.len(2 << (b - 0xdc))?;
                self.list(n, level)
            }
            b @ 0xde..=0xdf => {
                let n = self.len(2 << (b - 0xde))?;
                self.map(n, level)
            }
        }
    }

    fn whole_number(&mut self, n: u64) -> Result<(), Broken> {
        if n > MAX_NUMBER {
            self.form.note(TOO_LARGE);
        }
        Ok(())
    }

    /// Bytes, or an extension: their length is in the next `n`, and `more` stand before them.
    fn sized(&mut self, n: usize, more: usize) -> Result<(), Broken> {
        let len = self.len(n)?;
        self.take(len)?;
        self.take(more).map(drop)
    }

    fn string(&mut self, n: usize) -> Result<(), Broken> {
        if std::str::from_utf8(self.take(n)?).is_err() {
            self.form.note("a string that is not UTF-8");
        }
        Ok(())
    }

    fn list(&mut self, n: usize, level: usize) -> Result<(), Broken> {
        fits(level)?;
        for _ in 0..n {
            self.value(level + 1)?;
        }
        Ok(())
    }

    fn map(&mut self, n: usize, level: usize) -> Result<(), Broken> {
        fits(level)?;
        let mut keys = Keys::default();
        for _ in 0..n {
            let key = self.key(level)?;
            let began = self.at;
            self.value(level + 1)?;
            let Some(key) = key else { continue };
            if keys.add(Cow::Borrowed(key)) {
                if level == 1 {
                    self.form.field(key, &self.bytes[began..self.at]);
                }
            } else if level == 1 {
                self.form.twice(key);
            } else {
                self.form.twice("");
            }
        }
        Ok(())
    }

    /// None: it is no string, or not UTF-8, which was noted.
    fn key(&mut self, level: usize) -> Result<Option<&'a str>, Broken> {
        let head = match self.bytes.get(self.at) {
            Some(0xa0..=0xbf) => 1,
            Some(0xd9) => 2,
            Some(0xda) => 3,
            Some(0xdb) => 5,
            _ => {
                self.form.note("a key that is not a string");
                self.value(level + 1)?;
                return Ok(None);
            }
        };
        let began = self.at + head;
        self.value(level + 1)?;
        Ok(std::str::from_utf8(&self.bytes[began..self.at]).ok())
    }
}
