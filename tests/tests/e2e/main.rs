//! End-to-end tests over real processes and sockets: one binary, one module per promise.
#![allow(clippy::unwrap_used, reason = "tests: a panic with its place is the report")]

mod first_light;
mod from_a_phone;
mod full_screen;
mod kit;
mod loads;
mod start_and_stop;
mod two_phones;
mod up;
