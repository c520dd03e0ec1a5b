//! Bytes that are made to hurt: bombs, huge lengths, entries that say what only the log says.

use std::time::{Duration, Instant};

use natterjack_protocol::{
    Code, Entry,
    client::frame::{ClientFrame, ServerFrame},
    codec::Codec,
    internal::live::{Beat, Ephemeral},
    log::EntryView,
};

use crate::samples;

/// The stack of a worker is 2 MB: a bomb must stop long before.
#[test]
fn nesting_bombs_stop_early() {
    let run = || {
        for depth in [100, 1_000, 100_000] {
            for (open, close) in [("[", "]"), (r#"{"x":"#, "}")] {
                for closed in [true, false] {
                    let nested = open.repeat(depth) + "1" + &close.repeat(if closed { depth } else { 0 });
                    for frame in [
                        format!(r#"{{"t":"ping","x":{nested}}}"#),
                        format!(r#"{{"t":"send","r":1,"body":{nested}}}"#),
                        nested.clone(),
                    ] {
                        let _ = ClientFrame::decode(Codec::Json, frame.as_bytes());
                        let _ = ServerFrame::decode(Codec::Json, frame.as_bytes());
                    }
                }
            }
            for open in [&b"\x91"[..], b"\x81\xa1x", b"\xdc\x00\x01"] {
                let nested = [open.repeat(depth), b"\x01".to_vec()].concat();
                let frame = [&b"\x82\xa1t\xa4ping\xa1x"[..], &nested].concat();
                let e = ClientFrame::decode(Codec::Msgpack, &frame).unwrap_err();
                assert_eq!(e.refusal.code, Code::BadFrame);
                assert!(
                    ServerFrame::decode(Codec::Msgpack, &[&b"\x82\xa1t\xa4page\xa1x"[..], &nested].concat()).is_err()
                );
                let entry = samples::entries().remove(0).2.encode();
                let mut entry = entry.to_vec();
                entry[0] += 1;
                entry.extend_from_slice(b"\xa1x");
                entry.extend_from_slice(&nested);
                assert!(Entry::decode(&entry).is_err());
                assert!(Beat::decode(&nested).is_err() && Ephemeral::decode(&nested).is_err());
            }
        }
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap().join().unwrap();
}

fn resident_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}

/// A frame of twenty bytes that announces four billion elements costs neither memory nor time.
#[test]
fn huge_declared_lengths_allocate_nothing() {
    let before = resident_kb();
    let started = Instant::now();
    let huge: [&[u8]; 6] = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff",
    ];
    let heads: [&[u8]; 7] = [
        b"",
        b"\x82\xa1t\xa4ping\xa1x",
        b"\x82\xa1t\xa5hello\xa7cursors",
        b"\x82\xa1t\xa5hello\xa5token",
        b"\x83\xa1t\xa4send\xa1r\x01\xa4body\x81\xa5users",
        b"\x83\xa1t\xa4send\xa1r\x01\xa4body\x81\xa4data",
        b"\x82\xa1t\xa4page\xa6events",
    ];
    for _ in 0..100 {
        for head in heads {
            for length in huge {
                let bytes = [head, length].concat();
                assert!(ClientFrame::decode(Codec::Msgpack, &bytes).is_err());
                let _ = ServerFrame::decode(Codec::Msgpack, &bytes);
                assert!(Entry::decode(&bytes).is_err());
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    if let (Some(before), Some(after)) = (before, resident_kb()) {
        // Other tests run beside this one; four billion elements would be gigabytes.
        assert!(after - before < 256 * 1024, "{before} → {after} kB");
    }
}

/// An entry may not say again what only the log says: a reader that takes the last of two keys would be led astray.
#[test]
fn an_entry_cannot_forge_its_place() {
    let good = samples::entries().remove(0).2.encode();
    for (key, value) in [
        (&b"\xa2id"[..], &b"\xcf\x00\x10\0\0\0\0\0\0"[..]),
        (b"\xa4prev", b"\x01"),
        (b"\xa6thread", b"\xa6dm.a.c"),
        (b"\xa1t", b"\xa3bye"),
        (b"\xa2ts", b"\x01"),
        (b"\xa4from", b"\xa1b"),
        (b"\xa1v", b"\x01"),
    ] {
        let mut forged = good.to_vec();
        forged[0] += 1;
        forged.extend_from_slice(key);
        forged.extend_from_slice(value);
        assert!(EntryView::parse(&forged).is_err(), "{key:x?}");
        assert!(Entry::decode(&forged).is_err(), "{key:x?}");
    }
}
