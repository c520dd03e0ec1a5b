//! What operators ask of `directory`: accounts by name. Whoever may send these on NATS may do all of it.

use serde::{Deserialize, Serialize};

use crate::{
    client::http::UserSession,
    ids::{Token, UserId},
};

/// Accounts that one invite makes at most: who used it stands in one value of the store.
pub const INVITE_USES: u32 = 1_000;

/// `name`: of an account, as its user would type it; or its id.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRequest {
    /// Some accounts, in an order of the store's own: those behind this one.
    List {
        after: Option<UserId>,
    },
    Show {
        name: String,
    },
    /// Ends all logins.
    Logout {
        name: String,
    },
    /// Ends all logins, and there are no new ones until it is enabled.
    Disable {
        name: String,
    },
    Enable {
        name: String,
    },
    /// Sets a password and ends all logins.
    SetPassword {
        name: String,
        password: String,
    },
    /// Gives an account another name. The old one is nobody else's for a while.
    Rename {
        name: String,
        new: String,
    },
    /// Ends an account for good.
    Delete {
        name: String,
    },
    /// A new invite for so many accounts, at most [`INVITE_USES`], good for so many milliseconds.
    Invite {
        uses: u32,
        good_for: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    pub user: UserId,
    pub name: String,
    /// Milliseconds since 1970.
    pub created: u64,
    pub disabled: bool,
    /// It has no name any more.
    pub deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorAnswer {
    /// Empty: that was the end.
    Accounts(Vec<AccountRow>),
    Account {
        account: AccountRow,
        sessions: Vec<UserSession>,
    },
    /// It is so now; how many logins this ended.
    Done {
        account: AccountRow,
        ended: u32,
    },
    /// `expires`: milliseconds since 1970.
    Invite {
        code: Token,
        expires: u64,
    },
}
