//! Every metric is a constant beside its description, in the crate that counts; docs/metrics.md has each, and nothing
//! else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::tree::{code, none, root, shipped};

/// One crate's `metrics.rs`.
#[derive(Debug, Default)]
struct Declared {
    /// By constant: the name.
    names: BTreeMap<String, String>,
    /// By constant: kind and meaning.
    described: BTreeMap<String, (String, String)>,
}

fn declared(text: &str) -> Declared {
    let mut all = Declared::default();
    for (_, line) in code(text) {
        if let Some((name, value)) =
            line.trim_start().strip_prefix("pub const ").and_then(|l| l.split_once(": &str = \""))
        {
            all.names.insert(name.to_owned(), value.trim_end_matches("\";").to_owned());
        }
    }
    for call in text.split("    describe_").skip(1) {
        let (kind, rest) = call.split_once("!(").unwrap();
        let (name, rest) = rest.split_once(',').unwrap();
        let (_, meaning) = rest.split_once('"').unwrap();
        // A long one goes on in the next line, behind `\`.
        let meaning = meaning.split_once("\"\n").or_else(|| meaning.split_once("\");")).unwrap().0;
        let meaning = meaning.split("\\\n").map(str::trim_start).collect::<String>();
        all.described.insert(name.trim().to_owned(), (kind.to_owned(), meaning));
    }
    all
}

fn of_each_crate() -> BTreeMap<String, Declared> {
    let homes =
        shipped().into_iter().filter_map(|(path, text)| Some((path.strip_suffix("/src/metrics.rs")?.to_owned(), text)));
    let all: BTreeMap<_, _> = homes.map(|(name, text)| (name, declared(&text))).collect();
    assert!(all.len() >= 4 && all.values().all(|d| !d.names.is_empty()), "every crate that counts is found: {all:?}");
    all
}

#[test]
fn each_constant_is_described_and_counted() {
    let mut found = Vec::new();
    let sources = shipped();
    for (name, declared) in of_each_crate() {
        let uses = |constant: &str| {
            let path = format!("metrics::{constant}");
            let home = format!("{name}/src/metrics.rs");
            let calls = |text: &str| {
                text.split(&path).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            };
            // In its home: by name and description, and once more where a handle is made of it.
            let handles = |text: &str| text.matches(&format!("({constant})")).count() > 0;
            sources
                .iter()
                .any(|(p, text)| p.starts_with(&format!("{name}/")) && (calls(text) || (*p == home && handles(text))))
        };
        for constant in declared.names.keys() {
            if !declared.described.contains_key(constant) {
                found.push(format!("{name}: {constant} is not described"));
            }
            if !uses(constant) {
                found.push(format!("{name}: {constant} is counted nowhere"));
            }
        }
        found.extend(
            declared
                .described
                .keys()
                .filter(|c| !declared.names.contains_key(*c))
                .map(|c| format!("{name}: {c} is no constant")),
        );
    }
    none("metrics", found);
}

#[test]
fn no_metric_is_named_elsewhere() {
    let mut found = Vec::new();
    for (path, text) in shipped().into_iter().filter(|(path, _)| !path.ends_with("/src/metrics.rs")) {
        for (n, line) in code(&text) {
            let counts = ["counter!(\"", "gauge!(\"", "histogram!(\""].iter().any(|m| line.contains(m));
            let names = line.contains("\"natterjack_")
                && ["_total\"", "_seconds\"", "_bytes\""].iter().any(|end| line.contains(end));
            if counts || names {
                found.push(format!("{path}:{n}: {}", line.trim()));
            }
        }
    }
    none("names of metrics outside metrics.rs", found);
}

/// `NATTERJACK_REGENERATE=1` writes the page anew.
#[test]
fn the_page_of_metrics_has_each_and_no_other() {
    let titles = BTreeMap::from([
        ("runtime", "Every process"),
        ("nats", "NATS and the log, in every role"),
        ("role", "Every role that reads the log"),
        ("edge", "Edge"),
        ("channel", "Channel"),
        ("persister", "Persister: archive, history, directory"),
        ("presence", "Presence"),
    ]);
    let mut page = "# Metrics\n\nEvery metric of `/metrics` on `admin.listen`, by the crate that counts it. \"By x\" \
                    names a label. \
                    What to alarm on, and what to do then, is in [operations.md](operations.md).\n\n\
                    This page is made of the constants and descriptions in each crate's `metrics.rs`; a test compares \
                    the two.\n"
        .to_owned();
    let all = of_each_crate();
    let order = titles.keys().copied().filter(|t| all.contains_key(*t));
    assert_eq!(order.clone().count(), all.len(), "each crate that counts has a title here: {:?}", all.keys());
    let mut order: Vec<_> = order.collect();
    order.sort_by_key(|name| {
        ["runtime", "role", "nats", "edge", "channel", "persister", "presence"].iter().position(|n| n == name)
    });
    for name in order {
        page += &format!("\n## {}\n\n| metric | kind | what it says |\n|---|---|---|\n", titles[name]);
        let declared = &all[name];
        for (constant, metric) in &declared.names {
            let (kind, meaning) = declared.described.get(constant).cloned().unwrap_or_default();
            page += &format!("| `{metric}` | {kind} | {meaning} |\n");
        }
    }
    let path = root().join("docs/metrics.md");
    if std::env::var_os("NATTERJACK_REGENERATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == page,
        "docs/metrics.md is out of date: run this with NATTERJACK_REGENERATE=1"
    );
}

#[test]
fn documents_name_metrics_that_exist() {
    let all: BTreeSet<String> = shipped()
        .iter()
        .flat_map(|(_, text)| text.split('"').filter(|s| s.starts_with("natterjack_")))
        .map(str::to_owned)
        .collect();
    let mut found = Vec::new();
    for page in ["operations.md", "guarantees.md", "robustness.md", "performance.md"] {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
        // In a log filter it is the name of a crate.
        let is_crate = |w: &str| root().join(w.trim_start_matches("natterjack_")).is_dir();
        let named = crate::tree::words(&text).filter(|w| w.starts_with("natterjack_") && !is_crate(w));
        found.extend(named.filter(|w| !all.contains(*w)).map(|w| format!("{page}: {w}")));
    }
    none("metrics that nothing counts", found);
}
