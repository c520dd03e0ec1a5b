//! nats-servers that let in only whom they know, over TLS. Of three, the second has a certificate of an authority that
//! nobody believes.

use std::path::{Path, PathBuf};

use natterjack_nats::{NatsConfig, NatsRole, TlsFiles};
use natterjack_testkit::{
    Certificates,
    nats_login::{NatsLogin, logins},
};

/// Whom they know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetsIn {
    /// A user for each role, with the permissions that `natterjack provision --print-permissions` prints.
    Roles,
    /// Everybody who logs in in this way: a name of [`logins`].
    With(&'static str),
    /// Everybody who shows a certificate.
    Certificates,
}

pub struct SecuredNats {
    pub certificates: Certificates,
    other: Certificates,
    folder: PathBuf,
    lets_in: LetsIn,
    login: Option<NatsLogin>,
}

/// Of every user but the test's own.
pub const PASSWORD: &str = "p@ss word";
/// Which of three has the other certificate.
pub const STRANGER: usize = 1;

impl SecuredNats {
    /// `permissions`: what `provision` printed.
    pub fn new(folder: &Path, lets_in: LetsIn, permissions: &str) -> Self {
        let at = |name: &str| {
            let folder = folder.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Certificates::new(folder, vec!["natterjack".into()])
        };
        std::fs::write(folder.join("natterjack-permissions.conf"), permissions).unwrap();
        let login = match lets_in {
            LetsIn::With(name) => Some(logins(folder).into_iter().find(|l| l.name == name).expect("one of logins()")),
            _ => None,
        };
        Self { certificates: at("authority"), other: at("other-authority"), folder: folder.to_owned(), lets_in, login }
    }

    /// More lines for server `i`.
    pub fn server(&self, i: usize, host: &str) -> String {
        let by = if i == STRANGER { &self.other } else { &self.certificates };
        let (certificate, key) = by.write(&format!("nats-{i}"), &by.issue_for(&[host.to_owned()], |_| {}));
        let verify = if self.lets_in == LetsIn::Certificates { "verify: true" } else { "" };
        let ca = &self.certificates.ca_file;
        let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}\n {verify} }}\n");
        let users = match (&self.login, self.lets_in) {
            (Some(login), _) => login.server.clone(),
            (None, LetsIn::Roles) => {
                let user = |r: &NatsRole| {
                    format!(
                        "{{ user: {}, password: {PASSWORD:?}, permissions: ${} }}\n",
                        r.name(),
                        r.name().to_uppercase()
                    )
                };
                let users: String = NatsRole::ALL.iter().map(user).collect();
                format!(
                    "authorization {{\ninclude \"natterjack-permissions.conf\"\nusers: [ {users} {{ user: test, \
                     password: test }} ]\n}}\n"
                )
            }
            (None, _) => String::new(),
        };
        tls + &users
    }

    /// What a process of that role is told; none: the test itself.
    pub fn client(&self, role: Option<NatsRole>) -> NatsConfig {
        let tls = TlsFiles { ca: Some(self.certificates.ca_file.clone()), ..TlsFiles::default() };
        match (&self.login, self.lets_in) {
            (Some(login), _) => NatsConfig { tls, ..login.client.clone() },
            (None, LetsIn::Certificates) => {
                let pair = self.certificates.issue_for(&["natterjack".into()], |_| {});
                let (certificate, key) = self.certificates.write("client", &pair);
                NatsConfig {
                    tls: TlsFiles { certificate: Some(certificate), key: Some(key), ..tls },
                    ..NatsConfig::default()
                }
            }
            (None, _) => {
                let (user, password) = role.map_or(("test", "test"), |r| (r.name(), PASSWORD));
                NatsConfig {
                    user: Some(user.into()),
                    password: Some(password.into()),
                    tls,
                    role,
                    ..NatsConfig::default()
                }
            }
        }
    }

    /// The same as keys of the configuration.
    pub fn settings(&self, role: NatsRole) -> Vec<(String, String)> {
        let cfg = self.client(Some(role));
        let path = |p: Option<PathBuf>| p.map(|p| p.display().to_string());
        let keys = [
            ("nats.user", cfg.user),
            ("nats.password", cfg.password),
            ("nats.token", cfg.token),
            ("nats.nkey", path(cfg.nkey)),
            ("nats.creds", path(cfg.creds)),
            ("nats.tls.ca", path(cfg.tls.ca)),
            ("nats.tls.certificate", path(cfg.tls.certificate)),
            ("nats.tls.key", path(cfg.tls.key)),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// The servers in this order, as a client that begins at `first` is told them.
    pub fn urls(&self, servers: &[String], first: usize) -> Vec<String> {
        let user = self.login.as_ref().and_then(|l| l.in_url).unwrap_or_default();
        let url = |i: usize| servers[(first + i) % servers.len()].replace("//", &format!("//{user}"));
        (0..servers.len()).map(url).collect()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whose authority nobody believes.
    pub fn other_authority(&self) -> &Certificates {
        &self.other
    }
}
