//! Who talks to a cluster: users, HTTP, the SDK, bare sockets.

use natterjack_client::{Builder, Client, Events};

use super::Cluster;
use crate::kit::{api::Api, mint::Mint, raw_ws::RawWs, user::User};

impl Cluster {
    /// Registers over HTTP, with a name that begins with this.
    pub async fn user(&self, name: &str) -> User {
        User::register(self, 0, name).await
    }

    /// Many users without the cost of hashing passwords: they exist, and their tokens are signed by a key of the test's
    /// own.
    pub async fn mint_users(&self, count: usize) -> Vec<User> {
        self.mint.get_or_init(|| Mint::new(self)).await.users(count).await
    }

    /// Another device of one of them.
    pub fn other_device(&self, user: &User, device: &str) -> User {
        self.mint.get().expect("a user of `mint_users`").device(user, device)
    }

    pub fn api(&self, user: &User, edge: usize) -> Api {
        self.anonymous(edge).with_token(user.tokens.access.clone())
    }

    /// HTTP without a login.
    pub fn anonymous(&self, edge: usize) -> Api {
        match &self.certificates {
            None => Api::new(self.net.edge(edge), None),
            Some(files) => Api::secure(self.net.edge(edge), &files.ca),
        }
    }

    /// The SDK, connected to one edge first; it learns the others from it.
    pub async fn client(&self, user: &User, edge: usize) -> (Client, Events) {
        self.client_with(user, edge, |b| b).await
    }

    /// Likewise, with settings of its own.
    pub async fn client_with(
        &self,
        user: &User,
        edge: usize,
        with: impl FnOnce(Builder) -> Builder,
    ) -> (Client, Events) {
        let builder = user.builder([self.edge_url(edge)]);
        let builder = match &self.certificates {
            None => builder,
            Some(files) => builder.root_certificates(files.ca.as_str()),
        };
        with(builder).connect().await.unwrap_or_else(|e| panic!("{} cannot connect: {e}", user.name))
    }

    /// A bare socket that said hello and is attached.
    pub async fn raw(&self, user: &User, edge: usize, codec: natterjack_protocol::codec::Codec) -> RawWs {
        let mut ws = match &self.certificates {
            None => RawWs::connect(self.net.edge(edge), codec).await,
            Some(files) => RawWs::connect_tls(self.net.edge(edge), codec, files.client()).await,
        };
        ws.hello(user).await;
        ws
    }
}
