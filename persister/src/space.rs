//! Whether there is room for what comes: on the disk of the archive, if that is a file, and in the log. Looked at every
//! minute.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use natterjack_nats::{Layout, LogUsage, Nats};
use natterjack_runtime::resources::free_bytes;

const EVERY: Duration = Duration::from_secs(60);
/// Below this somebody has to act: at 1,000 messages a second it is 45 minutes.
const LEAST: u64 = 1 << 30;
/// Of a short message in the SQLite file, indexes included (docs/operations.md).
const PER_MESSAGE: u64 = 380;

/// `folder`: of the archive, if it is a file here.
pub async fn watch(nats: Nats, folder: Option<PathBuf>) {
    loop {
        if let Some(Ok(free)) = folder.as_deref().map(free_bytes) {
            metrics::gauge!(crate::metrics::DISK_FREE_BYTES).set(free as f64);
            if let Err(why) = disk(free) {
                tracing::warn!("the archive's disk: {why}");
            }
        }
        if let Ok(layout) = Layout::load(&nats).await
            && let Ok(Some(room)) = LogUsage::of(&nats, &layout).await
        {
            metrics::gauge!(crate::metrics::LOG_USED_RATIO).set(room.used as f64 / room.max as f64);
            if let Err(why) = room.check() {
                tracing::warn!("the log: {why}");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Of the file's folder, which is this one if the file is named without any.
pub fn folder(archive: &Path) -> PathBuf {
    archive.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

pub fn disk(free: u64) -> Result<String, String> {
    let text = format!("{} MiB free, for about {} short messages", free >> 20, free / PER_MESSAGE);
    if free < LEAST {
        return Err(format!(
            "{text}; when it is full nothing is archived, and sends are refused before the log forgets any: make room"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_is_named_with_what_to_do() {
        assert!(disk(4 << 30).unwrap().contains("4096 MiB free"));
        let why = disk(500 << 20).unwrap_err();
        assert!(why.contains("500 MiB") && why.contains("nothing is archived") && why.contains("make room"), "{why}");
        assert_eq!(folder(Path::new("archive.db")), Path::new("."));
        assert_eq!(folder(Path::new("/data/archive.db")), Path::new("/data"));
    }
}
