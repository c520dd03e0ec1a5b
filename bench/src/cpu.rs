//! CPU time and resident memory of the server processes, from /proc.

use serde::Serialize;

/// Clock ticks per second of `utime` and `stime`; 100 on every Linux there is.
const TICKS: f64 = 100.0;

/// A server process that is looked at.
#[derive(Debug, Clone)]
pub struct ServerProcess {
    pub role: String,
    pub pid: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessUsage {
    /// User and system time, seconds.
    pub cpu: f64,
    /// Resident, bytes.
    pub rss: u64,
}

/// What a role used during a run.
#[derive(Debug, Clone, Serialize)]
pub struct Used {
    pub role: String,
    pub cpu_seconds: f64,
    pub rss_bytes: u64,
}

pub fn read(pid: u32) -> ProcessUsage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold spaces: fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let rss = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    ProcessUsage { cpu: (ticks(11) + ticks(12)) / TICKS, rss: rss.unwrap_or_default() * 1024 }
}

/// Readings of all processes at one moment.
pub struct Snapshot(Vec<(String, ProcessUsage)>);

impl Snapshot {
    pub fn take(processes: &[ServerProcess]) -> Self {
        Self(processes.iter().map(|p| (p.role.clone(), read(p.pid))).collect())
    }

    /// Resident bytes of all of them.
    pub fn rss(&self) -> u64 {
        self.0.iter().map(|(_, r)| r.rss).sum()
    }

    /// By how many bytes each role has grown, in the order of the processes.
    pub fn grown(&self, later: &Self) -> Vec<(String, i64)> {
        let mut grown: Vec<(String, i64)> = Vec::new();
        for ((role, before), (_, after)) in self.0.iter().zip(&later.0) {
            let bytes = after.rss as i64 - before.rss as i64;
            match grown.iter_mut().find(|(r, _)| r == role) {
                Some((_, sum)) => *sum += bytes,
                None => grown.push((role.clone(), bytes)),
            }
        }
        grown
    }

    /// Per role (two edges are one role), in the order of the processes.
    pub fn until(&self, later: &Self) -> Vec<Used> {
        let mut used: Vec<Used> = Vec::new();
        for ((role, before), (_, after)) in self.0.iter().zip(&later.0) {
            // Of one that was killed meanwhile nothing is known.
            let cpu_seconds = (after.cpu - before.cpu).max(0.0);
            match used.iter_mut().find(|u| u.role == *role) {
                Some(u) => {
                    u.cpu_seconds += cpu_seconds;
                    u.rss_bytes += after.rss;
                }
                None => used.push(Used { role: role.clone(), cpu_seconds, rss_bytes: after.rss }),
            }
        }
        used
    }
}

/// Of one role in several stretches of time.
pub fn add(all: &mut Vec<Used>, more: Vec<Used>) {
    for used in more {
        match all.iter_mut().find(|u| u.role == used.role) {
            Some(u) => (u.cpu_seconds, u.rss_bytes) = (u.cpu_seconds + used.cpu_seconds, used.rss_bytes),
            None => all.push(used),
        }
    }
}
