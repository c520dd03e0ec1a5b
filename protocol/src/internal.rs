//! What roles say to each other: requests, live messages, values in KV, tokens. No client sees any of it.

pub mod claims;
pub mod cursors;
pub mod devices;
pub mod kv;
pub mod live;
pub mod operator;
pub mod presence;
pub mod rpc;
pub mod thread_settings;
