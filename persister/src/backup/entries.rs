//! A part of the log, and keys of the control bucket, as lines of JSON. Payloads are bytes, so in base64.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_nats::Record;
use natterjack_protocol::MsgId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    LogCopy,
    folder::{FolderError, at},
};

#[derive(Serialize, Deserialize)]
struct Entry {
    id: MsgId,
    ts: u64,
    subject: String,
    payload: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Key {
    pub key: String,
    pub value: String,
}

impl Key {
    pub fn new(key: String, value: &[u8]) -> Self {
        Self { key, value: BASE64_STANDARD.encode(value) }
    }

    pub fn bytes(&self, of: &Path) -> Result<Vec<u8>, FolderError> {
        decode(of, &self.value)
    }
}

pub(super) struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        Ok(Self { path: path.to_owned(), file: BufWriter::new(File::create(path).map_err(at(path))?) })
    }

    pub fn write<T: Serialize>(&mut self, line: &T) -> Result<(), FolderError> {
        let line = serde_json::to_vec(line).expect("lines have string keys and plain values");
        self.file.write_all(&line).and_then(|()| self.file.write_all(b"\n")).map_err(at(&self.path))
    }

    pub fn record(&mut self, log: &LogCopy, record: &Record) -> Result<(), FolderError> {
        let (subject, payload) =
            (record.subject(log.generation, log.partition), BASE64_STANDARD.encode(record.payload()));
        self.write(&Entry { id: record.id(), ts: record.ts(), subject, payload })
    }

    pub fn end(mut self) -> Result<(), FolderError> {
        self.file.flush().map_err(at(&self.path))
    }
}

/// The records of a file that [`Lines::record`] wrote, one after the other.
pub(super) fn records<'a>(
    path: &'a Path,
    log: &'a LogCopy,
) -> Result<impl Iterator<Item = Result<Record, FolderError>> + 'a, FolderError> {
    let entries = lines::<Entry>(path)?;
    Ok(entries.map(|entry| {
        let Entry { id, ts, subject, payload } = entry?;
        Ok(Record::stored(log.generation, log.partition, (id, ts), subject, decode(path, &payload)?.into()))
    }))
}

pub(super) fn lines<'a, T: DeserializeOwned>(
    path: &'a Path,
) -> Result<impl Iterator<Item = Result<T, FolderError>> + 'a, FolderError> {
    let file = BufReader::new(File::open(path).map_err(at(path))?);
    Ok(file.lines().map(|line| serde_json::from_str(&line.map_err(at(path))?).map_err(|e| broken(path, &e))))
}

fn decode(path: &Path, text: &str) -> Result<Vec<u8>, FolderError> {
    BASE64_STANDARD.decode(text).map_err(|e| broken(path, &e))
}

/// The sum was right, so this was written so: a bug of the build that made it, or a hand.
fn broken(path: &Path, why: &dyn std::fmt::Display) -> FolderError {
    FolderError::Manifest { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use natterjack_nats::LogRecord;

    use super::*;

    #[test]
    fn every_sort_of_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogCopy {
            generation: 2,
            partition: 1,
            watermark: MsgId(0),
            watermark_ts: 0,
            last: MsgId(4),
            entries: 4,
            holes: Vec::new(),
        };
        let entry = |id: u64, control| {
            let thread = "dm.a.b".parse().unwrap();
            Record::Entry(LogRecord {
                id: MsgId(id),
                ts: 7,
                thread,
                control,
                payload: Bytes::from_static(&[0, 255, 10]),
            })
        };
        let poison = Record::UnknownSubject {
            id: MsgId(3),
            ts: 8,
            subject: "chat.2.1.x".into(),
            payload: Bytes::from_static(b"?"),
        };
        let all = vec![entry(1, false), entry(2, true), poison, Record::End { id: MsgId(4), ts: 9 }];
        let mut lines = Lines::create(&path).unwrap();
        all.iter().for_each(|r| lines.record(&log, r).unwrap());
        lines.end().unwrap();
        assert_eq!(records(&path, &log).unwrap().collect::<Result<Vec<_>, _>>().unwrap(), all);
        std::fs::write(&path, "{\"id\":1}\n").unwrap();
        assert!(records(&path, &log).unwrap().next().unwrap().is_err());
    }
}
