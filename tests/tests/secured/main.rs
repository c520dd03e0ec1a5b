//! A NATS that lets in only whom it knows: every role over TLS, with a login of each kind, and with no more permissions
//! than it needs.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic with its place is the report")]

mod doctor;
mod roles;
