//! The words of the list.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Scenario {
    pub what: String,
    #[serde(default = "one")]
    pub edges: usize,
    pub steps: Vec<Step>,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Server(Server),
    Client(Wanted),
    User(User),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "server", rename_all = "snake_case")]
pub enum Server {
    Upgrades,
    Greets,
    Welcomes,
    Answers { status: u16, headers: BTreeMap<String, String>, body: String },
    Says { frame: Value },
    Closes { code: u16 },
    Breaks,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "client", rename_all = "snake_case")]
pub enum Wanted {
    Connects {
        after_ms: [u64; 2],
        edge: Option<String>,
    },
    Refreshes {
        after_ms: [u64; 2],
    },
    Sends {
        text: String,
        behind: Option<String>,
        cid: Option<String>,
        after_ms: Option<[u64; 2]>,
    },
    SendsNothing,
    HasSent {
        text: String,
    },
    HasFailed {
        text: String,
    },
    /// Does it name the session that it had?
    SaysHello {
        session: bool,
    },
    SaysBye,
    StaysAway,
    Ends,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "user", rename_all = "snake_case")]
pub enum User {
    Writes { text: String },
    TakesOver,
    Closes,
}
