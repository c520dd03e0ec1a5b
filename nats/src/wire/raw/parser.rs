//! The server's side of the NATS protocol, as far as the fan-in reader needs it: bytes in, positions of complete
//! operations out. Pure.
//!
//! Nothing is copied: an operation names ranges of the buffer, which the reader freezes and slices.

use std::ops::Range;

/// Live messages are far smaller; nats-server's own bound is lower. What claims more is not the protocol any more.
pub(crate) const MAX_PAYLOAD: usize = 8 << 20;
/// nats-server sends control lines of at most 4 KiB (two subjects and numbers).
const MAX_LINE: usize = 8 << 10;
/// INFO names every server of a cluster.
const MAX_INFO: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Msg {
        sid: u64,
        subject: Range<usize>,
        /// Empty without one, like the header.
        reply: Range<usize>,
        header: Range<usize>,
        payload: Range<usize>,
        /// Of a header line such as `NATS/1.0 503`; 0 without one.
        status: u16,
    },
    Ping,
    Pong,
    Ok,
    Err(Range<usize>),
    Info(Range<usize>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The operation, and where the next one begins.
    Op(Op, usize),
    /// Not complete; at least this many more bytes are missing.
    More(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the NATS protocol: {0}")]
pub(crate) struct ProtocolError(&'static str);

/// The operation that begins at `at`.
pub(crate) fn parse(buf: &[u8], at: usize) -> Result<Parsed, ProtocolError> {
    let rest = &buf[at.min(buf.len())..];
    let info = rest.starts_with(b"INFO ");
    let limit = if info { MAX_INFO } else { MAX_LINE };
    let Some(newline) = rest.iter().take(limit).position(|b| *b == b'\n') else {
        return if rest.len() >= limit { Err(ProtocolError("a line without end")) } else { Ok(Parsed::More(1)) };
    };
    let line = rest[..newline].strip_suffix(b"\r").ok_or(ProtocolError("a line feed alone"))?;
    let next = at + newline + 1;
    let done = |op| Ok(Parsed::Op(op, next));
    if let Some(args) = line.strip_prefix(b"MSG ") {
        return message(buf, at + 4, args, next, false);
    }
    if let Some(args) = line.strip_prefix(b"HMSG ") {
        return message(buf, at + 5, args, next, true);
    }
    let end = at + line.len();
    match line {
        b"PING" => done(Op::Ping),
        b"PONG" => done(Op::Pong),
        b"+OK" => done(Op::Ok),
        _ if line.starts_with(b"-ERR") => done(Op::Err(at + 4..end)),
        _ if info => done(Op::Info(at + 5..end)),
        _ => Err(ProtocolError("an unknown operation")),
    }
}

/// `<subject> <sid> [reply] <bytes>` or, with headers, `<subject> <sid> [reply] <header bytes> <all bytes>`; the body
/// behind the line.
fn message(buf: &[u8], args_at: usize, args: &[u8], body: usize, headers: bool) -> Result<Parsed, ProtocolError> {
    let mut fields: [Range<usize>; 5] = Default::default();
    let mut n = 0;
    let mut from = 0;
    for (i, b) in args.iter().chain(std::iter::once(&b' ')).enumerate() {
        if *b == b' ' || *b == b'\t' {
            if i > from {
                *fields.get_mut(n).ok_or(ProtocolError("too many fields"))? = from..i;
                n += 1;
            }
            from = i + 1;
        }
    }
    let numbers = if headers { 2 } else { 1 };
    if n != 2 + numbers && n != 3 + numbers {
        return Err(ProtocolError("a message line of a wrong number of fields"));
    }
    let number_at = |i: usize| number(&args[fields[i].clone()]);
    let total = number_at(n - 1)?;
    let header = if headers { number_at(n - 2)? } else { 0 };
    if total > MAX_PAYLOAD as u64 || header > total {
        return Err(ProtocolError("a message too large"));
    }
    let (total, header) = (total as usize, header as usize);
    let end = body + total;
    if buf.len() < end + 2 {
        return Ok(Parsed::More(end + 2 - buf.len()));
    }
    if &buf[end..end + 2] != b"\r\n" {
        return Err(ProtocolError("a message without its end"));
    }
    let field = |i: usize| args_at + fields[i].start..args_at + fields[i].end;
    Ok(Parsed::Op(
        Op::Msg {
            sid: number_at(1)?,
            subject: field(0),
            reply: if n == 3 + numbers { field(2) } else { body..body },
            header: body..body + header,
            payload: body + header..end,
            status: status(&buf[body..body + header]),
        },
        end + 2,
    ))
}

fn number(digits: &[u8]) -> Result<u64, ProtocolError> {
    if digits.is_empty() {
        return Err(ProtocolError("a number without digits"));
    }
    digits.iter().try_fold(0u64, |n, d| {
        let d = d.checked_sub(b'0').filter(|d| *d <= 9);
        d.and_then(|d| n.checked_mul(10)?.checked_add(u64::from(d))).ok_or(ProtocolError("not a number"))
    })
}

/// `NATS/1.0 503 …`: 503.
fn status(header: &[u8]) -> u16 {
    let code = header.strip_prefix(b"NATS/1.0 ").and_then(|rest| rest.get(..3));
    code.and_then(|c| number(c).ok()).and_then(|n| u16::try_from(n).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] = b"INFO {\"a\":1}\r\nMSG live.user.a.e 42 5\r\nhello\r\nPING\r\nMSG live.group.g.x 7 _INBOX.r 0\r\n\r\n+OK\r\n\
        HMSG _INBOX.q.9 0 16 16\r\nNATS/1.0 503\r\n\r\n\r\n-ERR 'Slow'\r\nHMSG s 4294967297 r 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPONG\r\n";

    fn all(buf: &[u8]) -> Result<(Vec<Op>, usize), ProtocolError> {
        let (mut ops, mut at) = (Vec::new(), 0);
        while let Parsed::Op(op, next) = parse(buf, at)? {
            ops.push(op);
            at = next;
        }
        Ok((ops, at))
    }

    fn shown(buf: &[u8], op: &Op) -> String {
        let s = |r: &Range<usize>| String::from_utf8_lossy(&buf[r.clone()]).into_owned();
        match op {
            Op::Msg { sid, subject, reply, header, payload, status } => {
                format!("{sid} {} {}{:?} {:?} {status}", s(subject), s(reply), s(header), s(payload))
            }
            Op::Err(r) => format!("err{}", s(r)),
            Op::Info(r) => format!("info {}", s(r)),
            other => format!("{other:?}"),
        }
    }

    const EXPECTED: [&str; 9] = [
        "info {\"a\":1}",
        "42 live.user.a.e \"\" \"hello\" 0",
        "Ping",
        "7 live.group.g.x _INBOX.r\"\" \"\" 0",
        "Ok",
        "0 _INBOX.q.9 \"NATS/1.0 503\\r\\n\\r\\n\" \"\" 503",
        "err 'Slow'",
        "4294967297 s r\"NATS/1.0\\r\\n\\r\\n\" \"abc\" 0",
        "Pong",
    ];

    #[test]
    fn every_operation() {
        let (ops, at) = all(STREAM).unwrap();
        assert_eq!(at, STREAM.len());
        assert_eq!(ops.iter().map(|o| shown(STREAM, o)).collect::<Vec<_>>(), EXPECTED);
    }

    /// However the bytes arrive, the operations are the same, and none appears before it is complete.
    #[test]
    fn split_at_every_byte() {
        for cut in 0..=STREAM.len() {
            let (first, at) = all(&STREAM[..cut]).unwrap();
            assert!(at <= cut);
            let (second, _) = all(&STREAM[at..]).unwrap();
            let mut seen: Vec<String> = first.iter().map(|o| shown(&STREAM[..cut], o)).collect();
            seen.extend(second.iter().map(|o| shown(&STREAM[at..], o)));
            assert_eq!(seen, EXPECTED, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        let too_large = format!("MSG a 1 {}\r\n", MAX_PAYLOAD + 1);
        let endless = vec![b'x'; MAX_LINE];
        let bad: [&[u8]; 10] = [
            b"HELLO\r\n",
            b"MSG a 1\r\n",
            b"MSG a 1 x\r\n",
            b"MSG a 1 r s t 5\r\n",
            b"HMSG a 1 9 5\r\n",
            b"PING\n",
            b"MSG a 1 2\r\nhello\r\n",
            b"MSG a 99999999999999999999999 0\r\n\r\n",
            too_large.as_bytes(),
            &endless,
        ];
        for bytes in bad {
            assert!(parse(bytes, 0).is_err(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        }
    }

    #[test]
    fn an_incomplete_message_says_how_much_is_missing() {
        assert_eq!(parse(b"MSG a 1 10\r\n12345", 0), Ok(Parsed::More(7)));
        assert_eq!(parse(b"MSG a 1 1", 0), Ok(Parsed::More(1)));
    }

    proptest! {
        #[test]
        fn mutated_input_never_panics(at in 0usize..300, with: u8, cut in 0usize..300, start in 0usize..300) {
            let mut bytes = STREAM.to_vec();
            let n = bytes.len();
            bytes[at % n] = with;
            bytes.truncate(n - cut % n);
            let mut at = start % n;
            while let Ok(Parsed::Op(_, next)) = parse(&bytes, at) {
                prop_assert!(next > at && next <= bytes.len());
                at = next;
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, 0);
        }
    }
}
