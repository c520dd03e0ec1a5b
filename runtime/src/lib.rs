//! What every process needs before its first job: configuration, telemetry, health, shutdown, and a small admin server.
//!
//! Nothing here knows what a message is; the order in which a process uses these parts is the checklist in
//! `natterjack/src/main.rs`.

pub mod admin;
pub mod clock;
pub mod config;
pub mod health;
pub mod lifecycle;
mod metrics;
pub mod networks;
pub mod resources;
pub mod seldom;
pub mod telemetry;

pub use health::Health;
pub use lifecycle::Lifecycle;
pub use resources::Resources;
