//! The form of frames, at its edges: each rule with an input that keeps it and one that does not, in both codecs.

use natterjack_protocol::{
    Code,
    client::frame::ClientFrame,
    codec::{
        Codec,
        form::{Form, MAX_LEVELS},
    },
};

/// A ping with one more field, unknown to everybody, of these bytes.
fn ping(codec: Codec, value: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Json => [br#"{"t":"ping","later":"#, value, b"}"].concat(),
        Codec::Msgpack => [b"\x82\xa1t\xa4ping\xa5later", value].concat(),
    }
}

fn taken(codec: Codec, bytes: &[u8]) -> bool {
    ClientFrame::decode(codec, bytes).is_ok()
}

#[test]
fn what_an_unknown_field_may_hold() {
    let json = [
        "null",
        "true",
        "[]",
        "{}",
        " { \"a\" : [ 1 , -1 ] } ",
        "0",
        "-0",
        "1.5",
        "1e300",
        "-1E-7",
        "9007199254740991",
        "-9007199254740991",
        "90071992547409920.0",
        r#""""#,
        r#""\ud83d\udc38""#,
        r#""\u0000""#,
        r#"{"a":1,"A":2}"#,
        r#"{"":1}"#,
        "\"🐸\"",
    ];
    for value in json {
        assert!(taken(Codec::Json, &ping(Codec::Json, value.as_bytes())), "{value}");
    }
    let msgpack: [&[u8]; 14] = [
        b"\xc0",
        b"\xc2",
        b"\x90",
        b"\x80",
        b"\xca\x3f\x80\0\0",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xcf\0\x1f\xff\xff\xff\xff\xff\xff",
        b"\xd3\xff\xe0\0\0\0\0\0\x01",
        b"\xc4\x02\xff\xfe",
        b"\xd6\xff\0\0\0\x01",
        b"\xc7\x03\x05abc",
        b"\xd9\x01a",
        b"\xdb\0\0\0\x01a",
        b"\xdf\0\0\0\x01\xa1a\xdd\0\0\0\x01\xe0",
    ];
    for value in msgpack {
        assert!(taken(Codec::Msgpack, &ping(Codec::Msgpack, value)), "{value:x?}");
    }
}

#[test]
fn what_even_an_unknown_field_may_not_hold() {
    let json: [&[u8]; 33] = [
        b"",
        b"nul",
        b"tru",
        b"True",
        b"NaN",
        b"Infinity",
        b"01",
        b"-",
        b"-01",
        b"1.",
        b".5",
        b"1e",
        b"1e400",
        b"1e+",
        b"+1",
        b"0x10",
        b"9007199254740992",
        b"-9007199254740992",
        b"18446744073709551616",
        b"'a'",
        br#""\x""#,
        br#""\ud83d""#,
        br#""\ud83dx""#,
        br#""\udc38""#,
        br#""\ud83d\ud83d\udc38""#,
        b"\"\x01\"",
        b"\"\n\"",
        b"\"\xff\"",
        br#"{"a":1,"a":1}"#,
        br#"{"a":1,"\u0061":2}"#,
        b"{1:2}",
        b"[1,]",
        br#"{"a":1,}"#,
    ];
    for value in json {
        assert!(!taken(Codec::Json, &ping(Codec::Json, value)), "{:?}", String::from_utf8_lossy(value));
    }
    let msgpack: [&[u8]; 15] = [
        b"",
        b"\xc1",
        b"\xa1\xff",
        b"\xa2\xc3",
        b"\xd9",
        b"\x81\x01\x02",
        b"\x81\xc4\x01a\x02",
        b"\x81\xc0\x01",
        b"\x81\xa1\xff\x01",
        b"\x82\xa1a\x01\xa1a\x01",
        b"\x82\xa1a\x01\xd9\x01a\x01",
        b"\xcf\0\x20\0\0\0\0\0\0",
        b"\xd3\xff\xe0\0\0\0\0\0\0",
        b"\xd3\x80\0\0\0\0\0\0\0",
        b"\x91\x91\xa1\xff",
    ];
    for value in msgpack {
        assert!(!taken(Codec::Msgpack, &ping(Codec::Msgpack, value)), "{value:x?}");
    }
}

#[test]
fn so_many_levels_and_no_more() {
    // The frame itself is the first of them.
    for (levels, good) in [(MAX_LEVELS - 1, true), (MAX_LEVELS, false), (MAX_LEVELS + 1, false), (10_000, false)] {
        let nested = |open: &[u8], close: &[u8], innermost: &[u8]| {
            [open.repeat(levels), innermost.to_vec(), close.repeat(levels)].concat()
        };
        for value in [nested(b"[", b"]", b""), nested(br#"{"a":"#, b"}", b"1")] {
            assert_eq!(taken(Codec::Json, &ping(Codec::Json, &value)), good, "{levels}");
        }
        for value in
            [nested(b"\x91", b"", b"\x01"), nested(b"\x81\xa1a", b"", b"\x01"), nested(b"\xdd\0\0\0\x01", b"", b"\xc0")]
        {
            assert_eq!(taken(Codec::Msgpack, &ping(Codec::Msgpack, &value)), good, "{levels}");
        }
    }
}

#[test]
fn a_key_comes_once_however_many_there_are_and_however_it_is_spelled() {
    for many in [2, 5, 11, 12, 13, 14, 200, 5_000] {
        let keys: Vec<String> = (0..many).map(|i| format!("k{i}")).collect();
        for again in [None, Some(0), Some(many / 2), Some(many - 1)] {
            let all = keys.iter().chain(again.map(|i| &keys[i]));
            let json: Vec<String> = all.clone().map(|k| format!("\"{k}\":1")).collect();
            let json = format!("{{{}}}", json.join(","));
            assert_eq!(taken(Codec::Json, &ping(Codec::Json, json.as_bytes())), again.is_none(), "{many} {again:?}");
            let mut bytes = Vec::new();
            rmp::encode::write_map_len(&mut bytes, all.clone().count() as u32).unwrap();
            for key in all {
                rmp::encode::write_str(&mut bytes, key).unwrap();
                bytes.push(1);
            }
            assert_eq!(taken(Codec::Msgpack, &ping(Codec::Msgpack, &bytes)), again.is_none(), "{many} {again:?}");
        }
    }
}

/// Whoever asked hears that it was refused, wherever `r` stands, unless nobody can tell what it is.
#[test]
fn r_is_found_beside_a_fault() {
    let of = |codec, bytes: &[u8]| ClientFrame::decode(codec, bytes).unwrap_err();
    for (json, r) in [
        (r#"{"body":{"a":1,"a":2},"r":7,"t":"send"}"#, Some(7)),
        (r#"{"r":7,"t":"send","body":{"text":"\ud800"}}"#, Some(7)),
        (r#"{"r":7,"t":"send","body":{"text":9007199254740992}}"#, Some(7)),
        (r#"{"r":7,"t":"send","body":[[}"#, Some(7)),
        (r#"{"r":7,"t":"send","r":8}"#, None),
        (r#"{"r":7,"t":"send","\u0072":7}"#, None),
        (r#"{"body":[[},"r":7"#, None),
        (r#"{"r":null,"t":"threads"}"#, None),
        (r#"{"r":4294967296,"t":"threads"}"#, None),
        (r#"{"r":7.0,"t":"threads"}"#, None),
    ] {
        let bad = of(Codec::Json, json.as_bytes());
        assert_eq!((bad.r, bad.refusal.code), (r, Code::BadFrame), "{json}: {}", bad.refusal);
    }
    let bad = of(Codec::Msgpack, b"\x83\xa4body\x81\xa4text\xa1\xff\xa1r\x07\xa1t\xa4send");
    assert_eq!((bad.r, bad.refusal.code), (Some(7), Code::BadFrame));
    assert!(bad.refusal.message.contains("UTF-8"), "{}", bad.refusal);
}

/// What serde takes and no typed client would say: fields in a row instead of a map, a name as number or map, bytes for
/// text.
#[test]
fn there_is_one_way_to_say_a_thing() {
    let cid = "019f2314-e9e8-715a-9122-334455667788";
    let send = |cid: &str, kind: &str, body: &str| {
        format!(r#"{{"t":"send","r":1,"cid":{cid},"thread":"dm.a.b","kind":{kind},"body":{body}}}"#)
    };
    let quoted = format!("\"{cid}\"");
    assert!(taken(Codec::Json, send(&quoted, "\"text\"", r#"{"text":"x"}"#).as_bytes()));
    for json in [
        send(&quoted, "\"text\"", r#"["x"]"#),
        send(&quoted, "\"text\"", "[]"),
        send(&quoted, r#"{"text":null}"#, "{}"),
        send(&quoted, "0", "{}"),
        send(&quoted, "\"image\"", r#"{"media":["https://a.example","image/png"]}"#),
        send(&quoted, "\"text\"", r#"{"text":null}"#),
        send(&quoted, "\"text\"", r#"{"text":"x","reply_to":null}"#),
        send(&quoted, "\"text\"", r#"{"text":"x","reply_to":1.0}"#),
        send(&quoted, "\"text\"", r#"{"text":"x","remove":0}"#),
        send(&quoted, "\"custom\"", r#"{"data":[1,2]}"#),
        send(&quoted, "\"custom\"", r#"{"data":"AA="}"#),
        send(&quoted, "\"custom\"", r#"{"data":"AA"}"#),
        send(&quoted, "\"custom\"", r#"{"data":"_-8="}"#),
        send(&format!("\"{}\"", cid.to_uppercase()), "\"text\"", "{}"),
        send(&format!("\"{}\"", cid.replace('-', "")), "\"text\"", "{}"),
        send(&format!("\"{{{cid}}}\""), "\"text\"", "{}"),
        send(&format!("\"urn:uuid:{cid}\""), "\"text\"", "{}"),
        r#"{"t":"hello","token":"x","device":"d","class":{"phone":null}}"#.into(),
        r#"{"t":"hello","token":"x","device":"d","synced":null}"#.into(),
        r#"{"t":"hello","token":"x","device":"d","cursors":[["dm.a.b",1]]}"#.into(),
        r#"{"t":"history","r":1,"thread":"dm.a.b","limit":null}"#.into(),
        r#"{"t":"threads","r":1,"before":1e3}"#.into(),
    ] {
        assert!(!taken(Codec::Json, json.as_bytes()), "{json}");
    }
    let frame = |cid: &[u8], kind: &[u8], body: &[u8]| {
        [b"\x86\xa1t\xa4send\xa1r\x01\xa3cid", cid, b"\xa6thread\xa6dm.a.b\xa4kind", kind, b"\xa4body", body].concat()
    };
    let good = b"\xc4\x10\x01\x9f\x23\x14\xe9\xe8\x71\x5a\x91\x22\x33\x44\x55\x66\x77\x88";
    assert!(taken(Codec::Msgpack, &frame(good, b"\xa4text", b"\x81\xa4text\xa1x")));
    let spelled = [b"\xd9\x24", cid.as_bytes()].concat();
    for bytes in [
        frame(&spelled, b"\xa4text", b"\x81\xa4text\xa1x"),
        frame(&good[..17], b"\xa4text", b"\x81\xa4text\xa1x"),
        frame(good, b"\x00", b"\x81\xa4text\xa1x"),
        frame(good, b"\xc4\x04text", b"\x81\xa4text\xa1x"),
        frame(good, b"\x81\xa4text\xc0", b"\x81\xa4text\xa1x"),
        frame(good, b"\xa4text", b"\x91\xa1x"),
        frame(good, b"\xa4text", b"\x81\xa4text\xc4\x01x"),
        frame(good, b"\xa4text", b"\x81\xa4text\xc0"),
        frame(good, b"\xa6custom", b"\x81\xa4data\xa4AAEC"),
        frame(good, b"\xa6custom", b"\x81\xa4data\x92\x01\x02"),
        frame(good, b"\xa4text", b"\x82\xa4text\xa1x\xa8reply_to\xcb\x3f\xf0\0\0\0\0\0\0"),
        b"\x83\xa1t\xa5hello\xa5token\xc4\x01x\xa6device\xa1d".to_vec(),
    ] {
        assert!(!taken(Codec::Msgpack, &bytes), "{bytes:x?}");
    }
}

#[test]
fn one_map_and_nothing_else() {
    for (codec, bytes) in [
        (Codec::Json, &b""[..]),
        (Codec::Json, b" "),
        (Codec::Json, b"[]"),
        (Codec::Json, b"\"ping\""),
        (Codec::Json, b"\xef\xbb\xbf{\"t\":\"ping\"}"),
        (Codec::Json, b"{\"t\":\"ping\"}{}"),
        (Codec::Json, b"{\"t\":\"ping\"}\0"),
        (Codec::Json, b"{\"t\":\"ping\""),
        (Codec::Msgpack, b""),
        (Codec::Msgpack, b"\x91\xa4ping"),
        (Codec::Msgpack, b"\x81\xa1t\xa4ping\xc0"),
        (Codec::Msgpack, b"\x82\xa1t\xa4ping"),
    ] {
        assert!(Form::of(codec, bytes).fault.is_some(), "{bytes:x?}");
        assert_eq!(ClientFrame::decode(codec, bytes).unwrap_err().refusal.code, Code::BadFrame);
    }
    assert!(taken(Codec::Json, b" \r\n\t{ \"t\" : \"ping\" } \n"));
    assert!(taken(Codec::Json, br#"{"\u0074":"\u0070ing"}"#), "escapes are a matter of spelling");
    assert!(taken(Codec::Msgpack, b"\xdf\0\0\0\x01\xd9\x01t\xda\0\x04ping"), "wide lengths are, too");
}
