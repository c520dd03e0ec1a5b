//! What a client sees: frames, events, HTTP bodies, close codes, and the rules that client and edge share.

pub mod address;
pub mod close;
pub mod event;
pub mod frame;
pub mod http;
pub mod message;
pub mod poll;
pub mod presence;
pub mod schema;
pub mod send_queue;
pub mod thread_settings;
