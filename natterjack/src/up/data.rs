//! The data folder of `up`, locked so that two of them cannot write the same log.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use natterjack_runtime::resources::free_bytes;

/// With less free space a start would fail a little later, with a less clear error.
const NEEDED: u64 = 256 << 20;

pub struct DataFolder {
    root: PathBuf,
    /// Held until this process ends, however it does.
    _lock: File,
}

impl DataFolder {
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let shown = root.display();
        fs::create_dir_all(root)
            .with_context(|| format!("cannot create the data folder {shown}; give another one with --data"))?;
        // Children have working directories of their own.
        let root = root.canonicalize().with_context(|| format!("the data folder {shown}"))?;
        let lock = lock(&root)?;
        let folder = Self { root, _lock: lock };
        let free = folder.free_bytes()?;
        if free < NEEDED {
            bail!(
                "the disk is full: {} MB are free where {shown} is, at least {} MB are needed; make room or give \
                 another folder with --data",
                free >> 20,
                NEEDED >> 20
            );
        }
        Ok(folder)
    }

    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        free_bytes(&self.root).with_context(|| format!("asking for the free space of {}", self.root.display()))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    pub fn nats_config(&self) -> PathBuf {
        self.root.join("nats.conf")
    }

    pub fn nats_log(&self) -> PathBuf {
        self.root.join("nats.log")
    }

    pub fn archive(&self) -> PathBuf {
        archive_in(&self.root)
    }
}

pub fn archive_in(root: &Path) -> PathBuf {
    root.join("archive.db")
}

/// True while an `up` uses this folder.
pub fn runs_in(root: &Path) -> bool {
    let lock = File::options().read(true).open(root.join("lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Where the nats-server of this folder listens, or listened last.
pub fn nats_url(root: &Path) -> anyhow::Result<String> {
    let path = root.join("nats.conf");
    let config = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let address = natterjack_nats::server_config::listens(&config)
        .with_context(|| format!("{} names no address", path.display()))?;
    Ok(format!("nats://{address}"))
}

fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("lock");
    let name = path.display();
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot write {name}; does the folder belong to this user?"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            bail!(
                "another `natterjack up` (process {}) is using the folder {}; stop it, or give another folder with \
                 --data",
                pid.trim(),
                root.display()
            );
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {name}")),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_folder_serves_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::open(&dir.path().join("data")).unwrap();
        let again = DataFolder::open(&dir.path().join("data")).map(|_| ()).unwrap_err().to_string();
        assert!(again.contains(&format!("process {}", std::process::id())), "{again}");
        drop(first);
        DataFolder::open(&dir.path().join("data")).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(DataFolder::open(&file).map(|_| ()).unwrap_err().to_string().contains("--data"));
    }
}
