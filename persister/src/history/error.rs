//! Why there is no answer, and what is said of it.

use natterjack_nats::{LayoutError, LogError};
use natterjack_protocol::{Code, Refusal};

use crate::store::ArchiveError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Store(#[from] ArchiveError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What was read is older than what the asker knows to exist.
    #[error("what was read is not up to date")]
    Stale,
    /// The archive does not answer (or is behind), and the log does not reach back to what was asked for, or has too
    /// much above it.
    #[error("the archive does not answer or is behind, and the log alone cannot tell")]
    OutOfReach,
    #[error("too much happened since this message was first sent to find out whether it was stored")]
    ResendTooOld,
}

impl From<HistoryError> for Refusal {
    fn from(e: HistoryError) -> Self {
        match e {
            HistoryError::ResendTooOld => Self::new(Code::ResendTooOld, e.to_string()),
            HistoryError::Store(ArchiveError::Unavailable(_)) | HistoryError::OutOfReach => {
                Self::unavailable("older messages cannot be read at the moment; try again in a while")
            }
            HistoryError::Store(_) => {
                tracing::error!(error = %e, "the archive cannot be read");
                Self::new(Code::Internal, "the archive cannot be read; the operator has to look")
            }
            HistoryError::Log(_) | HistoryError::Layout(_) | HistoryError::Stale => {
                tracing::warn!(error = %e, "history could not answer");
                Self::unavailable("the newest messages cannot be read at the moment; try again")
            }
        }
    }
}
