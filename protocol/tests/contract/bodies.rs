//! What a body may hold: each limit at its edge, and how the limits fit into each other.

use bytes::Bytes;
use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId,
    client::frame::{ClientFrame, Hello},
    codec::Codec,
    limits,
    log::Media,
};

use super::samples::user;

#[test]
fn bodies_at_their_limits() {
    let media = |m: Media| Body { media: Some(m), ..Body::default() };
    let file = || Media { url: "http://f/".into(), mime: "image/png".into(), ..Media::default() };
    let url = |n| media(Media { url: format!("{:u<n$}", "http://f/"), ..file() });
    let name = |n| media(Media { name: Some("ü".repeat(n)), ..file() });
    let mime = |n| media(Media { mime: format!("{:m<n$}", "m/m"), ..file() });
    let data = |n| Body { data: Some(Bytes::from(vec![0; n])), ..Body::default() };
    // A family of as many as there is room for.
    let emoji = |n| Body {
        emoji: Some(format!("{}{}", "👧\u{200d}".repeat((n - 1) / 2), if n % 2 == 0 { "👧\u{fe0f}" } else { "👧" })),
        ..Body::default()
    };
    let caption = |n| Body { text: Some("ü".repeat(n)), ..url(9) };
    let edit = |n| Body { target: Some(MsgId(1)), ..Body::text("🐸".repeat(n)) };
    type Make<'a> = &'a dyn Fn(usize) -> Body;
    let table: [(&str, Kind, usize, Make<'_>); 11] = [
        ("one byte", Kind::Text, limits::TEXT_CHARS, &|n| Body::text("x".repeat(n))),
        ("two bytes", Kind::Text, limits::TEXT_CHARS, &|n| Body::text("ü".repeat(n))),
        ("four bytes", Kind::Text, limits::TEXT_CHARS, &|n| Body::text("🐸".repeat(n))),
        ("caption", Kind::Image, limits::TEXT_CHARS, &caption),
        ("edit", Kind::Edit, limits::TEXT_CHARS, &edit),
        ("emoji", Kind::Emoji, limits::EMOJI_CHARS, &emoji),
        ("data", Kind::Custom, limits::CUSTOM_BYTES, &data),
        ("url", Kind::Video, limits::MEDIA_URL_BYTES, &url),
        ("media name", Kind::File, limits::MEDIA_NAME_CHARS, &name),
        ("mime", Kind::Audio, limits::MEDIA_MIME_CHARS, &mime),
        ("a body without a limit of its own", Kind::Recall, 1, &|n| Body {
            target: (n == 1).then_some(MsgId(1)),
            ..Body::default()
        }),
    ];
    for (what, kind, max, make) in table {
        assert_eq!(make(max).check(kind), Ok(()), "{what}");
        let e = make(max + 1).check(kind).unwrap_err();
        assert_eq!(e.code, Code::Invalid, "{what}");
        assert!(e.message.contains("body."), "{what}: {e}");
    }
}

/// What passes one by one fits into the log's limit, and that into a frame and a live message.
#[test]
fn the_limits_fit_into_each_other() {
    let largest = Body { reply_to: Some(MsgId::MAX), ..Body::text("🐸".repeat(limits::TEXT_CHARS)) };
    let size = |kind, body| Entry::new(user(&"x".repeat(64)), Cid::mint(1, [0; 10]), kind, body).encode().len();
    assert!(size(Kind::Text, largest) <= limits::BODY_BYTES);
    let opaque = Body { data: Some(Bytes::from(vec![0; limits::CUSTOM_BYTES])), ..Body::default() };
    assert!(size(Kind::Custom, opaque) <= limits::BODY_BYTES);
    let cursors = |i: usize| (format!("dm.{:0>64}.{:x>64}", i, i).parse().unwrap(), MsgId(1 << 52));
    let hello = Hello {
        cursors: (0..limits::CURSORS_PER_HELLO).map(cursors).collect(),
        synced: Some("9".repeat(1_000)),
        ..Hello::new("t".repeat(2_000), user("d"))
    };
    for codec in Codec::ALL {
        let bytes = ClientFrame::Hello(hello.clone()).encode(codec).len();
        assert!(bytes <= limits::FRAME_BYTES, "{codec:?}: {bytes}");
    }
}

#[test]
fn what_a_kind_needs() {
    let needs = [
        (Kind::Text, "text"),
        (Kind::Emoji, "emoji"),
        (Kind::Image, "media"),
        (Kind::Video, "media"),
        (Kind::File, "media"),
        (Kind::Audio, "media"),
        (Kind::Custom, "data"),
        (Kind::Edit, "target"),
        (Kind::Recall, "target"),
        (Kind::Reaction, "target"),
    ];
    for (kind, field) in needs {
        let e = Body::default().check(kind).unwrap_err();
        assert!(e.message.contains(&format!("body.{field}")) && e.message.contains(kind.as_str()), "{e}");
    }
    for kind in [Kind::DmStarted, Kind::Blocked, Kind::GroupCreated, Kind::MemberLeft, Kind::Unknown] {
        assert_eq!(Body::text("x").check(kind).unwrap_err().code, Code::Invalid);
    }
}
