//! `crate::store` as the conformance suite knows it, from outside of the crate.

pub use natterjack_persister::store::*;

#[path = "../../src/store/conformance.rs"]
pub mod conformance;

#[path = "accounts.rs"]
pub mod accounts;
