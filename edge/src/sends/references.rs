//! Step 2, for what speaks of another message (an edit, a recall, a reaction, a reply): is there one under that id in
//! this thread?
//!
//! The log says so for all it holds, which does not need the archive; what is older `history` looks up. With the
//! archive away nobody can tell about those, and they are taken: readers pass over what concerns nothing, and chat goes
//! on (P7).

use natterjack_nats::{LogError, LogRecord, ThreadLog, calls::history::is_message};
use natterjack_protocol::{
    Body, Code, Entry, Most, MsgId, Refusal, Thread, Times,
    log::{EntryView, fold::ThreadItem},
};

use crate::{history::HistoryClient, refusals::refuse};

#[derive(Clone)]
pub struct References {
    log: ThreadLog,
    history: HistoryClient,
    times: Times,
}

/// What the log alone says about an id.
enum InLog {
    Message(bool),
    /// Older than the log, or perhaps a copy that readers do not see.
    Unknown,
}

impl References {
    pub fn new(log: &ThreadLog, history: &HistoryClient, times: &Times) -> Self {
        Self { log: log.clone(), history: history.clone(), times: times.clone() }
    }

    /// `item`: what its author may read of the thread. What they may not read is not there for them.
    pub async fn check(&self, thread: &Thread, item: Option<&ThreadItem>, body: &Body) -> Result<(), Refusal> {
        for (field, id) in body.references() {
            let theirs = item.is_none_or(|i| i.intervals.covers(id));
            if !theirs || !self.is_message(thread, id).await? {
                return Err(no_message(field));
            }
        }
        Ok(())
    }

    async fn is_message(&self, thread: &Thread, id: MsgId) -> Result<bool, Refusal> {
        match self.in_log(thread, id).await {
            Ok(InLog::Message(is)) => return Ok(is),
            Ok(InLog::Unknown) => {}
            Err(e) => return Err(refuse(e)),
        }
        metrics::counter!(crate::metrics::REFERENCE_LOOKUPS).increment(1);
        match self.history.ask(is_message(thread.clone(), id)).await {
            Err(e) if e.code == Code::Unavailable => {
                metrics::counter!(crate::metrics::REFERENCES_UNCHECKED).increment(1);
                Ok(true)
            }
            answer => answer,
        }
    }

    async fn in_log(&self, thread: &Thread, id: MsgId) -> Result<InLog, LogError> {
        let before = MsgId(id.0.saturating_sub(1));
        match self.log.after(thread, before, id, Most::count(1)).await?.pop() {
            Some(record) => Ok(self.judge(&record)),
            // Nothing of this thread. Below what the log still has that says nothing.
            None if id < self.log.extent(thread).await?.first => Ok(InLog::Unknown),
            None => Ok(InLog::Message(false)),
        }
    }

    fn judge(&self, record: &LogRecord) -> InLog {
        let late =
            !record.control && EntryView::parse(&record.payload).is_ok_and(|e| e.is_late(record.ts, &self.times));
        if late {
            return InLog::Unknown;
        }
        InLog::Message(Entry::on(record.control, &record.payload).is_ok_and(|e| e.kind.is_message()))
    }
}

fn no_message(field: &str) -> Refusal {
    Refusal::invalid(format!("{field}: there is no such message in this thread"))
}
