//! `crate::store::accounts` as the conformance suite knows it.

pub use natterjack_persister::store::accounts::*;

#[path = "../../src/store/accounts/conformance.rs"]
pub mod conformance;
