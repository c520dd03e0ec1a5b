//! Every way to log in to nats-server: what the servers are told, and what their clients are.

use std::path::Path;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use natterjack_nats::NatsConfig;
use nkeys::KeyPair;
use serde_json::{Value, json};

pub struct NatsLogin {
    pub name: &'static str,
    /// More lines of the servers' configuration.
    pub server: String,
    /// Without the URLs.
    pub client: NatsConfig,
    /// What stands before the `@` of a URL.
    pub in_url: Option<&'static str>,
    /// The same with something that the servers do not know.
    pub wrong: Option<NatsConfig>,
    /// What a wrong one is told to look at.
    pub advice: &'static str,
}

/// Their files are written to `folder`.
pub fn logins(folder: &Path) -> Vec<NatsLogin> {
    let default = NatsConfig::default;
    let password = |p: &str| NatsConfig { user: Some("natterjack".into()), password: Some(p.into()), ..default() };
    let token = |t: &str| NatsConfig { token: Some(t.into()), ..default() };
    let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = |name: &str, key: &KeyPair| {
        let path = folder.join(name);
        std::fs::write(&path, key.seed().unwrap()).unwrap();
        NatsConfig { nkey: Some(path), ..default() }
    };
    let operator = Operator::new();
    let creds = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        NatsConfig { creds: Some(path), ..default() }
    };
    let users = "authorization { users: [ { user: natterjack, password: \"p@ss/word\" } ] }\n";
    vec![
        NatsLogin { name: "plain", server: String::new(), client: default(), in_url: None, wrong: None, advice: "" },
        NatsLogin {
            name: "password",
            server: users.into(),
            client: password("p@ss/word"),
            in_url: None,
            wrong: Some(password("other")),
            advice: "check nats.user and nats.password",
        },
        NatsLogin {
            name: "password in the URL",
            server: users.into(),
            client: default(),
            in_url: Some("natterjack:p%40ss%2Fword@"),
            wrong: Some(default()),
            advice: "named nobody",
        },
        NatsLogin {
            name: "token",
            server: "authorization { token: \"s3cret token\" }\n".into(),
            client: token("s3cret token"),
            in_url: None,
            wrong: Some(token("other")),
            advice: "check nats.token",
        },
        NatsLogin {
            name: "nkey",
            server: format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n", key.public_key()),
            client: seed("nkey", &key),
            in_url: None,
            wrong: Some(seed("other-nkey", &other)),
            advice: "check nats.nkey",
        },
        NatsLogin {
            name: "creds",
            server: operator.server(),
            client: creds("user.creds", operator.user(json!({}))),
            in_url: None,
            wrong: Some(creds("old.creds", operator.user(json!({ "exp": 1_700_000_000 })))),
            advice: "has its JWT not expired?",
        },
    ]
}

/// Who vouches for accounts and users by signed tokens instead of the servers' configuration.
pub struct Operator {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    #[allow(clippy::new_without_default, reason = "keys are made, never the same")]
    pub fn new() -> Self {
        Self { operator: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    pub fn server(&self) -> String {
        let system = self.system.public_key();
        let operator = json!({ "type": "operator", "version": 2, "system_account": system });
        let account = |key: &KeyPair, name: &str, disk: i64| {
            let limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
                "wildcards": true, "conn": -1, "leaf": -1,
                "mem_storage": disk, "disk_storage": disk, "streams": disk, "consumer": disk,
            });
            signed(
                &self.operator,
                &key.public_key(),
                name,
                json!({ "type": "account", "version": 2, "limits": limits }),
                json!({}),
            )
        };
        format!(
            "operator: {}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{\n    {}: {}\n    \
             {system}: {}\n}}\n",
            signed(&self.operator, &self.operator.public_key(), "O", operator, json!({})),
            self.account.public_key(),
            account(&self.account, "NATTERJACK", -1),
            account(&self.system, "SYS", 0),
        )
    }

    /// A credentials file, with more claims.
    pub fn user(&self, more: Value) -> String {
        let key = KeyPair::new_user();
        let claims =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let jwt = signed(&self.account, &key.public_key(), "natterjack", claims, more);
        let seed = key.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nNKEY Seed printed below can be used sign \
             and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn signed(by: &KeyPair, subject: &str, name: &str, nats: Value, more: Value) -> String {
    let (iat, iss) = (1_700_000_000, by.public_key());
    let mut claims = json!({ "jti": subject, "iat": iat, "iss": iss, "name": name, "sub": subject, "nats": nats });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let part = |v: &Value| BASE64_URL_SAFE_NO_PAD.encode(v.to_string());
    let said = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(by.sign(said.as_bytes()).unwrap());
    format!("{said}.{signature}")
}
