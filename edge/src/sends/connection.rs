//! Step 2 for a socket: what a session holds of its device's queue, from its first message on.

use std::{sync::Arc, task::Context};

use natterjack_protocol::{
    Refusal,
    client::{frame::SendMessage, send_queue::Queued},
};

use tracing::Span;

use super::device::{DeviceQueue, DeviceQueues, PublishSends, SendAnswer};
use crate::{members::UserState, sessions::handle::SessionHandle};

pub struct ConnectionSends<P: PublishSends> {
    devices: Arc<DeviceQueues<P>>,
    state: Arc<UserState>,
    device: Arc<DeviceQueue>,
    /// Of this connection, among the device's sources.
    number: u64,
    /// Messages whose turn it is, until everything has been read that the client has written with them.
    due: Vec<Queued>,
    unanswered: usize,
    /// Of the session, for what is logged while its messages are published.
    span: Span,
}

impl<P: PublishSends> ConnectionSends<P> {
    pub fn new(devices: &Arc<DeviceQueues<P>>, session: &SessionHandle) -> Self {
        let device = devices.of(&session.user, &session.device);
        let number = device.connect();
        Self {
            devices: devices.clone(),
            state: session.state.clone(),
            device,
            number,
            due: Vec::new(),
            unanswered: 0,
            span: session.span(),
        }
    }

    pub fn push(&mut self, send: SendMessage) -> Result<(), Refusal> {
        self.due.extend(self.device.push(self.number, send)?);
        self.unanswered += 1;
        Ok(())
    }

    /// It was refused before it could be taken.
    pub fn refused(&self, send: &SendMessage, why: &Refusal) {
        self.device.refused(send, why);
    }

    pub fn received_all(&self) {
        self.device.received_all(self.number);
    }

    pub fn is_closed(&self) -> bool {
        self.device.is_closed(self.number)
    }

    /// Messages that were taken and have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Publishes what is due, each with everything of its thread that waits behind it.
    pub fn publish(&mut self) {
        for first in self.due.drain(..) {
            self.span.in_scope(|| self.devices.start(&self.device, &self.state, first));
        }
    }

    /// Answers since the last time; the session's task is woken when there are more.
    pub fn answers(&mut self, cx: &Context<'_>) -> Vec<SendAnswer> {
        let answers = self.device.answers(self.number, cx);
        self.unanswered -= answers.len();
        answers
    }
}

impl<P: PublishSends> Drop for ConnectionSends<P> {
    fn drop(&mut self) {
        self.publish();
        self.device.disconnect(self.number);
    }
}
