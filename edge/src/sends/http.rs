//! Step 2 for messages that come over HTTP: in the order of their device, like those of its socket.

use std::sync::Arc;

use natterjack_protocol::{MsgId, Refusal, client::frame::SendMessage};

use super::{device::DeviceQueues, send::Sends};
use crate::{
    admission::{Admission, limits::AdmissionLimits},
    auth::Actor,
    refusals::{EdgeError, refuse},
};

pub struct HttpSends {
    devices: Arc<DeviceQueues<Sends>>,
    admission: Arc<Admission>,
    limiter: AdmissionLimits,
}

impl HttpSends {
    pub fn new(devices: Arc<DeviceQueues<Sends>>, admission: Arc<Admission>, limiter: AdmissionLimits) -> Self {
        Self { devices, admission, limiter }
    }

    /// As [`Sends::send`], in the order of the device. Dropping it leaves the message to be published: the same cid may
    /// come again.
    pub async fn post(&self, actor: Actor, send: SendMessage) -> Result<MsgId, Refusal> {
        let (cid, user, device) = (send.cid, actor.user.clone(), actor.device.clone());
        let state = self.admission.admit_sends(&actor).await?;
        let queue = self.devices.of(&user, &device);
        let (first, answer) = queue.request(send, self.limiter.sends(&user)).map_err(|e| e.with_cid(cid))?;
        let _waiting = Waiting::new();
        if let Some(first) = first {
            self.devices.start(&queue, &state, first);
        }
        answer.await.unwrap_or_else(|_| Err(refuse(EdgeError::OutcomeOpen))).map_err(|e| e.with_cid(cid))
    }
}

/// Keeps the gauge.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        metrics::gauge!(crate::metrics::HTTP_SENDS_WAITING).increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!(crate::metrics::HTTP_SENDS_WAITING).decrement(1.0);
    }
}
