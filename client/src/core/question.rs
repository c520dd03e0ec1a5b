//! What the app asks an edge over the socket.

use natterjack_protocol::{
    MsgId,
    client::frame::{ClientFrame, HistoryQuery, Page, Request, ThreadSummary, ThreadsQuery},
};
use tokio::sync::oneshot;

use crate::error::RequestError;

/// The `threads` answer: one page of the list and how to turn it.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadList {
    pub threads: Vec<ThreadSummary>,
    pub next: Option<MsgId>,
    /// Of the first page: for what has changed since, later.
    pub synced: String,
}

/// A question of the app that goes over the socket. Both kinds only read, so they may be asked again on the next
/// connection.
pub(crate) enum Question {
    History(HistoryQuery, oneshot::Sender<Result<Page, RequestError>>),
    Threads(ThreadsQuery, oneshot::Sender<Result<ThreadList, RequestError>>),
}

impl Question {
    pub fn frame(&self, r: Request) -> ClientFrame {
        match self {
            Self::History(h, _) => ClientFrame::History(HistoryQuery { r, ..h.clone() }),
            Self::Threads(query, _) => ClientFrame::Threads(ThreadsQuery { r, ..query.clone() }),
        }
    }

    pub fn is_given_up(&self) -> bool {
        match self {
            Self::History(_, answer) => answer.is_closed(),
            Self::Threads(_, answer) => answer.is_closed(),
        }
    }

    pub fn fail(self, error: RequestError) {
        match self {
            Self::History(_, answer) => drop(answer.send(Err(error))),
            Self::Threads(_, answer) => drop(answer.send(Err(error))),
        }
    }
}
