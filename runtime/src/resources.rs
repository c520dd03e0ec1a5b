//! What the system lets this process have: open files, memory, threads. Read once at start, after the limit of open
//! files was raised as far as the system allows; what a role makes of it, the role says.

use std::{fmt, fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More open files than any role has use for.
const FILES: u64 = 1 << 20;
/// Threads beside the runtime's workers: standard input, the writer of the archive, look-ups of names.
const OTHER_THREADS: u64 = 8;
/// As the runtime has by default.
const BLOCKING: u64 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub files: u64,
    /// Of these, taken already.
    pub open: u64,
    /// In bytes: of the container, or of the machine.
    pub memory: Option<u64>,
    /// Of the container and the user; None: no limit is known.
    pub threads: Option<u64>,
}

impl Resources {
    /// Raises the soft limit of open files to the hard one, which is what that is for. Some: from what to what.
    pub fn raise() -> Option<(u64, u64)> {
        let before = getrlimit(Resource::Nofile);
        let (soft, wanted) = (before.current?, before.maximum.unwrap_or(FILES).min(FILES));
        // Where it is refused, what is there counts.
        let raised = soft < wanted
            && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: before.maximum }).is_ok();
        raised.then_some((soft, wanted))
    }

    pub fn now() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(FILES);
        let open = fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        let of_user = getrlimit(Resource::Nproc).current;
        let threads = pids(Path::new("/")).into_iter().chain(of_user).min();
        Self { files, open, memory: memory(Path::new("/")), threads }
    }

    /// How many threads the runtime may have: workers, and those that may block.
    pub fn for_runtime(&self, workers: usize) -> (usize, usize) {
        let all = self.threads.unwrap_or(u64::MAX).saturating_sub(OTHER_THREADS);
        // Half for what blocks, if it is that tight: a runtime without any could not open the archive.
        let workers = (workers as u64).min(all / 2).max(1);
        (workers as usize, all.saturating_sub(workers).clamp(1, BLOCKING) as usize)
    }
}

/// Free for us on the disk that holds `path`.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let s = rustix::fs::statvfs(path)?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} open files", self.files)?;
        match self.memory {
            Some(bytes) => write!(f, ", {} MiB of memory", bytes >> 20)?,
            None => write!(f, ", memory without a known limit")?,
        }
        match self.threads {
            Some(n) => write!(f, ", {n} threads"),
            None => write!(f, ", threads without a limit"),
        }
    }
}

/// The smallest limit of the control groups that this process is in, from its own to the root, and of the machine.
fn memory(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let kib = text
            .lines()
            .find_map(|l| l.strip_prefix("MemTotal:"))?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?;
        Some(kib << 10)
    });
    groups(root, "memory", ["memory.max", "memory.limit_in_bytes"]).into_iter().chain(machine).min()
}

fn pids(root: &Path) -> Option<u64> {
    groups(root, "pids", ["pids.max", "pids.max"]).into_iter().min()
}

/// What these files hold in every group: of version 2, and of the controller of version 1.
fn groups(root: &Path, controller: &str, [two, one]: [&str; 2]) -> Vec<u64> {
    let mine = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let places = mine.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next()?, parts.next()?) {
            ("", path) => Some((root.join("sys/fs/cgroup"), path, two)),
            (names, path) if names.split(',').any(|n| n == controller) => {
                Some((root.join("sys/fs/cgroup").join(controller), path, one))
            }
            _ => None,
        }
    });
    let of_place = |(mount, path, file): (std::path::PathBuf, &str, &str)| {
        let own = mount.join(path.trim_start_matches('/'));
        let all: Vec<u64> = own
            .ancestors()
            .take_while(|dir| dir.starts_with(&mount))
            // `max`, or a number.
            .filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
            .collect();
        all
    };
    places.flat_map(of_place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_tightest_group_counts() {
        let two = root(&[
            MACHINE,
            ("proc/self/cgroup", "0::/pods/mine\n"),
            ("sys/fs/cgroup/pods/mine/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/memory.max", "268435456\n"),
            ("sys/fs/cgroup/pods/mine/pids.max", "100\n"),
            ("sys/fs/cgroup/pods/pids.max", "300\n"),
        ]);
        assert_eq!((memory(two.path()), pids(two.path())), (Some(256 << 20), Some(100)));
        let one = root(&[
            MACHINE,
            ("proc/self/cgroup", "8:pids:/\n4:cpu,memory:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/pids/pids.max", "max\n"),
        ]);
        assert_eq!((memory(one.path()), pids(one.path())), (Some(128 << 20), None));
        assert_eq!(memory(root(&[MACHINE]).path()), Some(8_000_000 << 10));
        let nothing = root(&[]);
        assert_eq!((memory(nothing.path()), pids(nothing.path())), (None, None));
    }

    #[test]
    fn few_threads_are_shared_between_work_and_waiting() {
        let of = |threads| Resources { files: 1, open: 0, memory: None, threads }.for_runtime(4);
        assert_eq!(of(None), (4, 512));
        assert_eq!(of(Some(100)), (4, 88));
        assert_eq!(of(Some(12)), (2, 2));
        assert_eq!(of(Some(1)), (1, 1));
    }

    #[test]
    fn this_process_may_have_something() {
        let now = Resources::now();
        assert!(now.files > now.open && now.open > 2 && now.memory.is_some_and(|m| m > 64 << 20), "{now:?}");
        let text = now.to_string();
        assert!(text.contains(&format!("{} open files", now.files)) && text.contains("MiB"), "{text}");
    }
}
