//! What names stand for in a case: its users, what was learnt on the way, and the cids it has made.

use std::collections::HashMap;

use natterjack_protocol::Cid;
use natterjack_testkit::now_ms;
use natterjack_tests::kit::User;
use serde_json::{Value, json};

#[derive(Default)]
pub struct Scope {
    values: HashMap<String, Value>,
    cids: HashMap<String, Cid>,
    /// Between the server's clock and ours, in milliseconds.
    pub ahead: i64,
}

impl Scope {
    pub fn of(users: &[(String, User)]) -> Self {
        let mut scope = Self::default();
        for (name, user) in users {
            for (what, value) in
                [("", user.id().as_str()), (".token", &user.tokens.access), (".device", user.tokens.device.as_str())]
            {
                scope.set(&format!("{name}{what}"), json!(value));
            }
            for (other, peer) in users {
                scope.set(&format!("dm:{name}:{other}"), json!(user.dm(peer)));
            }
        }
        scope
    }

    pub fn set(&mut self, name: &str, value: Value) {
        if let Some(id) = value.as_str().and_then(|v| v.strip_prefix("group.")) {
            self.values.insert(format!("{name}.id"), json!(id));
        }
        self.values.insert(name.to_owned(), value);
    }

    pub fn get(&self, name: &str) -> &Value {
        self.values.get(name).unwrap_or_else(|| panic!("nothing is called {name:?} here"))
    }

    /// The cid of this name; made when it is first asked for.
    pub fn cid(&mut self, name: &str, off_ms: i64) -> Cid {
        let now = (now_ms().cast_signed() + self.ahead + off_ms).cast_unsigned();
        *self.cids.entry(name.to_owned()).or_insert_with(|| Cid::mint(now, rand::random()))
    }

    /// `${name}` in a text.
    pub fn fill(&self, text: &str) -> String {
        let mut parts = text.split("${");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap_or_else(|| panic!("no end of ${{ in {text:?}"));
            match self.get(name) {
                Value::String(s) => filled.push_str(s),
                other => filled.push_str(&other.to_string()),
            }
            filled.push_str(rest);
        }
        filled
    }
}
