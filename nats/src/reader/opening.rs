//! A consumer is made for a reader: at its position, unless the log has lost what was read of it.

use std::time::Duration;

use natterjack_protocol::MsgId;

use super::ReadError;
use crate::{
    layout::Layout,
    leader_read::{LeaderReader, LogError},
    wire::{
        client::Nats,
        jetstream::{JsError, code},
        pull::{
            Pull, PullMode,
            consumer::{Consumer, DeliverFrom},
        },
        raw::RawConnection,
    },
};

/// For a connection of its own. The consumer waits for 5 s.
const CONNECT: Duration = Duration::from_millis(2_500);

/// Why there is no consumer.
pub(super) enum Unopened {
    NotNow(String),
    No(ReadError),
}

/// What the log comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// A connection for this reader alone, made with each consumer.
    Own,
    /// The process's client.
    Shared,
}

/// A consumer that is to be made.
pub(super) struct Opening {
    pub nats: Nats,
    pub layout: Layout,
    pub p: u32,
    pub stream: String,
    pub from: DeliverFrom,
    pub mode: PullMode,
    pub connection: Connection,
    /// What the reader has read.
    pub read: MsgId,
    /// The end mark is owed to it.
    pub owed: bool,
}

impl Opening {
    /// The pull; and is the generation over?
    pub async fn run(self) -> Result<(Pull, bool), Unopened> {
        let not_now = |e: &dyn std::fmt::Display| Unopened::NotNow(e.to_string());
        let Self { p, read, .. } = self;
        // Consumers die with the server that loses its end, so this is asked before anything is read of what it became.
        let tail = LeaderReader::new(&self.nats, self.layout);
        let over = match tail.ends_before(p, read, self.owed).await {
            Ok(end) if end.lost => return Err(Unopened::No(ReadError::LostEnd { p, read })),
            Ok(end) => end.over,
            // Without a layout there would be no reader; in a restarting cluster a stream is found late.
            Err(LogError::NoStream(p)) => return Err(Unopened::No(ReadError::NoStream(p))),
            Err(e) => return Err(not_now(&e)),
        };
        let pull = self.pull().await.map_err(|e| match e.err_code() {
            code::STREAM_NOT_FOUND => Unopened::No(ReadError::NoStream(p)),
            _ => not_now(&e),
        })?;
        Ok((pull, over))
    }

    async fn pull(self) -> Result<Pull, JsError> {
        let Self { nats, stream, from, mode, .. } = &self;
        let (from, mode) = (*from, *mode);
        if self.connection == Connection::Shared {
            return Pull::shared(nats, Consumer::make(nats, stream, None, from).await?, mode).await;
        }
        // At the same time: after the death of a node either may have to wait for its own timeout.
        let (consumer, link) = tokio::join!(Consumer::make(nats, stream, None, from), own_connection(nats, stream));
        let consumer = consumer?;
        match link {
            Ok(link) => Pull::own(nats, consumer, link, mode).await,
            Err(why) => {
                tracing::warn!(
                    stream,
                    why,
                    "no connection of its own for a reader of the log; it reads over the shared one"
                );
                Pull::shared(nats, consumer, mode).await
            }
        }
    }
}

/// Error: there is none to be had, so the shared one has to do until the next consumer.
async fn own_connection(nats: &Nats, stream: &str) -> Result<Box<RawConnection>, String> {
    match tokio::time::timeout(CONNECT, RawConnection::connect(nats.config(), &format!("reads {stream}"))).await {
        Ok(Ok(link)) => Ok(Box::new(link)),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
