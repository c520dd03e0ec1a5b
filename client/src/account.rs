//! The user's own account over HTTP: its password, where it is logged in, and ending that. As in `people`, a call whose
//! answer is lost asks again.

use natterjack_protocol::{
    DeviceId,
    client::http::{AccountDeleted, AccountDeletion, PasswordChange, SessionList, SessionsEnded, UserSession},
};
use reqwest::Method;

use crate::{client::Client, error::RequestError};

impl Client {
    /// The devices on which this user is logged in, this one first.
    pub async fn list_sessions(&self) -> Result<Vec<UserSession>, RequestError> {
        let list: SessionList = self.get("/v1/sessions").await?;
        Ok(list.sessions)
    }

    /// Ends the logins on a device: its sockets close, and it has to log in again. How many there were.
    pub async fn end_session(&self, device: &DeviceId) -> Result<u32, RequestError> {
        let done: SessionsEnded = self.change::<(), _>(Method::DELETE, &format!("/v1/sessions/{device}"), None).await?;
        Ok(done.ended)
    }

    /// Ends all logins of this user but this one.
    pub async fn end_other_sessions(&self) -> Result<u32, RequestError> {
        let done: SessionsEnded = self.change::<(), _>(Method::POST, "/v1/sessions/end_others", None).await?;
        Ok(done.ended)
    }

    /// Deletes this account for good; then the client is closed. Of an account without a password: with a token of its
    /// issuer that was made in the last ten minutes.
    pub async fn delete_account(&self, proof: AccountDeletion) -> Result<(), RequestError> {
        let _: AccountDeleted = self.change(Method::POST, "/v1/account/delete", Some(&proof)).await?;
        self.auth().forget().await?;
        self.close().await;
        Ok(())
    }

    /// Sets another password and ends all logins but this one. How many there were. A client that was built with the
    /// password has the old one: build the next one with the new one.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<u32, RequestError> {
        let change = PasswordChange { old: old.to_owned(), new: new.to_owned() };
        let done: SessionsEnded = self.change(Method::POST, "/v1/password", Some(&change)).await?;
        Ok(done.ended)
    }
}
