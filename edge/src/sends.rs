//! Step 2: messages on their way into the log, from a socket or over HTTP.

pub mod batch;
pub mod http;
pub mod references;
pub mod send;
