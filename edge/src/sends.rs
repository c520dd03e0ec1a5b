//! Step 2: messages on their way into the log, in the order of their device, from its socket (`connection`) and over
//! HTTP (`http`) alike. `device` keeps that order, `send` and `batch` publish.

pub mod batch;
pub mod connection;
pub mod device;
pub mod http;
pub mod log_condition;
pub mod membership;
pub mod references;
pub mod send;
