//! A CQL server of the test's own: Apache Cassandra, one node or three, that may be frozen, slowed down and killed.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use natterjack_testkit::{
    Proxy,
    net::Subnet,
    process::{Process, Ready},
};
use tempfile::TempDir;

/// A cold start on a busy machine; 6 s on an idle one.
const START: Duration = Duration::from_secs(180);

pub struct Cassandra {
    nodes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    /// In front of the only node.
    proxy: Option<Proxy>,
    _dir: TempDir,
}

impl Cassandra {
    pub async fn one() -> Self {
        Self::start(1, false).await
    }

    /// What is said to it, and what it answers, goes through [`Cassandra::proxy`].
    pub async fn one_behind_a_proxy() -> Self {
        Self::start(1, true).await
    }

    /// Three copies of everything.
    pub async fn three() -> Self {
        Self::start(3, false).await
    }

    async fn start(count: usize, proxied: bool) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
        // First without us, so that its words are seen: it says what to install.
        let fetched = Command::new(scripts.join("fetch-cassandra.sh")).env_remove("NATTERJACK_CQL").status().unwrap();
        assert!(fetched.success(), "there is no CQL server to test with: see above");
        let (net, dir) = (Subnet::next(), tempfile::Builder::new().prefix("natterjack-cassandra-").tempdir().unwrap());
        let real: Vec<SocketAddr> = (0..count).map(|i| net.cql(i)).collect();
        let proxy = if proxied { Some(Proxy::start(net.cql_proxy(), real[0]).await) } else { None };
        let nodes: Vec<Process> = real
            .iter()
            .enumerate()
            .map(|(i, address)| {
                let folder = dir.path().join(format!("node-{i}"));
                let args = vec![address.ip().to_string(), folder.display().to_string(), real[0].ip().to_string()];
                let told = proxy.as_ref().map_or(address.ip(), |p| p.addr().ip());
                Process::new(
                    format!("cassandra-{i}"),
                    &scripts.join("cassandra.sh"),
                    args,
                    dir.path(),
                    Ready::Tcp(*address),
                )
                .env("CASSANDRA_TOLD", &told.to_string())
                .env("NATTERJACK_CQL", "")
                .patient(START)
            })
            .collect();
        // One after the other: the second asks the first who else there is.
        for node in &nodes {
            node.start().await;
        }
        let addresses = proxy.as_ref().map_or(real, |p| vec![p.addr()]);
        Self { nodes, addresses, proxy, _dir: dir }
    }

    /// What the processes of an installation are told.
    pub fn settings(&self) -> Vec<(String, String)> {
        let points: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let consistency = if self.nodes.len() == 1 { "one" } else { "local_quorum" };
        [
            ("cql.contact_points", points.join(",")),
            ("cql.replication", self.nodes.len().to_string()),
            ("cql.consistency", consistency.to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }

    pub fn node(&self, i: usize) -> &Process {
        &self.nodes[i]
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("started behind a proxy")
    }
}
