//! Logging in with a token of somebody else: whom it is about becomes a user here at the first time, and is the same
//! one ever after.

use natterjack_protocol::{Code, DeviceId, Refusal, client::http::Profile, internal::rpc::DirectoryAnswer};

use super::{Directory, issuer, store_refusal, token_refusal};
use crate::{
    store::{
        ArchiveStore,
        accounts::{Accounts, Joined, Login, NewExternal},
    },
    tokens::mint_id,
};

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn login_external(&self, token: &str, device: DeviceId) -> Result<DirectoryAnswer, Refusal> {
        let Some(issuer) = &self.issuer else {
            return Err(Refusal::new(Code::NotFound, "tokens of others are not taken here: no issuer is configured"));
        };
        let person = issuer.check(token).await?;
        let rules = issuer.rules();
        let known = self.store.login(&rules.issuer, &person.subject).await.map_err(store_refusal)?;
        let (profile, made) = match known {
            Some(login) => (Profile::named(login.user, login.name), false),
            None => {
                let new = NewExternal {
                    issuer: rules.issuer.clone(),
                    names: rules.names(&person),
                    subject: person.subject,
                    user: mint_id('u').map_err(token_refusal)?,
                    created: self.time.now_ms(),
                };
                let Joined { profile, made } = self.store.join(new).await.map_err(store_refusal)?;
                (profile, made)
            }
        };
        if made {
            if let Err(e) = self.make_keys(&profile.user).await {
                let user = &profile.user;
                tracing::warn!(%user, error = %e, "an account was made but not its keys; its next login will");
                return Err(Refusal::unavailable(
                    "the account was made, but cannot be used yet; try the same again in a moment",
                ));
            }
            tracing::info!(user = %profile.user, "an account was made for an external login");
        } else {
            self.heal(&profile.user).await;
        }
        issuer::count(if made { "first" } else { "ok" });
        let Profile { user, name, .. } = profile;
        self.open_session(Login { user, name, secret: String::new() }, device).await
    }
}
