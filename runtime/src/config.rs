//! Configuration in four layers: the annotated default file, which is part of the binary, a file, the environment,
//! flags.
//!
//! The default file is the one place that names every key: its comments become `docs/configuration.md`, its types
//! decide how a variable of the environment is read, and a key that it does not have is an error. Every error is
//! reported, not only the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format as _, Toml},
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

mod annotated;

pub use annotated::{ConfigKey, Section, markdown, sections};

/// `NATTERJACK__SECTION__KEY`.
pub const ENV_PREFIX: &str = "NATTERJACK__";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}{}", origin.as_ref().map(|o| format!(" ({o})")).unwrap_or_default())]
pub struct Error {
    pub key: String,
    pub problem: String,
    /// The layer that set the value.
    pub origin: Option<String>,
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.list())]
pub struct Errors(pub Vec<Error>);

impl Errors {
    fn list(&self) -> String {
        let n = self.0.len();
        let head = if n == 1 {
            "the configuration has an error".to_owned()
        } else {
            format!("the configuration has {n} errors")
        };
        self.0.iter().fold(head, |text, e| format!("{text}\n  {e}"))
    }
}

/// Where the layers come from; a test passes its own environment.
#[derive(Debug, Default)]
pub struct Layers {
    /// Must exist if given.
    pub file: Option<PathBuf>,
    /// Name and value of each variable; those without our prefix are ignored.
    pub env: Vec<(String, String)>,
    /// Dotted key and value.
    pub flags: Vec<(String, String)>,
}

/// Hands out values key by key and keeps what was wrong.
pub struct Loader {
    figment: Figment,
    defaults: Figment,
    known: BTreeSet<String>,
    errors: Vec<Error>,
}

impl Loader {
    /// `default_toml` is compiled in; a test shows that it parses.
    pub fn new(default_toml: &str, layers: Layers) -> Self {
        let defaults = Figment::from(Toml::string(default_toml));
        let known: BTreeMap<String, Value> = sections(default_toml)
            .into_iter()
            .flat_map(|s| s.entries.into_iter().map(move |e| format!("{}.{}", s.name, e.key)))
            .filter_map(|key| defaults.find_value(&key).ok().map(|v| (key, v)))
            .collect();
        let mut errors = Vec::new();
        let mut figment = defaults.clone();
        if let Some(path) = &layers.file {
            match std::fs::read_to_string(path) {
                Ok(text) => figment = figment.merge(FromFile { path: path.clone(), text }),
                Err(e) => errors.push(error("--config", format!("cannot read {}: {e}", path.display()))),
            }
        }
        let env = layers.env.into_iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase().replace("__", ".");
            Some((key, value, format!("environment, {name}")))
        });
        let flags = layers.flags.into_iter().map(|(key, value)| (key, value, "command line".to_owned()));
        for (key, text, origin) in env.chain(flags) {
            match known.get(&key).map(|like| typed(&text, like)) {
                Some(Ok(value)) => figment = figment.merge(One { key, value, source: origin }),
                Some(Err(problem)) => errors.push(Error { key, problem, origin: Some(origin) }),
                None => errors.push(Error { key, problem: "no such key".into(), origin: Some(origin) }),
            }
        }
        let mut loader = Self { figment, defaults, known: known.into_keys().collect(), errors };
        loader.refuse_unknown();
        loader
    }

    fn refuse_unknown(&mut self) {
        let data = match self.figment.data() {
            Ok(data) => data,
            // A file that is not TOML: one error with its line; the other layers are still judged.
            Err(e) => {
                self.errors.extend(e.into_iter().map(|e| from_figment("the file", &e)));
                self.figment = self.defaults.clone();
                return;
            }
        };
        for (section, value) in data.values().flatten() {
            let Some(dict) = value.as_dict() else {
                self.errors.push(error(section, "no such section".into()));
                continue;
            };
            for key in self.unknown(section, dict) {
                let origin = self.origin(&key);
                self.errors.push(Error { key, problem: "no such key".into(), origin });
            }
        }
    }

    /// A section may have sections of its own: `[edge.tls]`.
    fn unknown(&self, section: &str, dict: &Dict) -> Vec<String> {
        let keys = dict.iter().map(|(k, value)| (format!("{section}.{k}"), value));
        keys.filter(|(key, _)| !self.known.contains(key))
            .flat_map(|(key, value)| {
                value.as_dict().map_or_else(|| vec![key.clone()], |inner| self.unknown(&key, inner))
            })
            .collect()
    }

    fn origin(&self, key: &str) -> Option<String> {
        let meta = self.figment.find_metadata(key)?;
        Some(meta.source.as_ref().map_or_else(|| meta.name.to_string(), |s| format!("{} {s}", meta.name)))
    }

    /// The value of a key. If it is wrong, the error is kept and the default is given, so that the rest can be judged
    /// too.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> T {
        match self.figment.extract_inner(key) {
            Ok(value) => value,
            Err(e) => {
                let origin = self.origin(key);
                self.errors.extend(e.into_iter().map(|e| Error { origin: origin.clone(), ..from_figment(key, &e) }));
                self.defaults
                    .extract_inner(key)
                    .expect("the default file has a good value for every key; a test reads them all")
            }
        }
    }

    /// A value that must also satisfy `check`, which says what is wrong.
    pub fn checked<T, U>(&mut self, key: &str, check: impl Fn(T) -> Result<U, String>) -> U
    where
        T: DeserializeOwned,
    {
        let value = self.get(key);
        check(value).unwrap_or_else(|problem| {
            self.refuse(key, problem);
            let default = self.defaults.extract_inner(key).expect("as in `get`");
            check(default).unwrap_or_else(|e| unreachable!("the default of {key} does not pass its own check: {e}"))
        })
    }

    /// Reports what only shows when several keys are seen together.
    pub fn refuse(&mut self, key: &str, problem: impl Into<String>) {
        let origin = self.origin(key);
        self.errors.push(Error { key: key.into(), problem: problem.into(), origin });
    }

    /// `value`, or everything that was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Errors> {
        if self.errors.is_empty() { Ok(value) } else { Err(Errors(self.errors)) }
    }
}

fn error(key: &str, problem: String) -> Error {
    Error { key: key.into(), problem, origin: None }
}

fn from_figment(key: &str, e: &figment::Error) -> Error {
    error(key, e.kind.to_string())
}

/// Text from the environment or a flag, read as the type that the default has. Lists are separated by commas.
fn typed(text: &str, like: &Value) -> Result<Value, String> {
    let text = text.trim();
    match like {
        Value::String(..) => Ok(Value::from(text)),
        Value::Bool(..) => {
            text.parse::<bool>().map(Value::from).map_err(|_| format!("{text:?} is neither true nor false"))
        }
        Value::Num(_, n) if n.to_f64().is_some() => {
            text.parse::<f64>().map(Value::from).map_err(|_| format!("{text:?} is not a number"))
        }
        Value::Num(..) => text.parse::<i64>().map(Value::from).map_err(|_| format!("{text:?} is not a whole number")),
        Value::Array(..) => Ok(Value::from(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect::<Vec<_>>(),
        )),
        _ => Err("this key can only be set in a file".into()),
    }
}

struct FromFile {
    path: PathBuf,
    text: String,
}

impl Provider for FromFile {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("file {}", shown(&self.path)))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(&self.text).data()
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

struct One {
    key: String,
    value: Value,
    source: String,
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        let dict = nested
            .into_dict()
            .ok_or_else(|| figment::Error::from(format!("{} is not a key of a section", self.key)))?;
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = r#"
# Where the door is.
[door]
# Its port.
port = 80
# Who may come in.
guests = ["a"]
name = ""
open = false
# What keeps it shut.
[door.lock]
keys = 1
"#;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn later_layers_win_and_text_takes_the_type_of_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("natterjack.toml");
        std::fs::write(&file, "[door]\nport = 81\nname = \"front\"\n").unwrap();
        let mut l = Loader::new(
            DEFAULT,
            Layers {
                file: Some(file),
                env: env(&[("NATTERJACK__DOOR__PORT", "82"), ("NATTERJACK__DOOR__NAME", "007"), ("HOME", "/")]),
                flags: env(&[("door.port", "83"), ("door.guests", "b, c")]),
            },
        );
        assert_eq!(l.get::<u16>("door.port"), 83);
        assert_eq!(l.get::<String>("door.name"), "007");
        assert_eq!(l.get::<Vec<String>>("door.guests"), ["b", "c"]);
        assert!(!l.get::<bool>("door.open"));
        l.finish(()).unwrap();
    }

    #[test]
    fn every_error_is_reported_with_its_key_and_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("natterjack.toml");
        std::fs::write(&file, "[door]\nport = 70000\nprot = 1\n[window]\nx = 1\n").unwrap();
        let mut l = Loader::new(
            DEFAULT,
            Layers {
                file: Some(file),
                env: env(&[("NATTERJACK__DOOR__OPEN", "perhaps"), ("NATTERJACK__DOR__OPEN", "true")]),
                flags: vec![],
            },
        );
        assert_eq!(l.get::<u16>("door.port"), 80, "the default stands in for a wrong value");
        l.checked("door.name", |name: String| {
            if name.is_empty() { Err("must not be empty".to_owned()) } else { Ok(name) }
                .or(Ok::<_, String>(String::new()))
        });
        let text = l.finish(()).unwrap_err().to_string();
        for part in [
            "door.port",
            "door.prot",
            "window.x",
            "door.open",
            "dor.open",
            "natterjack.toml",
            "NATTERJACK__DOOR__OPEN",
            "5 errors",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_section_may_stand_in_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("natterjack.toml");
        std::fs::write(&file, "[door.lock]\nkeys = 2\nkyes = 3\n[door.lokc]\nkeys = 4\n").unwrap();
        let layers = |env| Layers { file: Some(file.clone()), env, flags: vec![] };
        assert_eq!(Loader::new(DEFAULT, layers(vec![])).get::<u8>("door.lock.keys"), 2);
        let mut l = Loader::new(DEFAULT, layers(env(&[("NATTERJACK__DOOR__LOCK__KEYS", "5")])));
        assert_eq!(l.get::<u8>("door.lock.keys"), 5);
        let errors = l.finish(()).unwrap_err().0;
        assert_eq!(errors.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["door.lock.kyes", "door.lokc.keys"]);
    }

    #[test]
    fn a_broken_file_is_one_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("natterjack.toml");
        std::fs::write(&file, "[door\n").unwrap();
        let l = Loader::new(DEFAULT, Layers { file: Some(file), ..Layers::default() });
        assert_eq!(l.finish(()).unwrap_err().0.len(), 1);
    }
}
