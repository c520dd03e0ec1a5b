//! What an access token says.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, UserId};

pub const ISSUER: &str = "natterjack";

/// Claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Always [`ISSUER`].
    pub iss: String,
    pub sub: UserId,
    pub device: DeviceId,
    /// The family of refresh tokens it came from.
    pub fam: String,
    /// Seconds since 1970.
    pub iat: u64,
    pub exp: u64,
}
