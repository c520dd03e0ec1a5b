//! Servers on one core and load on the other, so that a rate is a rate per core.

use std::io;

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

/// Of the servers.
pub const SERVERS: usize = 0;
/// Ours.
pub const LOAD: usize = 1;

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Every thread of this process.
pub fn ourselves() -> io::Result<()> {
    for thread in std::fs::read_dir("/proc/self/task")? {
        let tid = thread?.file_name().to_str().and_then(|t| t.parse().ok()).and_then(Pid::from_raw);
        // One that has ended meanwhile needs nothing.
        let _ = tid.map(|tid| sched_setaffinity(Some(tid), &only(LOAD)));
    }
    Ok(())
}

/// What the thread starts while in there runs on the servers' core, with all that comes from it.
pub fn while_starting<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    sched_setaffinity(None, &only(SERVERS))?;
    let started = start();
    sched_setaffinity(None, &only(LOAD))?;
    started
}
