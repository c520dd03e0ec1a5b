//! Before step 2: where the body of a request ends. Pure: takes what belongs to it out of what was read, whatever
//! pieces that comes in.

use bytes::{Buf, BytesMut};
use http::StatusCode;
use natterjack_protocol::limits;

use super::head::Length;
use crate::http::refused::Refused;

/// A chunk's size and its extensions, which nobody needs.
const SIZE_LINE: usize = 256;

#[derive(Debug)]
enum Left {
    Bytes(u64),
    /// The line with a chunk's size.
    Size,
    Chunk(u64),
    /// The line break behind a chunk.
    Break,
    /// Lines up to an empty one, so many bytes so far.
    Trailers(usize),
}

#[derive(Debug)]
pub struct BodyReader {
    left: Left,
    pub body: BytesMut,
}

impl BodyReader {
    pub fn new(length: Length) -> Result<Self, Refused> {
        let left = match length {
            Length::Known(n) if n > limits::HTTP_BODY_BYTES as u64 => return Err(too_large()),
            Length::Known(n) => Left::Bytes(n),
            Length::Chunked => Left::Size,
        };
        Ok(Self { left, body: BytesMut::new() })
    }

    /// The most it can come to.
    pub fn most(&self) -> usize {
        match self.left {
            Left::Bytes(n) => usize::try_from(n).unwrap_or(usize::MAX),
            _ => limits::HTTP_BODY_BYTES,
        }
    }

    /// Takes from `read` what belongs to the body. True: it is whole, the rest is of the next request.
    pub fn feed(&mut self, read: &mut BytesMut) -> Result<bool, Refused> {
        loop {
            self.left = match self.left {
                Left::Bytes(left) => {
                    let left = self.take(read, left);
                    self.left = Left::Bytes(left);
                    return Ok(left == 0);
                }
                Left::Size => {
                    let Some(line) = line(read, SIZE_LINE)? else { return Ok(false) };
                    match size(&line).ok_or_else(|| Refused::bad_request("the size of a chunk is no number"))? {
                        0 => Left::Trailers(0),
                        n if n > (limits::HTTP_BODY_BYTES - self.body.len()) as u64 => return Err(too_large()),
                        n => Left::Chunk(n),
                    }
                }
                Left::Chunk(left) => match self.take(read, left) {
                    0 => Left::Break,
                    left => {
                        self.left = Left::Chunk(left);
                        return Ok(false);
                    }
                },
                Left::Break => match line(read, 2)? {
                    Some(_) => Left::Size,
                    None => return Ok(false),
                },
                Left::Trailers(before) => {
                    let Some(line) = line(read, limits::HEAD_BYTES.saturating_sub(before))? else { return Ok(false) };
                    if line.is_empty() {
                        return Ok(true);
                    }
                    Left::Trailers(before + line.len() + 2)
                }
            }
        }
    }

    fn take(&mut self, read: &mut BytesMut, left: u64) -> u64 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
        self.body.extend_from_slice(&read[..n]);
        read.advance(n);
        left - n as u64
    }
}

/// The next line without its break, if it is there; an error if it cannot be one of at most `most` bytes with its
/// break.
fn line(read: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, Refused> {
    let bad = || Refused::bad_request("the chunked body is broken");
    let Some(at) = read.iter().take(most).position(|b| *b == b'\n') else {
        return if read.len() >= most { Err(bad()) } else { Ok(None) };
    };
    if at == 0 || read[at - 1] != b'\r' || read[..at - 1].contains(&b'\r') || (most == 2 && at != 1) {
        return Err(bad());
    }
    let mut line = read.split_to(at + 1);
    line.truncate(at - 1);
    Ok(Some(line))
}

fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
    let good = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    good.then(|| std::str::from_utf8(digits).ok().and_then(|d| u64::from_str_radix(d, 16).ok())).flatten()
}

fn too_large() -> Refused {
    let why = format!("the body has more than {} bytes", limits::HTTP_BODY_BYTES);
    Refused::invalid(StatusCode::PAYLOAD_TOO_LARGE, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type BodyAndRest = (Vec<u8>, Vec<u8>);

    /// In pieces of this size.
    fn read(length: Length, bytes: &[u8], piece: usize) -> Result<Option<BodyAndRest>, u16> {
        let mut reading = BodyReader::new(length).map_err(|r| r.0.as_u16())?;
        let mut buffer = BytesMut::new();
        let mut done = reading.feed(&mut buffer).map_err(|r| r.0.as_u16())?;
        for bytes in bytes.chunks(piece) {
            buffer.extend_from_slice(bytes);
            if !done {
                done = reading.feed(&mut buffer).map_err(|r| r.0.as_u16())?;
            }
        }
        Ok(done.then(|| (reading.body.to_vec(), buffer.to_vec())))
    }

    #[test]
    fn a_body_ends_where_it_says_in_whatever_pieces_it_comes() {
        let chunked = b"5\r\nhello\r\n6 ;ext=\"x\"\r\n world\r\n0\r\nTrailer: x\r\n\r\nGET /next";
        for piece in 1..chunked.len() {
            assert_eq!(
                read(Length::Chunked, chunked, piece),
                Ok(Some((b"hello world".to_vec(), b"GET /next".to_vec()))),
                "{piece}"
            );
            assert_eq!(
                read(Length::Known(5), b"helloGET /next", piece),
                Ok(Some((b"hello".to_vec(), b"GET /next".to_vec()))),
                "{piece}"
            );
        }
        assert_eq!(read(Length::Known(0), b"x", 1), Ok(Some((Vec::new(), b"x".to_vec()))));
        assert_eq!(read(Length::Known(3), b"ab", 1), Ok(None));
        assert_eq!(read(Length::Chunked, &chunked[..20], 3), Ok(None));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            "\r\n",
            ";x\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\nhello",
            "5 5\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n",
            "11111111111111111\r\n",
            "5;a\rb\r\n",
            "0\r\nX: y\n\r\n",
        ] {
            assert_eq!(read(Length::Chunked, bad.as_bytes(), 1), Err(400), "{bad:?}");
        }
        assert_eq!(read(Length::Chunked, format!("5;{}", "x".repeat(300)).as_bytes(), 7), Err(400));
        assert_eq!(read(Length::Chunked, format!("0\r\nX: {}", "x".repeat(20_000)).as_bytes(), 500), Err(400));
    }

    #[test]
    fn no_body_is_longer_than_the_limit() {
        let n = limits::HTTP_BODY_BYTES as u64;
        assert_eq!(read(Length::Known(n + 1), b"", 1), Err(413));
        assert_eq!(
            read(Length::Known(n), &vec![0; limits::HTTP_BODY_BYTES], 4_096).unwrap().unwrap().0.len(),
            limits::HTTP_BODY_BYTES
        );
        assert_eq!(read(Length::Chunked, format!("{:x}\r\n", n + 1).as_bytes(), 9), Err(413));
        let many = "1000\r\n".to_owned() + &"x".repeat(4_096) + "\r\n";
        assert_eq!(read(Length::Chunked, many.repeat(65).as_bytes(), 1_000), Err(413), "many small ones");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>, piece in 1usize..9) {
            let _ = read(Length::Chunked, &bytes, piece);
        }
    }
}
