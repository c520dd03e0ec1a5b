//! The files under protocol/fixtures: one per frame, read by the tests of every SDK.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixture {
    pub name: String,
    /// client, server, entry, live, ephemeral, beat or kv.
    pub direction: String,
    pub about: String,
    /// The exact JSON text. Live messages have a binary header of their own; theirs describes it.
    pub json: String,
    /// The exact MessagePack bytes (of a live message: header and frame), in hex.
    pub msgpack: String,
}

impl Fixture {
    pub fn new(direction: &str, name: &str, about: &str, json: &[u8], msgpack: &[u8]) -> Self {
        Self {
            name: name.into(),
            direction: direction.into(),
            about: about.into(),
            json: String::from_utf8(json.to_vec()).unwrap(),
            msgpack: hex(msgpack),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        unhex(&self.msgpack)
    }

    /// Of a frame: its `t`.
    pub fn tag(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.json).unwrap();
        json["t"].as_str().unwrap().into()
    }
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn regenerate() -> bool {
    std::env::var_os("NATTERJACK_REGENERATE").is_some_and(|v| v == "1")
}

pub fn path(direction: &str, name: &str) -> PathBuf {
    root().join("fixtures").join(direction).join(format!("{name}.json"))
}

pub fn read(direction: &str, name: &str) -> Fixture {
    let path = path(direction, name);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; write it with NATTERJACK_REGENERATE=1", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn write(fixture: &Fixture) {
    let path = path(&fixture.direction, &fixture.name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(fixture).unwrap() + "\n").unwrap();
}

/// Names of the files there are: `direction/name`.
pub fn on_disk() -> Vec<String> {
    let mut names = Vec::new();
    for direction in fs::read_dir(root().join("fixtures")).unwrap() {
        let direction = direction.unwrap();
        for file in fs::read_dir(direction.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            names.push(format!("{}/{}", direction.file_name().into_string().unwrap(), name.trim_end_matches(".json")));
        }
    }
    names.sort();
    names
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}
