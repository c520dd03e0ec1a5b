//! Our own NATS client: what `async-nats` does not do, or does too dearly. Nothing in here knows what a message, a
//! thread or a role is.
//!
//! [README.md](wire/README.md) says of each file which feature of `async-nats` would let it go.

pub(crate) mod client;
pub(crate) mod core;
pub(crate) mod inbox;
pub(crate) mod jetstream;
pub(crate) mod login;
pub(crate) mod pull;
pub(crate) mod raw;
pub(crate) mod rfc3339;
pub(crate) mod tls;

pub(crate) use async_nats::HeaderMap;
