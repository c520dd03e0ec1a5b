//! What documents and file headers name is there.

use std::{collections::BTreeSet, fs};

use crate::tree::{code, files, none, root, shipped, sources, types, words};

/// Our own documents, without the two that are records of their time.
fn documents() -> Vec<(String, String)> {
    let ours = |path: &String| path.ends_with(".md") && path != "CHANGELOG.md" && !path.starts_with("docs/adr/");
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    files().into_iter().filter(ours).map(read).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Paths as they are written: `a/{b,c}.rs` are two. Others are commands, values and patterns.
fn paths(quoted: &str) -> Vec<String> {
    let known = [".rs", ".md", ".toml", ".sh", ".json", ".conf", ".yml"];
    if quoted.contains([' ', '<', '*', ':', '=', '$', '~']) || !known.iter().any(|end| quoted.ends_with(end)) {
        return Vec::new();
    }
    match (quoted.split_once('{'), quoted.split_once('}')) {
        (Some((before, _)), Some((_, after))) => {
            let inner = &quoted[before.len() + 1..quoted.len() - after.len() - 1];
            inner.split(',').map(|one| format!("{before}{one}{after}")).collect()
        }
        _ => vec![quoted.to_owned()],
    }
}

/// A path may be written from the root, or by its end (`send.rs` behind `edge/src/session.rs`).
fn there(all: &[String], path: &str) -> bool {
    let path = path.trim_start_matches("./").trim_start_matches("../");
    let end = format!("/{path}");
    all.iter().any(|p| p == path || p.ends_with(&end))
}

/// Files that are made or given elsewhere.
const NOT_OURS: [&str; 4] = ["natterjack.toml", "manifest.json", "authorization.conf", "natterjack.v1.json"];
/// Words in headers that name nothing of ours: a key of nats-server's, two user names that look alike.
const NO_NAMES: [&str; 3] = ["allow_responses", "arno", "amo"];

#[test]
fn paths_in_documents_and_headers_are_there() {
    let all = files();
    let mut found = Vec::new();
    for (path, text) in documents() {
        let named = quoted(&text).flat_map(paths).filter(|p| !NOT_OURS.contains(&p.as_str()) && !p.starts_with('/'));
        found.extend(named.filter(|p| !there(&all, p)).map(|p| format!("{path}: {p}")));
    }
    for (path, text) in sources() {
        let header: String = header(&text);
        let named = quoted(&header).flat_map(paths).filter(|p| !NOT_OURS.contains(&p.as_str()) && !p.starts_with('/'));
        found.extend(named.filter(|p| !there(&all, p)).map(|p| format!("{path}: {p}")));
    }
    none("paths that are not there", found);
}

/// Whoever asks is there in one step: each row of the table has a path from the root, and the file is there.
#[test]
fn each_question_leads_to_a_file() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("## Where is …?").expect("the section is there");
    let rows: Vec<&str> =
        section.split("\n## ").next().unwrap_or_default().lines().filter(|l| l.contains("? |")).collect();
    assert!(rows.len() >= 12, "{} questions", rows.len());
    let mut found = Vec::new();
    for row in rows {
        let named: Vec<String> = quoted(row).flat_map(paths).collect();
        if named.is_empty() {
            found.push(format!("no file: {row}"));
        }
        found.extend(named.into_iter().filter(|p| !root().join(p).is_file()).map(|p| format!("{p}: {row}")));
    }
    none("questions that do not lead to a file", found);
}

fn header(text: &str) -> String {
    text.lines()
        .take_while(|l| l.starts_with("//!"))
        .map(|l| l.trim_start_matches("//!"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A module that was renamed is still named in the headers of its neighbours, unless somebody looks.
#[test]
fn headers_name_what_their_crate_has() {
    let sources = shipped();
    let mut found = Vec::new();
    let folder = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let mut of_crate: std::collections::BTreeMap<String, BTreeSet<String>> = Default::default();
    for (path, text) in &sources {
        let have = of_crate.entry(folder(path)).or_default();
        have.extend(code(text).flat_map(|(_, l)| words(l)).map(str::to_owned));
        have.extend(words(path).map(str::to_owned));
    }
    // A header may name another crate, or a module of it.
    let modules: BTreeSet<String> =
        files().iter().flat_map(|p| words(p).map(str::to_owned).collect::<Vec<_>>()).collect();
    for (path, text) in &sources {
        let header = header(text);
        let identifiers = quoted(&header)
            .filter(|q| q.len() > 2 && q.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == ':'));
        for name in identifiers.flat_map(|q| q.split("::")).filter(|n| !n.is_empty()) {
            if !of_crate[&folder(path)].contains(name) && !modules.contains(name) && !NO_NAMES.contains(&name) {
                found.push(format!("{path}: `{name}`"));
            }
        }
        let missing = steps(&header).into_iter().filter(|n| *n > STEPS);
        found.extend(missing.map(|n| format!("{path}: there is no step {n}")));
    }
    none("headers that name what is not there", found);
}

/// A message's life in ARCHITECTURE.md.
const STEPS: u32 = 7;

/// The steps that a header names: `step 4`, `Steps 2, 5 and 6`.
fn steps(header: &str) -> Vec<u32> {
    let header = header.to_lowercase();
    let after = header.split("step").skip(1).map(|rest| rest.strip_prefix('s').unwrap_or(rest));
    let named = after.flat_map(|rest| {
        let listed = |word: &&str| *word == "and" || word.starts_with(|c: char| c.is_ascii_digit());
        rest.split_whitespace().take_while(listed)
    });
    named.filter_map(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

#[test]
fn every_step_that_a_header_names_is_found() {
    assert_eq!(steps("Step 5, the loop. Steps 2, 5 and 6 (step 9): the first step, stepwise."), [5, 2, 5, 6, 9]);
}

#[test]
fn nothing_refers_to_a_paper_that_is_not_here() {
    let mut found = Vec::new();
    for path in files()
        .into_iter()
        .filter(|p| [".rs", ".toml", ".md", ".sh"].iter().any(|e| p.ends_with(e)) && p != "CHANGELOG.md")
    {
        // This file names what it looks for.
        if path.ends_with("invariants/documents.rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let refers = |l: &str| l.contains("DESIGN") || l.contains("of the design") || l.contains("design paper");
        found.extend(
            text.lines().enumerate().filter(|(_, l)| refers(l)).map(|(n, l)| format!("{path}:{}: {}", n + 1, l.trim())),
        );
    }
    none("references to a design paper", found);
}

/// docs/glossary.md says of each word which type it is: `| **word** | `Type` in `crate` | meaning |`.
#[test]
fn each_word_of_the_glossary_is_a_type() {
    let text = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let types = types();
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| **")).collect();
    assert!(rows.len() >= 25, "{} words", rows.len());
    let mut found = Vec::new();
    for row in rows {
        let cell = row.split('|').nth(2).unwrap_or_default();
        let [name, home] = quoted(cell).collect::<Vec<_>>()[..] else {
            found.push(format!("not as `Type` in `crate`: {row}"));
            continue;
        };
        let sources = format!("{home}/src/");
        if !types.get(name).is_some_and(|files| files.iter().any(|f| f.starts_with(&sources))) {
            found.push(format!("{home} declares no {name}"));
        }
    }
    none("words of the glossary without their type", found);
}
