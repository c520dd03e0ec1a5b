//! Who may come in, and how often: limits per address and per user, and whose address counts.

pub mod address_quota;
pub mod client_address;
pub mod forwarded;
pub mod keyed_rate;
pub mod limits;
pub mod logins;
