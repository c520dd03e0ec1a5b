//! The sources of this repository as text, for tests that read rules off them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of ours as a path from the root, sorted.
pub fn files() -> Vec<String> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                let ours =
                    !name.starts_with('.') && !["target", "data", "web", "node_modules"].contains(&name.as_str());
                folders.extend(ours.then_some(path));
            } else {
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Every Rust source of ours as (path from the root, text).
pub fn sources() -> Vec<(String, String)> {
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    let found: Vec<_> = files().into_iter().filter(|path| path.ends_with(".rs")).map(read).collect();
    assert!(found.len() > 30, "the walk over the tree finds the sources");
    found
}

/// The sources that are compiled into a release, without the unit tests at the end of a file.
pub fn shipped() -> Vec<(String, String)> {
    let all = sources();
    let only_tests: Vec<String> = all.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let ships = |path: &str| {
        let in_tests = path.starts_with("tests/") || path.starts_with("testkit/") || path.contains("/tests/");
        !in_tests && !only_tests.iter().any(|m| path == format!("{m}.rs") || path.starts_with(&format!("{m}/")))
    };
    let cut = |text: &str| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    all.iter().filter(|(path, _)| ships(path)).map(|(path, text)| (path.clone(), cut(text))).collect()
}

/// Modules declared under `#[cfg(test)]`, as paths without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap();
    let folder = match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder.to_owned(),
        _ => stem.to_owned(),
    };
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let line = rest.trim_start().lines().next()?;
        line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.map(|name| format!("{folder}/{name}")).collect()
}

/// Lines without comments, numbered from 1.
pub fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// The identifiers of a text, in order.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty())
}

/// `pub` and `pub(crate)` types of what ships, with the files that declare them.
pub fn types() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in shipped() {
        for (_, line) in code(&text) {
            let line = line.trim_start();
            let Some(item) = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")) else { continue };
            let Some((kind, rest)) = item.split_once(' ') else { continue };
            if ["struct", "enum", "trait", "type", "union"].contains(&kind)
                && let Some(name) = words(rest).next()
            {
                found.entry(name.to_owned()).or_default().insert(path.clone());
            }
        }
    }
    found
}

pub fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// What is found today and not wanted may be listed; the list may only become shorter.
pub fn only_listed(what: &str, found: &BTreeSet<String>, listed: &[&str]) {
    let listed: BTreeSet<String> = listed.iter().map(|s| (*s).to_owned()).collect();
    none(what, found.difference(&listed).cloned().collect());
    none("listed and no longer true: take it off the list", listed.difference(found).cloned().collect());
}
