//! The rooms of the crate: which module may name which.

use std::{fs, path::Path};

/// The rooms from left to right; what lies in none of them are leaves.
const ROOMS: [&str; 3] = ["log", "client", "internal"];

/// Every module of the crate with its room's place: 0 for a leaf.
fn modules() -> Vec<(String, usize, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&src).unwrap().display().to_string();
            let room = ROOMS.iter().position(|r| name == format!("{r}.rs") || name.starts_with(&format!("{r}/")));
            found.push((name, room.map_or(0, |r| r + 1), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn a_room_imports_only_what_stands_left_of_it() {
    let modules = modules();
    for room in 0..=ROOMS.len() {
        assert!(modules.iter().any(|(_, r, _)| *r == room), "no module in room {room}");
    }
    for (name, room, text) in modules.iter().filter(|(name, ..)| name != "lib.rs") {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: String = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for later in &ROOMS[*room..] {
            assert!(!imports(&code, later), "{name} imports `{later}`, which stands right of it");
        }
    }
}

/// `crate::log::…`, or `log::…` inside of `use crate::{…}`.
fn imports(code: &str, room: &str) -> bool {
    let path = format!("{room}::");
    code.match_indices(&path).any(|(at, _)| code[..at].ends_with("crate::") || code[..at].ends_with(['{', ' ']))
}

#[test]
fn an_import_is_found() {
    for code in [
        "use crate::client::close;",
        "use crate::{\n    cid::Cid,\n    client::event::Event,\n};",
        "crate::{client::http}",
    ] {
        assert!(imports(code, "client"), "{code}");
    }
    assert!(!imports("use crate::{my_client::x, cid::Cid};", "client"));
}
