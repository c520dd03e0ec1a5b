//! The folder of a backup: made, summed up, checked.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::manifest::{FORMAT, Manifest, NAME, Sum};

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is not empty; name a folder that is not there yet, or an empty one")]
    NotEmpty(PathBuf),
    #[error("{0} is not a backup: it has no {NAME}. A backup that was interrupted has none, either")]
    NotABackup(PathBuf),
    #[error("{path} cannot be read: {why}")]
    Manifest { path: PathBuf, why: String },
    #[error(
        "the backup has format {found}, this build knows {FORMAT}: use the build that made it, natterjack {made_by}, \
         or a newer one"
    )]
    Newer { found: u64, made_by: String },
    #[error("{0} of the backup is missing")]
    Missing(String),
    #[error("{0} of the backup is damaged: it is not what {NAME} says. Use another copy of it")]
    Damaged(String),
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// Makes it, if it is not there.
pub(super) fn make(folder: &Path) -> Result<(), FolderError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    match fs::read_dir(folder).map_err(at(folder))?.next() {
        None => Ok(()),
        Some(_) => Err(FolderError::NotEmpty(folder.to_owned())),
    }
}

/// Sums up every file in it, and brings all of it to the disk.
pub(super) fn sums(folder: &Path) -> Result<BTreeMap<String, Sum>, FolderError> {
    let mut sums = BTreeMap::new();
    for (name, path) in files(folder, "")? {
        sums.insert(name, sum(&path)?);
        File::open(&path).and_then(|f| f.sync_all()).map_err(at(&path))?;
    }
    Ok(sums)
}

/// Beside, and then renamed: it is there whole or not at all.
pub(super) fn seal(folder: &Path, manifest: &Manifest) -> Result<(), FolderError> {
    let (path, part) = (folder.join(NAME), folder.join("manifest.part"));
    let text = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys and plain values");
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(at(&path))
}

/// The manifest, after every file was compared with it.
pub(super) fn check(folder: &Path) -> Result<Manifest, FolderError> {
    let manifest = manifest(folder)?;
    for (name, wanted) in &manifest.files {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(FolderError::Missing(name.clone()));
        }
        if sum(&path)? != *wanted {
            return Err(FolderError::Damaged(name.clone()));
        }
    }
    // Of each partition there is a file, whatever a hand has taken out of the list.
    match manifest.logs.iter().map(super::LogCopy::file).find(|name| !manifest.files.contains_key(name)) {
        Some(name) => Err(FolderError::Missing(name)),
        None => Ok(manifest),
    }
}

/// What the folder says it is; its files are not looked at.
pub fn manifest(folder: &Path) -> Result<Manifest, FolderError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(FolderError::NotABackup(folder.to_owned()));
        }
        Err(e) => return Err(at(&path)(e)),
    };
    let unreadable = |why: serde_json::Error| FolderError::Manifest { path: path.clone(), why: why.to_string() };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(unreadable)?;
    // Of a newer format nothing else can be relied on.
    if let Some(found) = value["format"].as_u64().filter(|f| *f > u64::from(FORMAT)) {
        return Err(FolderError::Newer { found, made_by: value["natterjack"].as_str().unwrap_or("?").to_owned() });
    }
    serde_json::from_value(value).map_err(unreadable)
}

/// Everything below it by name, but for the manifest.
fn files(folder: &Path, prefix: &str) -> Result<Vec<(String, PathBuf)>, FolderError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            all.extend(files(&path, &format!("{name}/"))?);
        } else {
            all.push((name, path));
        }
    }
    Ok(all)
}

fn sum(path: &Path) -> Result<Sum, FolderError> {
    let mut file = File::open(path).map_err(at(path))?;
    let (mut hash, mut bytes, mut part) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).map_err(at(path))? {
            0 => break,
            n => {
                hash.update(&part[..n]);
                bytes += n as u64;
            }
        }
    }
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Sum { bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use natterjack_protocol::MsgId;

    use crate::backup::{LogCopy, Origin};

    fn backup() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let log = LogCopy {
            generation: 3,
            partition: 0,
            watermark: MsgId(5),
            watermark_ts: 1,
            last: MsgId(9),
            entries: 4,
            holes: Vec::new(),
        };
        fs::create_dir(dir.path().join("archive")).unwrap();
        fs::write(dir.path().join("archive/one"), "one").unwrap();
        fs::write(dir.path().join(log.file()), "two").unwrap();
        let manifest = Manifest {
            format: FORMAT,
            natterjack: "0.1".into(),
            begun_ms: 7,
            origin: Origin::Cql,
            generation: 3,
            partitions: 1,
            kv_shards: 2,
            logs: vec![log],
            files: sums(dir.path()).unwrap(),
        };
        seal(dir.path(), &manifest).unwrap();
        (dir, manifest)
    }

    #[test]
    fn what_was_made_is_found_whole() {
        let (dir, manifest) = backup();
        assert_eq!(check(dir.path()).unwrap(), manifest);
        assert_eq!(manifest.highest().0, 9);
        assert_eq!(manifest.files["archive/one"].bytes, 3);
        assert!(matches!(make(dir.path()), Err(FolderError::NotEmpty(_))));
    }

    #[test]
    fn a_folder_that_is_none_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        for folder in [dir.path().to_owned(), dir.path().join("not-there")] {
            assert!(matches!(check(&folder), Err(FolderError::NotABackup(_))));
        }
        fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(matches!(check(dir.path()), Err(FolderError::Manifest { .. })));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(check(&dir.path().join("file")), Err(FolderError::NotABackup(_))));
    }

    #[test]
    fn damage_and_loss_and_a_newer_format_are_named() {
        let (dir, _) = backup();
        fs::write(dir.path().join("archive/one"), "onf").unwrap();
        assert!(matches!(check(dir.path()), Err(FolderError::Damaged(name)) if name == "archive/one"));
        fs::remove_file(dir.path().join("log-3-0.jsonl")).unwrap();
        fs::write(dir.path().join("archive/one"), "one").unwrap();
        assert!(matches!(check(dir.path()), Err(FolderError::Missing(name)) if name == "log-3-0.jsonl"));
        let (dir, manifest) = backup();
        let mut value = serde_json::to_value(&manifest).unwrap();
        value["files"].as_object_mut().unwrap().remove("log-3-0.jsonl");
        fs::write(dir.path().join(NAME), value.to_string()).unwrap();
        assert!(matches!(check(dir.path()), Err(FolderError::Missing(_))), "not on the list is missing, too");
        value["format"] = 2.into();
        value["logs"] = "something else by then".into();
        fs::write(dir.path().join(NAME), value.to_string()).unwrap();
        let newer = check(dir.path()).unwrap_err();
        assert!(matches!(&newer, FolderError::Newer { found: 2, made_by } if made_by == "0.1"), "{newer}");
        assert!(newer.to_string().contains("natterjack 0.1"), "{newer}");
    }
}
