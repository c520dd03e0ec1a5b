//! The contract, held from outside: golden bytes of everything on the wire, in the log and in KV; what broken bytes are
//! answered; the rules at their edges; and docs/protocol.md, whose tables and examples come from here.
//!
//! `NATTERJACK_REGENERATE=1` writes the fixtures and the generated parts of the document anew.
//! A change of either is a change of the protocol: say so in the commit.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside the functions that clippy knows as such")]

mod bad_input;
mod bodies;
mod document;
mod fixture;
mod form;
mod golden;
mod membership;
mod mutation;
mod naive;
mod once;
mod rooms;
mod samples;
mod scenarios;
mod schema;
mod tables;
mod tree;
