//! How many connections an edge takes: what its operator says, or what open files and memory allow, whichever is less.
//! Pure.
//!
//! What is left over is not to spare: without it an edge that is full could neither reach NATS again nor tell anybody
//! that it is full.

use natterjack_runtime::Resources;

/// Open files for what is not a client: connections to NATS (one of them made anew while the old one is not gone), the
/// listener, the operators' address, certificates, look-ups of names.
const RESERVE: u64 = 48;
/// Of the open files, one in so many is for connections that are told that there is no room, a second each.
const FAREWELL_SHARE: u64 = 16;
pub const FAREWELLS: u64 = 256;
/// Memory of an edge that has no clients, and room for what the busy ones of them need.
const BASE: u64 = 64 << 20;
/// An idle connection's 8 KiB (docs/performance.md), and as much for the kernel's buffers and what is on its way.
const PER_CONNECTION: u64 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Configured,
    OpenFiles,
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    pub connections: usize,
    /// Refused connections that are told why at the same time.
    pub farewells: usize,
    pub limit: Limit,
}

impl Capacity {
    /// `configured`: `edge.max_connections`.
    pub fn of(configured: usize, has: &Resources) -> Self {
        let farewells = (has.files / FAREWELL_SHARE).clamp(1, FAREWELLS);
        let by_files = has.files.saturating_sub(has.open + RESERVE + farewells);
        let by_memory = has.memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(BASE) / PER_CONNECTION);
        let limits = [(configured as u64, Limit::Configured), (by_files, Limit::OpenFiles), (by_memory, Limit::Memory)];
        let (connections, limit) = limits.into_iter().min_by_key(|(n, _)| *n).unwrap_or((0, Limit::Configured));
        // One at least, so that somebody hears what is wrong.
        Self { connections: (connections as usize).max(1), farewells: farewells as usize, limit }
    }

    /// What to do for more.
    pub fn advice(&self) -> &'static str {
        match self.limit {
            Limit::Configured => "raise edge.max_connections, or run more edges",
            Limit::OpenFiles => {
                "raise the limit of open files (`ulimit -n`, `LimitNOFILE=` of systemd, `--ulimit nofile=` of a \
                 container), or run more edges"
            }
            Limit::Memory => "give it more memory (16 KiB for each connection, and 64 MiB), or run more edges",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(configured: usize, files: u64, memory: Option<u64>) -> (usize, Limit) {
        let c = Capacity::of(configured, &Resources { files, open: 20, memory, threads: None });
        (c.connections, c.limit)
    }

    #[test]
    fn the_least_of_three() {
        assert_eq!(of(18_000, 20_000, None), (18_000, Limit::Configured));
        assert_eq!(of(18_000, 256, None), (256 - 20 - 48 - 16, Limit::OpenFiles));
        assert_eq!(of(18_000, 1 << 20, Some(256 << 20)), (12_288, Limit::Memory));
        assert_eq!(of(100, 256, Some(256 << 20)), (100, Limit::Configured));
        assert_eq!(of(18_000, 40, None), (1, Limit::OpenFiles));
        assert_eq!(of(18_000, 1 << 20, Some(1 << 20)), (1, Limit::Memory));
    }
}
