//! The form of JSON: RFC 8259, and what I-JSON (RFC 7493) adds for everybody to understand the same: UTF-8, no key
//! twice, no half of a surrogate pair, no whole number that a double does not hold.

use std::borrow::Cow;

use super::{Broken, Form, Keys, MAX_NUMBER, TOO_LARGE, fits};

pub fn scan(bytes: &[u8]) -> Form<'_> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Form::default().ended(Err("not UTF-8")) };
    let mut s = Scan { text, bytes, at: 0, form: Form::default() };
    let end = s.whole();
    s.form.ended(end)
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    form: Form<'a>,
}

const CUT: Broken = "cut short";
const NOT_JSON: Broken = "not JSON";

impl<'a> Scan<'a> {
    fn whole(&mut self) -> Result<(), Broken> {
        self.space();
        if self.peek() != Some(b'{') {
            return Err("not a map with string keys");
        }
        self.value(1)?;
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err("bytes behind the map") }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Broken> {
        let b = self.peek().ok_or(CUT)?;
        self.at += 1;
        Ok(b)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), Broken> {
        for want in word.bytes() {
            if self.next()? != want {
                return Err(NOT_JSON);
            }
        }
        Ok(())
    }

    /// One value, without the space around it. `level`: that of a map or list which begins here.
    fn value(&mut self, level: usize) -> Result<(), Broken> {
        match self.peek().ok_or(CUT)? {
            b'{' => self.map(level),
            b'[' => self.list(level),
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.expect("true"),
            b'f' => self.expect("false"),
            b'n' => self.expect("null"),
            _ => Err(NOT_JSON),
        }
    }

    fn list(&mut self, level: usize) -> Result<(), Broken> {
        fits(level)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            self.value(level + 1)?;
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(NOT_JSON),
            }
        }
    }

    fn map(&mut self, level: usize) -> Result<(), Broken> {
        fits(level)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut keys = Keys::default();
        loop {
            self.space();
            let key = self.key()?;
            self.space();
            self.expect(":")?;
            self.space();
            let began = self.at;
            self.value(level + 1)?;
            self.field(&mut keys, key, level, began);
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                _ => return Err(NOT_JSON),
            }
        }
    }

    fn field(&mut self, keys: &mut Keys<'a>, key: Cow<'a, str>, level: usize, began: usize) {
        let value = &self.bytes[began..self.at];
        if level > 1 {
            if !keys.add(key) {
                self.form.twice("");
            }
        } else if keys.add(key.clone()) {
            self.form.field(&key, value);
        } else {
            self.form.twice(&key);
        }
    }

    /// As it is meant: two spellings of one key are one key.
    fn key(&mut self) -> Result<Cow<'a, str>, Broken> {
        if self.peek().ok_or(CUT)? != b'"' {
            return Err("a key that is not a string");
        }
        let began = self.at;
        let escaped = self.string()?;
        let spelled = &self.text[began..self.at];
        if !escaped {
            return Ok(Cow::Borrowed(&spelled[1..spelled.len() - 1]));
        }
        // Half a surrogate pair was noted, and is no text.
        Ok(Cow::Owned(serde_json::from_str(spelled).unwrap_or_default()))
    }

    /// Says whether there was an escape in it.
    fn string(&mut self) -> Result<bool, Broken> {
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.next()? {
                b'"' => return Ok(escaped),
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0..=0x1f => return Err("a control character in a string: escape it"),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.unit()? {
                0xd800..=0xdbff => {
                    let low = self.bytes[self.at..].starts_with(b"\\u") && {
                        self.at += 2;
                        matches!(self.unit()?, 0xdc00..=0xdfff)
                    };
                    if !low {
                        self.form.note("half of a surrogate pair");
                    }
                    Ok(())
                }
                0xdc00..=0xdfff => {
                    self.form.note("half of a surrogate pair");
                    Ok(())
                }
                _ => Ok(()),
            },
            _ => Err(NOT_JSON),
        }
    }

    fn unit(&mut self) -> Result<u32, Broken> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(CUT)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, b| char::from(*b).to_digit(16).map(|d| sum * 16 + d)).ok_or(NOT_JSON)
    }

    fn number(&mut self) -> Result<(), Broken> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let began = self.at;
        match self.digits() {
            0 => return Err(NOT_JSON),
            n if n > 1 && self.bytes[began] == b'0' => return Err(NOT_JSON),
            _ => {}
        }
        let whole = &self.text[began..self.at];
        let mut fraction = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            fraction = true;
            if self.digits() == 0 {
                return Err(NOT_JSON);
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            fraction = true;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(NOT_JSON);
            }
        }
        if fraction {
            if !self.text[began..self.at].parse().is_ok_and(f64::is_finite) {
                self.form.note("a number beyond what a double holds");
            }
        } else if whole.parse().map_or(true, |n: u64| n > MAX_NUMBER) {
            self.form.note(TOO_LARGE);
        }
        Ok(())
    }

    /// How many there were.
    fn digits(&mut self) -> usize {
        let began = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - began
    }
}
