//! How the last `up` on this folder ended. The mark is a file that exists while one runs and names the boot of the
//! machine. A mark found at a start was not removed: with the same boot id, processes died, and the kernel kept what
//! they wrote; with another one, the machine went down, and the last 0.1 s of the log may be lost.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// New at every boot of Linux.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Without a boot id the end of a machine is not noticed here; channel and persister still compare the log's end.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastEnd {
    /// Stopped in order, or there was no run before.
    Clean,
    /// Processes were killed.
    Processes,
    /// Power, kernel or a reset.
    Machine,
}

pub struct Mark {
    path: PathBuf,
    boot: String,
}

impl Mark {
    pub fn read(folder: &Path) -> anyhow::Result<(Self, LastEnd)> {
        let boot = fs::read_to_string(BOOT_ID).map_or_else(|_| UNKNOWN.to_owned(), |id| id.trim().to_owned());
        Self::at(folder.join("running"), boot)
    }

    fn at(path: PathBuf, boot: String) -> anyhow::Result<(Self, LastEnd)> {
        let last = match fs::read_to_string(&path) {
            Ok(found) if found.trim() == boot => LastEnd::Processes,
            // Also one that was cut short by the loss itself.
            Ok(_) => LastEnd::Machine,
            Err(e) if e.kind() == io::ErrorKind::NotFound => LastEnd::Clean,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok((Self { path, boot }, last))
    }

    /// From here on an end without [`Mark::clear`] is noticed. Called once the log continues above what was lost, not
    /// before.
    pub fn set(&self) -> anyhow::Result<()> {
        let write = || {
            let mut file = File::create(&self.path)?;
            writeln!(file, "{}", self.boot)?;
            file.sync_all()?;
            self.sync_folder()
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// nats-server has closed its files.
    pub fn clear(&self) {
        // If it stays, the next start begins a generation of the log that nobody needs.
        let _ = fs::remove_file(&self.path).and_then(|()| self.sync_folder());
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_machine_is_told_from_that_of_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let start = |boot: &str| Mark::at(dir.path().join("running"), boot.into()).unwrap();
        let (mark, last) = start("one");
        assert_eq!(last, LastEnd::Clean, "the first start");
        mark.set().unwrap();
        assert_eq!(start("one").1, LastEnd::Processes);
        let (mark, last) = start("two");
        assert_eq!(last, LastEnd::Machine);
        assert_eq!(start("two").1, LastEnd::Machine, "until the log goes on above what was lost");
        mark.set().unwrap();
        mark.clear();
        assert_eq!(start("three").1, LastEnd::Clean);
        fs::write(dir.path().join("running"), "").unwrap();
        assert_eq!(start("three").1, LastEnd::Machine, "cut short");
    }
}
