//! What the archive never got, for `natterjack doctor`: a subject of its own, so that who may ask for it may not read
//! what people wrote.

use natterjack_nats::{Nats, ServeError, Service, serve, subjects};
use natterjack_protocol::{
    Code, Refusal,
    internal::rpc::{LossesRequest, LostIds},
};

use crate::store::{ArchiveStore, LostRange};

/// Somebody looks now and then.
const CONCURRENCY: usize = 2;

/// Serves until it is drained or dropped.
pub async fn start<S: ArchiveStore>(nats: &Nats, store: S) -> Result<Service, ServeError> {
    let answer = move |LossesRequest| {
        let store = store.clone();
        async move {
            match store.lost().await {
                Ok(lost) => Ok(lost.iter().map(told).collect::<Vec<_>>()),
                Err(e) => {
                    tracing::warn!(error = %e, "the archive does not say what was lost");
                    Err(Refusal::new(Code::Unavailable, "the archive does not say what was lost; try again"))
                }
            }
        }
    };
    serve(nats, subjects::LOSSES.into(), Some(subjects::LOSSES), CONCURRENCY, answer).await
}

fn told(l: &LostRange) -> LostIds {
    LostIds {
        generation: l.key.generation,
        partition: l.key.partition,
        first: l.first,
        last: l.last,
        since: l.since,
        until: l.until,
    }
}
