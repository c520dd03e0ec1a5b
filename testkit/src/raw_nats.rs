//! NATS past every role: for tests that play an operator. The one place beside the `nats` crate that knows the library.

pub use async_nats::jetstream;
use natterjack_nats::Nats;

/// A client of the test's own: it may do what no role does.
pub async fn raw_client(nats: &Nats) -> async_nats::Client {
    let servers: Vec<async_nats::ServerAddr> = nats.config().urls.iter().map(|url| url.parse().unwrap()).collect();
    let (user, password) = (nats.config().user.clone(), nats.config().password.clone());
    let options = match user {
        Some(user) => async_nats::ConnectOptions::with_user_and_password(user, password.unwrap_or_default()),
        None => async_nats::ConnectOptions::new(),
    };
    options.connect(servers).await.unwrap()
}

pub async fn raw_jetstream(nats: &Nats) -> jetstream::Context {
    jetstream::new(raw_client(nats).await)
}
