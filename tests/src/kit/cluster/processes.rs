//! How each process of a cluster is started, and with which settings.

use natterjack_nats::{
    NatsRole,
    server_config::{DiskSync, cluster_config, single_config},
};
use natterjack_testkit::{Process, nats_server, process::Ready, programs};

use super::Cluster;

impl Cluster {
    pub(super) fn nats_process(&self, i: usize) -> Process {
        let (addr, store) = (self.net.nats(i), self.dir().join(format!("nats-{i}")));
        let host = addr.ip().to_string();
        let text = if self.spec.nats == 1 {
            single_config(&store, &host, addr.port(), DiskSync::Interval)
        } else {
            let routes: Vec<String> = (0..self.spec.nats).map(|n| self.net.route(n).to_string()).collect();
            cluster_config(&store, &host, addr.port(), i, &routes, DiskSync::Interval)
        };
        let more = self.secured.as_ref().map(|s| s.server(i, &host)).unwrap_or_default();
        nats_server::process(i, &self.dir(), &(text + &more), addr)
    }

    pub(super) fn settings(&self, role: NatsRole, first: usize) -> Vec<(String, String)> {
        self.settings_with(role, self.nats_urls(first).join(","))
    }

    fn settings_with(&self, role: NatsRole, nats_url: String) -> Vec<(String, String)> {
        let mut set: Vec<(String, String)> = [
            ("nats.urls", nats_url),
            ("nats.replicas", self.spec.nats.to_string()),
            ("nats.partitions", self.spec.partitions.to_string()),
            // A test writes megabytes; the default would reserve a quarter of the disk.
            ("nats.max_bytes", (256u64 << 20).to_string()),
            ("times.divisor", self.spec.times_divisor.to_string()),
            ("log.filter", self.spec.log_filter.clone()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        set.extend(self.secured.iter().flat_map(|s| s.settings(role)));
        set.extend(self.spec.set.iter().cloned());
        set
    }

    /// Server `first`; where some let nobody in, all of them.
    fn nats_urls(&self, first: usize) -> Vec<String> {
        match &self.secured {
            None => vec![self.nats_url(first)],
            Some(s) => s.urls(&(0..self.spec.nats).map(|i| self.nats_url(i)).collect::<Vec<_>>(), first),
        }
    }

    fn role(&self, name: String, role: NatsRole, nats_url: String, own: &[(&str, String)], ready: String) -> Process {
        let mut args = vec![role.name().to_owned(), "--die-with-parent".to_owned()];
        // What the test says for all comes last and wins.
        let own = own.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        args.extend(
            own.chain(self.settings_with(role, nats_url)).flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]),
        );
        let clock = self.clock(&name).display().to_string();
        Process::new(name, programs::natterjack(), args, &self.dir(), Ready::Http(ready)).env(Self::CLOCK, &clock)
    }

    pub(super) fn edge_process(&self, i: usize) -> Process {
        let addr = self.net.edge(i);
        let nats = match self.nats_proxies.get(i) {
            Some(proxy) => proxy.url(),
            None => self.nats_urls(node(&self.spec.edge_nodes, i, self.spec.nats)).join(","),
        };
        let mut own =
            vec![("edge.id", format!("edge-{i}")), ("edge.listen", addr.to_string()), ("edge.url", self.edge_url(i))];
        own.push(("admin.listen", self.edge_admin(i).to_string()));
        if let Some(files) = &self.certificates {
            own.push(("edge.tls.certificate", files.certificate.display().to_string()));
            own.push(("edge.tls.key", files.key.display().to_string()));
        }
        let process = self.role(
            format!("edge-{i}"),
            NatsRole::Edge,
            nats,
            &own,
            format!("{}/ready", self.edge_url(i).replacen("ws", "http", 1)),
        );
        match self.spec.edge_shell.get(i) {
            Some(first) => process.behind(first),
            None => process,
        }
    }

    pub(super) fn channel_process(&self, i: usize) -> Process {
        let (admin, nats) =
            (self.net.channel(i), self.nats_urls(node(&self.spec.channel_nodes, i, self.spec.nats)).join(","));
        self.role(
            format!("channel-{i}"),
            NatsRole::Channel,
            nats,
            &[("admin.listen", admin.to_string())],
            format!("http://{admin}/ready"),
        )
    }

    pub(super) fn persister_process(&self, i: usize) -> Process {
        let (admin, nats) =
            (self.net.persister(i), self.nats_urls(node(&self.spec.persister_nodes, i, self.spec.nats)).join(","));
        let own = [("admin.listen", admin.to_string()), ("persister.archive", self.archive().display().to_string())];
        self.role(format!("persister-{i}"), NatsRole::Persister, nats, &own, format!("http://{admin}/ready"))
    }

    pub(super) fn presence_process(&self, i: usize) -> Process {
        let admin = self.net.presence(i);
        let nats = match self.presence_proxies.get(i) {
            Some(proxy) => proxy.url(),
            None => self.nats_urls(i % self.spec.nats).join(","),
        };
        let own = [("admin.listen", admin.to_string())];
        self.role(format!("presence-{i}"), NatsRole::Presence, nats, &own, format!("http://{admin}/ready"))
    }
}

pub(super) fn node(places: &[usize], i: usize, servers: usize) -> usize {
    places.get(i).copied().unwrap_or(i % servers)
}
