//! End-to-end tests over real processes and sockets: one binary, one module per promise.
#![allow(clippy::unwrap_used, reason = "tests: a panic with its place is the report")]

#[path = "e2e/first_light.rs"]
mod first_light;
#[path = "e2e/from_a_phone.rs"]
mod from_a_phone;
#[path = "e2e/full_screen.rs"]
mod full_screen;
#[path = "e2e/kit.rs"]
mod kit;
#[path = "e2e/start_and_stop.rs"]
mod start_and_stop;
#[path = "e2e/up.rs"]
mod up;
