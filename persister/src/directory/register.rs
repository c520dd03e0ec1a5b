//! Making an account: the row in the store first (the name is decided there), then the user's empty list of threads in KV, whose presence
//! says to everybody else that the user exists. A crash between the two is healed by the next login.

use natterjack_protocol::{Code, DeviceId, Refusal, limits, rpc::DirectoryAnswer};

use super::{Directory, now_ms, password_refusal, store_refusal, token_refusal};
use crate::{
    store::{
        Store,
        accounts::{Accounts, Added, NewUser},
    },
    tokens::mint_id,
};

/// Names are ASCII, so that two that look alike are alike, and case can be ignored without a table.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = (limits::USER_NAME_MIN..=limits::USER_NAME_CHARS).contains(&name.len());
    fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(super) fn password_fits(password: &str) -> bool {
    limits::PASSWORD_CHARS.contains(&password.chars().count())
}

impl<S: Store + Accounts> Directory<S> {
    pub(super) async fn register(&self, name: String, password: String, device: DeviceId) -> Result<DirectoryAnswer, Refusal> {
        let place = self.password_place()?;
        if !is_name(&name) {
            let (min, max) = (limits::USER_NAME_MIN, limits::USER_NAME_CHARS);
            return Err(Refusal::invalid(format!("name: {min} to {max} characters of A-Z a-z 0-9 . _ and -")));
        }
        if !password_fits(&password) {
            let (min, max) = (limits::PASSWORD_CHARS.start(), limits::PASSWORD_CHARS.end());
            return Err(Refusal::invalid(format!("password: {min} to {max} characters")));
        }
        let secret = self.passwords.hash(&place, password).await.map_err(password_refusal)?;
        let user = mint_id('u').map_err(token_refusal)?;
        let new = NewUser { user: user.clone(), name: name.clone(), secret, created: now_ms() };
        match self.store.add_user(new).await.map_err(store_refusal)? {
            Added::Done => {}
            Added::NameTaken => return Err(Refusal::new(Code::Conflict, "this name is taken")),
        }
        if let Err(e) = self.buckets.create_empty_threads(&user).await {
            tracing::warn!(%user, error = %e, "an account was made but not its list of threads; its first login will");
            return Err(Refusal::unavailable("the account was made; log in with it in a moment"));
        }
        self.open_session(user, name, device).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["al", "Alice", "a.b_c-9", &"x".repeat(32)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "a b", "älice", "a\0b", "a*", "a/b", "al\n", &"x".repeat(33)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        assert!(password_fits(&"ü".repeat(256)));
        assert!(!password_fits(&"ü".repeat(257)) && !password_fits("seven 7"));
    }
}
