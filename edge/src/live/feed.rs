//! Step 5, the seam to NATS: the connection that live subjects come through, so that the dispatcher runs without a
//! socket in tests.

use natterjack_nats::{FanIn, FanInEvent, SubscriptionSlot};

/// The methods of [`FanIn`] that the dispatcher uses; what they promise is said there.
pub trait Feed: Send + 'static {
    fn subscribe(&mut self, subject: &str, slot: SubscriptionSlot);
    fn unsubscribe(&mut self, slot: SubscriptionSlot);
    fn request(&mut self, subject: &str, payload: &[u8]) -> u64;
    /// Cancel-safe.
    fn next_batch(&mut self, out: &mut Vec<FanInEvent>) -> impl Future<Output = ()> + Send;
}

impl Feed for FanIn {
    fn subscribe(&mut self, subject: &str, slot: SubscriptionSlot) {
        Self::subscribe(self, subject, slot);
    }

    fn unsubscribe(&mut self, slot: SubscriptionSlot) {
        Self::unsubscribe(self, slot);
    }

    fn request(&mut self, subject: &str, payload: &[u8]) -> u64 {
        Self::request(self, subject, payload)
    }

    fn next_batch(&mut self, out: &mut Vec<FanInEvent>) -> impl Future<Output = ()> + Send {
        Self::next_batch(self, out)
    }
}
