//! The files: protocol/conformance/README.md says what they mean.

use std::{fs, path::Path};

use natterjack_protocol::codec::Codec;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "for people")]
    about: String,
    cases: Vec<Case>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default, deserialize_with = "codec")]
    pub codec: Option<Codec>,
    pub users: Vec<String>,
    pub steps: Vec<Step>,
}

fn codec<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Codec>, D::Error> {
    match String::deserialize(d)?.as_str() {
        "json" => Ok(Some(Codec::Json)),
        "msgpack" => Ok(Some(Codec::Msgpack)),
        other => Err(serde::de::Error::custom(format!("codec {other}"))),
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Step {
    Open {
        open: String,
    },
    Attach {
        attach: String,
        #[serde(rename = "as")]
        user: String,
    },
    Send {
        send: Value,
        #[serde(default)]
        on: Option<String>,
    },
    Message {
        message: String,
        #[serde(default)]
        on: Option<String>,
    },
    Expect {
        expect: Value,
        #[serde(default)]
        on: Option<String>,
        #[serde(default)]
        next: bool,
    },
    ExpectClose {
        expect_close: u16,
        #[serde(default)]
        on: Option<String>,
    },
    Http(Http),
    For {
        r#for: String,
        values: Vec<Value>,
        steps: Vec<Step>,
    },
    Repeat {
        repeat: usize,
        steps: Vec<Step>,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Method and path.
    pub http: String,
    #[serde(rename = "as")]
    pub user: String,
    #[serde(default)]
    pub body: Option<Value>,
    pub status: u16,
    #[serde(default)]
    pub answer: Option<Value>,
}

pub fn read_all() -> Vec<(String, Vec<Case>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/conformance");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let file: File = serde_json::from_str(&fs::read_to_string(path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.file_stem().unwrap().to_string_lossy().into_owned(), file.cases)
    };
    files.iter().map(read).collect()
}
