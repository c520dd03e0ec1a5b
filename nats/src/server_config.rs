//! Configuration of nats-server as `natterjack up` and the tests write it. The commented forms for people are in
//! `nats/server/`.
use std::path::Path;

/// How a server treats power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskSync {
    /// Every 100 ms (measured: no loss of throughput against the default of 2 minutes).
    #[default]
    Interval,
    /// Before each acknowledgement: 5 k/s on a single server, 22 k/s with three.
    Always,
}

impl DiskSync {
    fn setting(self) -> &'static str {
        match self {
            Self::Interval => "100ms",
            Self::Always => "always",
        }
    }
}

/// `limits::PAYLOAD_BYTES` and as much again to spare.
const MAX_PAYLOAD: &str = "2MB";

fn common(name: &str, store_dir: &Path, host: &str, port: u16, sync: DiskSync) -> String {
    format!(
        "server_name: {name}\n\
         listen: \"{host}:{port}\"\n\
         max_payload: {MAX_PAYLOAD}\n\
         max_connections: 4096\n\
         ping_interval: \"5s\"\n\
         ping_max: 2\n\
         jetstream {{\n    store_dir: {dir}\n    sync_interval: {sync}\n}}\n",
        dir = serde_json::Value::from(store_dir.display().to_string()),
        sync = sync.setting(),
    )
}

/// The address in a configuration that was written here.
pub fn listens(config: &str) -> Option<&str> {
    config.lines().find_map(|line| line.strip_prefix("listen: \"")?.strip_suffix('"'))
}

/// One server without replicas.
pub fn single_config(store_dir: &Path, host: &str, port: u16, sync: DiskSync) -> String {
    common("natterjack", store_dir, host, port, sync)
}

/// Node `index` of a cluster whose nodes are reached by one another at `routes` (`host:port`, own included).
pub fn cluster_config(
    store_dir: &Path,
    host: &str,
    port: u16,
    index: usize,
    routes: &[String],
    sync: DiskSync,
) -> String {
    let list: Vec<String> = routes.iter().map(|r| format!("\"nats://{r}\"")).collect();
    let own = routes.get(index).map_or("127.0.0.1:6222", String::as_str);
    format!(
        "{}cluster {{\n    name: natterjack\n    listen: \"{own}\"\n    routes: [{}]\n}}\n",
        common(&format!("n{index}"), store_dir, host, port, sync),
        list.join(", ")
    )
}

/// 25 % of the free disk, shared by the partitions: what `max_bytes` of a new partition should be on a machine of its
/// own.
pub fn max_bytes_for(free_bytes: u64, partitions: u32) -> i64 {
    // Below 64 MiB a log is of no use; provisioning then fails by the server's own word.
    i64::try_from(free_bytes / 4 / u64::from(partitions.max(1))).unwrap_or(i64::MAX).max(64 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_again() {
        let config = single_config(Path::new("/tmp/a \"b\""), "127.0.0.1", 4222, DiskSync::Interval);
        assert_eq!(listens(&config), Some("127.0.0.1:4222"));
        assert_eq!(listens("port: 4222"), None);
    }
}
