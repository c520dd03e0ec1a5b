//! What an error of SQLite means for whoever asks the store.

use rusqlite::ErrorCode;

use crate::store::ArchiveError;

impl From<rusqlite::Error> for ArchiveError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &e {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..) => Self::Corrupt(e.to_string()),
            E::SqliteFailure(f, _) => match f.code {
                ErrorCode::ConstraintViolation => Self::Constraint(e.to_string()),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(e.to_string()),
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::SchemaChanged
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::OperationInterrupted => Self::Unavailable(e.to_string()),
                _ => Self::Failed(e.to_string()),
            },
            _ => Self::Failed(e.to_string()),
        }
    }
}

/// A stored value that cannot be understood, as an error of the column it came from.
pub(crate) fn bad_column(index: usize, why: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, Box::new(why))
}
