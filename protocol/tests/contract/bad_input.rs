//! What broken, hostile and merely newer frames are answered. Every answer is typed, names the field, and echoes `r`.

mod hostile;

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_protocol::{
    Cid, Code, MsgId,
    client::frame::{BadFrame, ClientFrame, ServerFrame, SyncQuery, ThreadsQuery},
    codec::Codec,
};
use serde_json::{Value, json};

use super::samples;

/// A frame given as JSON, in either codec.
fn encoded(codec: Codec, frame: &Value) -> Vec<u8> {
    match codec {
        Codec::Json => serde_json::to_vec(frame).unwrap(),
        Codec::Msgpack => rmp_serde::to_vec_named(&AsBytes(None, frame)).unwrap(),
    }
}

/// Cids and data, which are strings in JSON and bytes in MessagePack; a string that is neither stays one.
struct AsBytes<'a>(Option<&'a str>, &'a Value);

impl serde::Serialize for AsBytes<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match (self.0, self.1) {
            (Some("cid" | "behind"), Value::String(text)) if text.parse::<Cid>().is_ok() => {
                s.serialize_bytes(text.parse::<Cid>().unwrap().as_bytes())
            }
            (Some("data"), Value::String(text)) if BASE64_STANDARD.decode(text).is_ok() => {
                s.serialize_bytes(&BASE64_STANDARD.decode(text).unwrap())
            }
            (_, Value::Object(map)) => s.collect_map(map.iter().map(|(k, v)| (k, AsBytes(Some(k), v)))),
            (_, Value::Array(list)) => s.collect_seq(list.iter().map(|v| AsBytes(None, v))),
            (_, value) => value.serialize(s),
        }
    }
}

fn decode(codec: Codec, frame: &Value) -> Result<ClientFrame, BadFrame> {
    ClientFrame::decode(codec, &encoded(codec, frame))
}

fn client_frames() -> impl Iterator<Item = (Codec, Value)> {
    let frames = samples::client().into_iter().map(|(_, _, f)| serde_json::to_value(f).unwrap());
    frames.flat_map(|f| Codec::ALL.map(|codec| (codec, f.clone())))
}

fn send() -> Value {
    serde_json::to_value(&samples::client().into_iter().find(|(n, ..)| *n == "send").unwrap().2).unwrap()
}

#[test]
fn unknown_fields_are_ignored_everywhere() {
    let extra = json!({ "deep": [[{ "er": [1, -1, 1.5, null, true, "x", 9_007_199_254_740_991_u64] }]] });
    for (codec, frame) in client_frames() {
        let want = decode(codec, &frame).unwrap();
        let mut more = frame.clone();
        more["a_later_version"] = extra.clone();
        if more.get("body").is_some() {
            more["body"]["poll"] = extra.clone();
        }
        assert_eq!(decode(codec, &more), Ok(want), "{frame}");
    }
    for (_, _, want) in samples::server() {
        for codec in Codec::ALL {
            let mut more = serde_json::to_value(&want).unwrap();
            more["a_later_version"] = extra.clone();
            assert_eq!(ServerFrame::decode(codec, &encoded(codec, &more)).unwrap(), Some(want.clone()));
        }
    }
}

#[test]
fn a_missing_field_is_named() {
    for (codec, frame) in client_frames() {
        let t = frame["t"].as_str().unwrap();
        for key in frame.as_object().unwrap().keys().filter(|k| *k != "t") {
            let mut less = frame.clone();
            less.as_object_mut().unwrap().remove(key);
            let optional = matches!(
                (t, key.as_str()),
                ("hello", "class" | "name" | "app" | "session" | "cursors" | "synced")
                    | ("ack", "got" | "read")
                    | ("send", "behind")
                    | ("watch", "users")
                    | ("threads", "since" | "archived")
                    | ("history" | "threads", "before" | "after" | "around" | "at" | "limit")
            );
            match decode(codec, &less) {
                Ok(_) => assert!(optional, "{t} without {key}"),
                Err(bad) => {
                    assert!(!optional, "{t} without {key}: {}", bad.refusal);
                    assert_eq!(bad.refusal.code, Code::BadFrame);
                    assert!(
                        bad.refusal.message.starts_with(t) && bad.refusal.message.contains(&format!("`{key}`")),
                        "{}",
                        bad.refusal
                    );
                    assert_eq!(bad.r.map(u64::from), less["r"].as_u64(), "r is echoed");
                }
            }
        }
    }
}

/// Every field, also inside the body, with every other type.
#[test]
fn a_wrong_type_is_named_and_the_value_is_not_quoted() {
    let wrong = [
        json!("secret words"),
        json!(-1),
        json!(1.5),
        json!(true),
        json!([1]),
        json!({ "x": 1 }),
        json!((1_u64 << 53) - 1),
    ];
    let mut refused = 0;
    for (codec, frame) in client_frames() {
        let mut paths: Vec<Vec<&str>> = frame.as_object().unwrap().keys().map(|k| vec![k.as_str()]).collect();
        for (outer, inner) in frame
            .as_object()
            .unwrap()
            .iter()
            .filter(|(k, _)| *k != "cursors")
            .filter_map(|(k, v)| Some((k, v.as_object()?)))
        {
            paths.extend(inner.keys().map(|k| vec![outer.as_str(), k.as_str()]));
        }
        for path in paths {
            for value in &wrong {
                let mut bad = frame.clone();
                let place = path.iter().fold(&mut bad, |v, key| &mut v[*key]);
                *place = value.clone();
                let Err(answer) = decode(codec, &bad) else { continue };
                refused += 1;
                let message = &answer.refusal.message;
                assert!(!message.contains("secret") || path == ["t"], "{message}");
                if path == ["t"] {
                    continue;
                }
                assert_eq!(answer.refusal.code, Code::BadFrame, "{message}");
                // Inside a map of cursors the path goes on to the thread; a bad key has no path of its own.
                assert!(message.contains(&path.join(".")) || path == ["cursors"], "{path:?} {value}: {message}");
                assert_eq!(answer.r.map(u64::from), frame["r"].as_u64().filter(|_| path != ["r"]), "r is echoed");
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn an_unknown_type_echoes_r() {
    for codec in Codec::ALL {
        let e = decode(codec, &json!({ "t": "teleport", "r": 77, "to": "moon" })).unwrap_err();
        assert_eq!((e.r, e.refusal.code), (Some(77), Code::UnknownFrame));
        assert!(e.refusal.message.contains("teleport"));
        let e = decode(codec, &json!({ "t": "x".repeat(10_000) })).unwrap_err();
        assert!(e.refusal.message.len() < 100, "an unknown type is quoted in part only");
        let e = decode(codec, &json!({ "r": 5 })).unwrap_err();
        assert_eq!((e.r, e.refusal.code), (Some(5), Code::BadFrame));
        assert!(e.refusal.message.contains("`t`"));
        assert_eq!(
            ServerFrame::decode(codec, &encoded(codec, &json!({ "t": "teleport" }))),
            Ok(None),
            "a client ignores it"
        );
    }
}

#[test]
fn only_a_whole_map_is_a_frame() {
    for codec in Codec::ALL {
        for not_a_map in [json!(null), json!(1), json!("ping"), json!(["ping", 1]), json!([])] {
            let e = decode(codec, &not_a_map).unwrap_err();
            assert_eq!(e.refusal.code, Code::BadFrame, "{not_a_map}");
        }
        let ping = encoded(codec, &json!({ "t": "ping" }));
        assert!(ClientFrame::decode(codec, &[&ping[..], &ping[..]].concat()).is_err(), "two frames in one message");
        assert!(ClientFrame::decode(codec, &[&ping[..], b"\xc0"].concat()).is_err(), "bytes behind the frame");
        assert!(ClientFrame::decode(codec, b"").is_err());
    }
    assert!(ClientFrame::decode(Codec::Json, b" \n{\"t\":\"ping\"} \n").is_ok(), "white space is no part of JSON");
}

#[test]
fn a_key_twice_is_refused() {
    for bytes in [&br#"{"t":"ping","t":"bye"}"#[..], br#"{"t":"typing","thread":"dm.a.b","thread":"dm.a.c"}"#] {
        assert_eq!(ClientFrame::decode(Codec::Json, bytes).unwrap_err().refusal.code, Code::BadFrame);
    }
    assert!(ClientFrame::decode(Codec::Msgpack, b"\x82\xa1t\xa4ping\xa1t\xa3bye").is_err());
}

#[test]
fn what_is_no_utf8_is_refused() {
    for (codec, frame) in client_frames() {
        let good = encoded(codec, &frame);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            // In MessagePack 0xff may be a number, or in data; where text is wanted it is not.
            if codec == Codec::Json {
                assert!(ClientFrame::decode(codec, &bytes).is_err());
            } else if let Ok(ClientFrame::Send(send)) = ClientFrame::decode(codec, &bytes) {
                assert!(send.body.text.is_none_or(|t| !t.contains('\u{fffd}')));
            }
        }
    }
    let text = b"\x82\xa1t\xa6typing\xa6thread\xa6dm.a.\xff";
    assert_eq!(ClientFrame::decode(Codec::Msgpack, text).unwrap_err().refusal.code, Code::BadFrame);
}

#[test]
fn an_id_holds_nothing_that_means_something_elsewhere() {
    let long = "x".repeat(65);
    for bad in ["", ".", "a.b.c", "*", ">", "a b", "a\0", "a\n", "ä", "a/b", "$SYS", long.as_str()] {
        for codec in Codec::ALL {
            for thread in [format!("dm.{bad}.b"), format!("dm.a.{bad}"), format!("group.{bad}"), bad.to_owned()] {
                let mut frame = send();
                frame["thread"] = json!(thread);
                let e = decode(codec, &frame).unwrap_err();
                assert!(e.refusal.message.contains("thread"), "{}", e.refusal);
                let e = decode(codec, &json!({ "t": "sync", "r": 1, "cursors": { thread: 1 } })).unwrap_err();
                assert_eq!((e.r, e.refusal.code), (Some(1), Code::BadFrame));
            }
            assert!(decode(codec, &json!({ "t": "hello", "token": "x", "device": bad })).is_err(), "{bad:?}");
        }
    }
    for bad in ["dm.b.a", "room.a", "DM.a.b", "dm.a", "dm.a.b.c"] {
        assert!(decode(Codec::Json, &json!({ "t": "typing", "thread": bad })).is_err());
    }
    for bad in [json!("not-a-uuid"), json!("0190b2f4-0000-4000-8000-000000000000"), json!([1, 2, 3]), json!(7)] {
        let mut frame = send();
        frame["cid"] = bad;
        assert!(decode(Codec::Msgpack, &frame).unwrap_err().refusal.message.contains("cid"));
    }
}

#[test]
fn numbers_keep_their_value_or_are_refused() {
    let sync = |n: &str| format!(r#"{{"t":"sync","r":1,"cursors":{{"dm.a.b":{n}}}}}"#);
    for n in [0, 1, (1 << 53) - 1] {
        let ClientFrame::Sync(SyncQuery { cursors, .. }) =
            ClientFrame::decode(Codec::Json, sync(&n.to_string()).as_bytes()).unwrap()
        else {
            panic!()
        };
        assert_eq!(cursors.values().next().unwrap().0, n);
        let frame = ClientFrame::Sync(SyncQuery { r: 1, cursors });
        assert_eq!(ClientFrame::decode(Codec::Msgpack, &frame.encode(Codec::Msgpack)), Ok(frame));
    }
    for n in [1 << 53, (1 << 53) + 1, u64::MAX] {
        let frame = ClientFrame::Sync(SyncQuery { r: 1, cursors: [("dm.a.b".parse().unwrap(), MsgId(n))].into() });
        for codec in Codec::ALL {
            let bad = ClientFrame::decode(codec, &frame.encode(codec)).unwrap_err();
            assert_eq!((bad.r, bad.refusal.code), (Some(1), Code::BadFrame), "{n}");
        }
    }
    for n in ["-1", "1.0", "1e3", "18446744073709551616", "\"5\"", "null"] {
        assert!(ClientFrame::decode(Codec::Json, sync(n).as_bytes()).is_err(), "{n}");
    }
    // Some encoders write small numbers wide, or positive ones as signed.
    for wide in [&b"\xcf\0\0\0\0\0\0\0\x05"[..], b"\xd3\0\0\0\0\0\0\0\x05", b"\xd0\x05", b"\xcc\x05", b"\x05"] {
        let bytes = [b"\x82\xa1t\xa7threads\xa1r", wide].concat();
        assert!(
            matches!(ClientFrame::decode(Codec::Msgpack, &bytes), Ok(ClientFrame::Threads(ThreadsQuery { r: 5, .. }))),
            "{wide:x?}"
        );
    }
    let e = decode(Codec::Json, &json!({ "t": "threads", "r": 4_294_967_296_u64 })).unwrap_err();
    assert!(e.r.is_none() && e.refusal.message.contains('r'), "{}", e.refusal);
}
