//! Accounts, logins and their tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    client::frame::DeviceClass,
    ids::{DeviceId, Token, UserId},
    schema::{
        Time,
        texts::{Password, UserName},
    },
};

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    #[schema(value_type = UserName)]
    pub name: String,
    #[schema(value_type = Password)]
    pub password: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// An account to be made.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = NewAccount)]
pub struct Registration {
    #[schema(value_type = UserName)]
    pub name: String,
    #[schema(value_type = Password)]
    pub password: String,
    /// Of this device; one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The code of an invite, where the operator asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<Token>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalToken {
    /// A signed JWT of the configured issuer (RS256, ES256 or EdDSA), of at most 16,384 bytes.
    pub token: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RefreshToken {
    /// Of the last answer that had one.
    pub refresh: String,
}

/// What a login gives. Neither token is ever logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    pub user: UserId,
    pub name: String,
    pub device: DeviceId,
    /// For `hello` and `Authorization: Bearer`.
    pub access: String,
    /// The access token is good for so many seconds from the answer on: count them by a monotonic clock.
    pub expires_in: u64,
    /// Opaque. Each use gives a new one; using an old one again revokes the whole family.
    pub refresh: String,
}

/// The login of this token is over, or there was none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LoggedOut {
    #[schema(example = true)]
    pub logged_out: bool,
}

/// A device on which the user is logged in. Without `class` it has not connected yet, or what is known of it cannot be
/// read now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Session)]
pub struct UserSession {
    pub device: DeviceId,
    /// As the device calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DeviceClass>,
    /// Name and version of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The edge to which it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// When it logged in.
    #[schema(value_type = Time)]
    pub since: u64,
    /// When it connected or, if it is not connected, when it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    pub last_active: Option<u64>,
    pub connected: bool,
    /// The device that asks.
    pub this: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Sessions)]
pub struct SessionList {
    pub sessions: Vec<UserSession>,
}

/// They are over: their refresh tokens, their access tokens, their sockets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Ended)]
pub struct SessionsEnded {
    /// Logins that this request ended; 0 if they were over already.
    pub ended: u32,
}

// No `Debug`: it holds a secret.
/// The password, or a token of the external issuer where the account has none.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct AccountDeletion {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Password>)]
    pub password: Option<String>,
    /// Made in the last ten minutes, as its `iat` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The account is no more.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountDeleted {
    #[schema(example = true)]
    pub deleted: bool,
}

/// No `Debug`: it holds secrets.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PasswordChange {
    #[schema(value_type = Password)]
    pub old: String,
    #[schema(value_type = Password)]
    pub new: String,
}
