//! A file fits into a head and a line into a window: 350 lines, 120 columns.

use crate::tree::{none, sources};

/// Lines of a file. Above it a file mostly has two reasons to change.
pub const LINES: usize = 350;
/// Columns of a line, of a comment and a string as well: rustfmt leaves those as they are.
const COLUMNS: usize = 120;

/// What a peer or an attribute takes as one literal, whole: a request, an answer, a pattern.
const ONE_LITERAL: [&str; 6] = [
    "edge/src/server/head.rs",
    "edge/src/server/upgrade.rs",
    "edge/tests/real/",
    "nats/src/wire/login.rs",
    "nats/src/wire/raw/parser.rs",
    "protocol/src/log/body.rs",
];

#[test]
fn files_stay_below_350_lines() {
    let found = large().into_iter().map(|(n, path)| format!("{path}: {n}"));
    none("files over 350 lines (split them by reason to change)", found.collect());
}

#[test]
fn lines_fit_into_120_columns() {
    let held = long().into_iter().filter(|(path, _)| !ONE_LITERAL.iter().any(|p| path.starts_with(p)));
    none("lines over 120 columns", held.map(|(path, n)| format!("{path}:{n}")).collect());
}

/// Files over [`LINES`], the largest first.
pub fn large() -> Vec<(usize, String)> {
    let counted = sources().into_iter().map(|(path, text)| (text.lines().count(), path));
    let mut found: Vec<_> = counted.filter(|(n, _)| *n > LINES).collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Lines over [`COLUMNS`], by file and number.
pub fn long() -> Vec<(String, usize)> {
    let numbers = |text: String| {
        let too_long = |(_, line): &(usize, &str)| line.chars().count() > COLUMNS;
        text.lines().enumerate().filter(too_long).map(|(i, _)| i + 1).collect::<Vec<_>>()
    };
    let all = sources().into_iter().map(|(path, text)| (path, numbers(text)));
    all.flat_map(|(path, numbers)| numbers.into_iter().map(move |n| (path.clone(), n))).collect()
}
