//! The path of a message through the persister, on a real nats-server and a real file: what was acknowledged is in
//! every answer of `history` from then on, around the watermark too, with the store away, after crashes, with two
//! persisters.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod archive;
mod away;
mod backup;
mod generations;
mod health;
mod kit;
mod later;
mod pages;
mod sizes;
