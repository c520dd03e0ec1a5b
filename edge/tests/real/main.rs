//! The front of an edge against a real nats-server, real sockets and a log that is stored; `channel`, `history` and
//! `directory` answer as far as the front needs them. What the parts do together is shown by the end-to-end tests.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;
mod attach;
mod bad_input;
mod connections;
mod document;
mod drain;
mod heartbeat;
mod http;
mod kit;
mod sends;
mod slow;
mod websocket;
