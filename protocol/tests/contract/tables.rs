//! The closed tables are whole: codes, closes, limits.

use std::collections::HashSet;

use natterjack_protocol::{Code, Retry, client::close, limits};

#[test]
fn every_code_is_complete_and_unlike_the_others() {
    let mut names = HashSet::new();
    for code in Code::ALL {
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.name()));
        assert!(names.insert(code.name()));
        assert!((400..600).contains(&code.http_status()));
        assert!(!code.meaning().is_empty() && !code.retry().advice().is_empty());
        // A client's own order is no failure of the server, and the same request is taken later all the same.
        let later = code.http_status() >= 500 || code.http_status() == 429 || code == Code::OutOfOrder;
        assert_eq!(later, code.retry() == Retry::Later, "{code:?}: status and retry tell the same");
        assert_eq!(code.http_status() == 401, code.retry() == Retry::AfterLogin, "{code:?}");
    }
    let source = include_str!("../../src/refusal.rs");
    let at = source.find("pub enum Code {").unwrap();
    let variants = source[at..at + source[at..].find("\n}").unwrap()]
        .lines()
        .filter(|l| l.starts_with("    ") && l.as_bytes()[4].is_ascii_uppercase());
    assert_eq!(variants.count(), Code::ALL.len(), "ALL is all");
}

#[test]
fn the_close_table_is_sound() {
    let codes: HashSet<u16> = close::ALL.iter().map(|c| c.code).collect();
    let reasons: HashSet<&str> = close::ALL.iter().map(|c| c.reason).collect();
    assert_eq!((codes.len(), reasons.len()), (close::ALL.len(), close::ALL.len()));
    for c in close::ALL {
        assert!(
            [1000, 1002, 1007].contains(&c.code) || (4000..5000).contains(&c.code),
            "{c:?}: RFC 6455's own, or the range it leaves to us"
        );
        assert!(c.reason.len() <= 123, "{c:?}: what a close frame can hold");
        assert_eq!(close::back(c.code), c.back);
    }
    assert_eq!(close::back(1006), close::Back::Backoff, "an unknown code is a lost connection");
    let source = include_str!("../../src/client/close.rs");
    assert_eq!(source.matches(": Close =").count(), close::ALL.len(), "ALL is all");
}

#[test]
fn every_limit_is_in_the_table() {
    let source = include_str!("../../src/limits.rs");
    let consts = source
        .lines()
        .filter_map(|l| l.strip_prefix("pub const ")?.split_once(':'))
        .filter(|(n, _)| *n != "TABLE" && *n != "NUMBER_MAX");
    for (name, _) in consts {
        assert!(limits::TABLE.iter().any(|l| l.name == name), "{name}");
    }
    assert!(limits::TABLE.iter().all(|l| l.value > 0 && !l.unit.is_empty() && !l.of.is_empty()));
}
