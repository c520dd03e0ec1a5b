//! What a session waits for beside its socket: the answers to requests, and attach.

use std::task::{Context, Poll};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

/// An idle session keeps nothing for it.
pub(super) struct Running<T>(Option<FuturesUnordered<BoxFuture<'static, T>>>);

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Running<T> {
    pub fn push(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0.get_or_insert_default().push(Box::pin(work));
    }

    /// What one of them came to. Pending, also when there is none: whoever pushes one polls again.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let next = self.0.as_mut().map_or(Poll::Ready(None), |all| all.poll_next_unpin(cx));
        if self.0.as_ref().is_some_and(FuturesUnordered::is_empty) {
            self.0 = None;
        }
        match next {
            Poll::Ready(Some(done)) => Poll::Ready(done),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::future::ready;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn each_comes_to_something_once_and_nothing_is_kept_behind_the_last() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut running = Running::default();
        assert_eq!(running.poll_next(&mut cx), Poll::Pending);
        let (say, said) = oneshot::channel();
        running.push(async move { said.await.unwrap() });
        running.push(ready(1));
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(1));
        assert_eq!(running.poll_next(&mut cx), Poll::Pending);
        assert!(running.0.is_some(), "one is under way");
        say.send(2).unwrap();
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(2));
        assert!(running.0.is_none());
        running.push(ready(3));
        assert_eq!(running.poll_next(&mut cx), Poll::Ready(3));
    }
}
