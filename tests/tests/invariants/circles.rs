//! Rooms of a crate (its modules at the top) use each other in one direction.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{only_listed, shipped, words};

/// Circles that stand. The list may only become shorter.
const KNOWN: &[&str] = &[];

#[test]
fn rooms_use_each_other_in_one_direction() {
    let found = circles().into_iter().collect();
    only_listed("rooms that use each other in a circle (move what they share down)", &found, KNOWN);
}

/// Rooms that can reach each other, as `crate: a, b, c`.
pub fn circles() -> Vec<String> {
    let mut all = Vec::new();
    for (name, uses) in rooms() {
        let reach: BTreeMap<&String, BTreeSet<&String>> =
            uses.keys().map(|from| (from, reachable(&uses, from))).collect();
        let mut seen = BTreeSet::new();
        for room in uses.keys() {
            let circle: BTreeSet<&String> = reach[room].iter().copied().filter(|to| reach[to].contains(room)).collect();
            if circle.len() > 1 && seen.insert(circle.clone()) {
                let names: Vec<&str> = circle.into_iter().map(String::as_str).collect();
                all.push(format!("{name}: {}", names.join(", ")));
            }
        }
    }
    all
}

type Uses = BTreeMap<String, BTreeSet<String>>;

fn reachable<'a>(uses: &'a Uses, from: &str) -> BTreeSet<&'a String> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(room) = next.pop() {
        for to in uses.get(&room).into_iter().flatten() {
            if let Some((to, _)) = uses.get_key_value(to)
                && found.insert(to)
            {
                next.push(to.clone());
            }
        }
    }
    found
}

/// By crate: which room uses which.
fn rooms() -> BTreeMap<String, Uses> {
    let mut all: BTreeMap<String, Uses> = BTreeMap::new();
    let sources = shipped();
    // What a crate's root shows under another name than its room's.
    let mut shown: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, text) in &sources {
        let Some((name, module)) = module(path) else { continue };
        let uses = all.entry(name.clone()).or_default();
        match module.first() {
            Some(room) => {
                uses.entry(room.clone()).or_default();
            }
            None => {
                for used in used_paths(text, &[]).into_iter().filter(|p| p.len() > 1) {
                    shown.entry(name.clone()).or_default().insert(used[used.len() - 1].clone(), used[0].clone());
                }
            }
        }
    }
    for (path, text) in &sources {
        let Some((name, module)) = module(path) else { continue };
        let Some(room) = module.first() else { continue };
        let uses = all.get_mut(&name).expect("made above");
        for used in used_paths(text, &module) {
            let first = &used[0];
            let target =
                if uses.contains_key(first) { Some(first) } else { shown.get(&name).and_then(|s| s.get(first)) };
            if let Some(target) = target.filter(|t| *t != room).cloned() {
                uses.entry(room.clone()).or_default().insert(target);
            }
        }
    }
    all
}

/// `edge/src/live/topic.rs`: the crate and `[live, topic]`.
fn module(path: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = path.split_once("/src/")?;
    let parts: Vec<String> = rest.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let root = parts.len() == 1 && ["lib", "main"].contains(&parts[0].as_str());
    Some((name.to_owned(), if root { Vec::new() } else { parts }))
}

/// Paths inside of the crate that a file's `use` items name, from the crate's root, and those that its code spells with
/// `crate::`.
fn used_paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for item in code.split("use ").skip(1) {
        if let Some((tree, _)) = item.split_once(';') {
            expand(&[], tree.trim(), &mut found);
        }
    }
    for path in code.split("crate::").skip(1) {
        // A group is one of a `use` item.
        let spelt = (!path.starts_with('{')).then(|| words(path).next()).flatten();
        found.extend(spelt.map(|first| vec!["crate".to_owned(), first.to_owned()]));
    }
    found.into_iter().filter_map(|path| from_root(&path, module)).collect()
}

fn from_root(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|p| *p == "super").count();
    let absolute: Vec<String> = match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => [module, &path[1..]].concat(),
        Some("super") => [module.get(..module.len().checked_sub(supers)?)?, &path[supers..]].concat(),
        // A child, of the root at least.
        Some(_) if module.is_empty() => path.to_vec(),
        _ => return None,
    };
    (!absolute.is_empty()).then_some(absolute)
}

/// `a::{b, c::{d}}` as its paths.
fn expand(before: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let parts = path.split("::").map(|p| p.trim().to_owned()).filter(|p| !p.is_empty());
        found.push(before.iter().cloned().chain(parts).collect());
        return;
    };
    let parts = head.split("::").map(|p| p.trim().to_owned()).filter(|p| !p.is_empty());
    let before: Vec<String> = before.iter().cloned().chain(parts).collect();
    let (mut depth, mut start) = (0, 0);
    let inner = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, inner[start..i].trim(), found);
                start = i + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&before, inner[start..].trim(), found);
    }
}

#[test]
fn a_use_item_is_read_as_its_paths() {
    let module = ["live".to_owned(), "topic".to_owned()];
    let text = "use std::fmt;\nuse super::{hub::Hub, model};\nuse super::super::auth;\npub use \
                crate::{a::B as C, d::{e, f::G}};\nfn x() { crate::h::i() }\n";
    let shown: Vec<String> = used_paths(text, &module).into_iter().map(|p| p.join("::")).collect();
    assert_eq!(shown, ["live::hub::Hub", "live::model", "auth", "a::B", "d::e", "d::f::G", "h"]);
}
