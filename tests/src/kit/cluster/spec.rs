//! What a cluster is made of.

use crate::kit::secured_nats::LetsIn;

#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub edges: usize,
    pub channels: usize,
    pub persisters: usize,
    /// Without one everybody is unknown to everybody.
    pub presences: usize,
    /// 1 or 3; with 3 everything is replicated three times.
    pub nats: usize,
    pub partitions: u32,
    /// Windows and sweeps divided by this (`Times::scaled`).
    pub times_divisor: u32,
    /// Edge i reaches NATS through a proxy that can drop chosen messages: [`Cluster::nats_proxy`].
    pub proxied_edges: bool,
    /// Likewise presence i: [`Cluster::presence_proxy`].
    pub proxied_presences: bool,
    /// Which nats-server each instance connects to first; by default instance i takes server i modulo their number.
    pub edge_nodes: Vec<usize>,
    pub channel_nodes: Vec<usize>,
    pub persister_nodes: Vec<usize>,
    /// Edge i is started by a shell that says this first, for instance `ulimit -n 256`.
    pub edge_shell: Vec<String>,
    /// Edges speak TLS, with a certificate of the kit's own authority: [`Cluster::certificates`].
    pub tls: bool,
    /// nats-servers over TLS that let in only these: [`Cluster::secured_nats`].
    pub secured_nats: Option<LetsIn>,
    /// More settings for every process, dotted key and value.
    pub set: Vec<(String, String)>,
    pub log_filter: String,
    /// No other cluster may run meanwhile.
    pub alone: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            edges: 2,
            channels: 1,
            persisters: 1,
            presences: 0,
            nats: 1,
            partitions: 2,
            times_divisor: 1,
            proxied_edges: false,
            proxied_presences: false,
            edge_nodes: Vec::new(),
            channel_nodes: Vec::new(),
            persister_nodes: Vec::new(),
            edge_shell: Vec::new(),
            tls: false,
            secured_nats: None,
            set: Vec::new(),
            log_filter: "info,async_nats=warn,scylla=error".into(),
            alone: false,
        }
    }
}
