//! A future that runs beside a partition's loop. It is kept over the turns, so whatever wins a turn of `select!`
//! cancels nothing.

use std::future::pending;

use futures_util::future::BoxFuture;

/// At most one at a time.
pub struct InFlight<T>(Option<BoxFuture<'static, T>>);

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> InFlight<T> {
    pub fn start(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(Box::pin(future));
    }

    pub fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    pub fn cancel(&mut self) {
        self.0 = None;
    }

    /// Its outcome, once; never, if there is none. Cancel-safe.
    pub async fn finished(&mut self) -> T {
        match &mut self.0 {
            Some(future) => {
                let value = future.await;
                self.0 = None;
                value
            }
            None => pending().await,
        }
    }
}
