//! A copy of a running system in one folder, and a new system from it.
//!
//! The archive is copied first, as of one moment, then what the log has above its watermarks: whatever was acknowledged
//! before the copy was begun is in one of the two. Everything else is made again from them, but for two sorts of keys
//! in the control bucket, which are copied as well: those that check the access tokens that are out, and the logins
//! that are over.
//!
//! A restored system goes on in a new generation of the log, above every id that the copy knows. What was acknowledged
//! after the copy is lost; its ids are not given again.

mod entries;
mod folder;
mod manifest;
mod restore;
mod take;

pub use folder::{FolderError, manifest as read};
pub use manifest::{FORMAT, LogCopy, Manifest, Origin};
pub use restore::{RestoreError, Restored, restore, target_is_empty};
pub use take::{BackupError, Source, take};
