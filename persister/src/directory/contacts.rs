//! Contacts: ask, accept, remove. The store changes both sides at once; a hint then tells both users' devices to ask
//! again.

use natterjack_nats::subjects;
use natterjack_protocol::{
    Code, Most, Refusal, Thread, UserId,
    client::http::ContactChange,
    internal::{live::Ephemeral, rpc::DirectoryAnswer},
    limits,
};

use super::{Directory, kv_refusal, store_refusal};
use crate::store::accounts::{Accounts, CONTACT_ROWS, ContactOutcome, name_key};

fn no_such_user() -> Refusal {
    Refusal::new(Code::NotFound, "no such user")
}

impl<S: Accounts> Directory<S> {
    pub(super) async fn contacts(&self, actor: &UserId, after: Option<String>) -> Result<DirectoryAnswer, Refusal> {
        let mut all = self.store.contacts(actor).await.map_err(store_refusal)?;
        if let Some(after) = after.map(|name| name_key(&name)) {
            all.retain(|c| name_key(&c.name) > after);
        }
        let had = all.len();
        Most { count: CONTACT_ROWS, bytes: limits::ANSWER_BYTES }.keep_first(&mut all);
        Ok(DirectoryAnswer::Contacts { more: all.len() < had, contacts: all })
    }

    pub(super) async fn contact(
        &self,
        actor: &UserId,
        other: &UserId,
        change: ContactChange,
    ) -> Result<DirectoryAnswer, Refusal> {
        if actor == other {
            return Err(Refusal::invalid("path: user: nobody is their own contact"));
        }
        if change == ContactChange::Request {
            self.not_blocked(actor, other).await?;
        }
        let full = |why: String| Refusal::new(Code::LimitReached, why);
        match self.store.change_contact(actor, other, change).await.map_err(store_refusal)? {
            ContactOutcome::Is { state, changed } => {
                if changed {
                    self.hint(&[actor, other]).await;
                }
                Ok(DirectoryAnswer::Contact(state))
            }
            ContactOutcome::NothingToAccept => {
                Err(Refusal::new(Code::NotFound, "there is no request of theirs to accept"))
            }
            ContactOutcome::NoSuchUser => Err(no_such_user()),
            ContactOutcome::Full => {
                Err(full(format!("your list of contacts and requests is full ({})", limits::CONTACTS)))
            }
            ContactOutcome::OtherFull => Err(full(format!(
                "{} requests wait for an answer of theirs; they can ask you",
                limits::CONTACT_REQUESTS
            ))),
        }
    }

    /// Who is blocked cannot get at the other by a request either.
    async fn not_blocked(&self, actor: &UserId, other: &UserId) -> Result<(), Refusal> {
        let dm = Thread::dm(actor, other);
        let threads = self.buckets.threads(actor).load_part(dm.hash64()).await.map_err(kv_refusal)?;
        match threads.and_then(|(t, _)| t.threads.get(&dm).map(|i| i.blocked_by)) {
            Some(true) => {
                // Whoever has deleted their account takes none either.
                let profiles = self.store.profiles(std::slice::from_ref(other)).await.map_err(store_refusal)?;
                if profiles.iter().all(|p| p.deleted) {
                    return Err(no_such_user());
                }
                Err(Refusal::new(Code::Blocked, "this person does not take requests from you"))
            }
            _ => Ok(()),
        }
    }

    /// Only a hint, so a loss is nothing: the truth is pulled.
    pub(super) async fn hint(&self, users: &[&UserId]) {
        let payload = Ephemeral::Contacts.encode();
        for user in users {
            if let Err(e) = self.nats.publish(subjects::live_user_x(user), payload.clone()).await {
                tracing::debug!(error = %e, "a hint about contacts was not sent");
            }
        }
    }
}
