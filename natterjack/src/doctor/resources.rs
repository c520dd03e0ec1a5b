//! The limits of the system, and whether they are enough for the configuration.

use natterjack_edge::capacity::{Capacity, Limit};
use natterjack_runtime::Resources;

/// Workers, the archive's writer, and password hashing.
const THREADS: u64 = 32;
/// A persister: 152 MiB for hashing passwords, and as much for pages. `up` runs nearly everything in one process.
const MEMORY: u64 = 512 << 20;
/// Each role opens a few; a persister one more per partition.
const FILES: u64 = 64;

pub fn connections(configured: usize, has: &Resources) -> Result<String, String> {
    let capacity = Capacity::of(configured, has);
    let Capacity { connections, limit, .. } = capacity;
    match limit {
        Limit::Configured => {
            Ok(format!("an edge accepts {connections} (edge.max_connections), with {} open files", has.files))
        }
        Limit::OpenFiles => Err(format!(
            "{} open files allow {connections} connections instead of {configured} (edge.max_connections): {}",
            has.files,
            capacity.advice()
        )),
        Limit::Memory => Err(format!(
            "{} MiB of memory allow {connections} connections instead of {configured} (edge.max_connections): {}",
            has.memory.unwrap_or_default() >> 20,
            capacity.advice()
        )),
    }
}

pub fn files(partitions: u32, has: &Resources) -> Result<String, String> {
    let needed = FILES + u64::from(partitions);
    let least = format!("{} open files; a persister of {partitions} partitions needs {needed}", has.files);
    if has.files < needed {
        Err(format!("{least}: raise the limit (`ulimit -n`, `LimitNOFILE=` of systemd)"))
    } else {
        Ok(least)
    }
}

pub fn memory(has: &Resources) -> Result<String, String> {
    match has.memory {
        Some(bytes) if bytes < MEMORY => Err(format!(
            "{} MiB; a persister needs {} MiB, most of it for hashing passwords: raise the limit of the container, or \
             add memory",
            bytes >> 20,
            MEMORY >> 20
        )),
        Some(bytes) => Ok(format!("{} MiB", bytes >> 20)),
        None => Ok("no limit".into()),
    }
}

pub fn threads(has: &Resources) -> Result<String, String> {
    match has.threads {
        Some(n) if n < THREADS => Err(format!(
            "{n}; a role needs {THREADS}: raise pids.max of the container, or the user's limit (`ulimit -u`)"
        )),
        Some(n) => Ok(format!("{n}")),
        None => Ok("no limit".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Resources = Resources { files: 1 << 20, open: 20, memory: Some(8 << 30), threads: Some(10_000) };

    fn names(found: Result<String, String>, words: &[&str]) {
        let why = found.unwrap_err();
        words.iter().for_each(|word| assert!(why.contains(word), "{word} is missing in: {why}"));
    }

    #[test]
    fn what_is_too_little_is_named_with_what_to_do() {
        let few = Resources { files: 256, ..PLENTY };
        names(
            connections(18_000, &few),
            &["256 open files", "172", "18000", "edge.max_connections", "ulimit -n", "LimitNOFILE"],
        );
        names(
            connections(18_000, &Resources { memory: Some(128 << 20), ..PLENTY }),
            &["128 MiB", "4096", "18000", "more memory"],
        );
        names(files(1_024, &few), &["256 open files", "1088", "ulimit -n"]);
        names(memory(&Resources { memory: Some(128 << 20), ..PLENTY }), &["128 MiB", "512 MiB", "container"]);
        names(threads(&Resources { threads: Some(10), ..PLENTY }), &["10", "pids.max", "ulimit -u"]);
        assert!(connections(18_000, &PLENTY).unwrap().contains("18000"));
        assert!(files(16, &PLENTY).is_ok() && memory(&PLENTY).is_ok() && threads(&PLENTY).is_ok());
        assert!(memory(&Resources { memory: None, ..PLENTY }).is_ok());
    }
}
