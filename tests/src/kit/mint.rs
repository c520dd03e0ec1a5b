//! Users by the hundred: the test puts a signing key of its own beside those of `directory`, so no password has to be
//! hashed.

use futures_util::{StreamExt, TryStreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_nats::{KvBuckets, Layout, Nats};
use natterjack_protocol::{
    DeviceId, Token, UserId,
    client::http::Tokens,
    internal::{
        claims::{Claims, ISSUER},
        cursors::UserCursors,
        kv::PublicKey,
    },
    log::fold::UserThreads,
};
use natterjack_testkit::now_ms;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use super::{cluster::Cluster, user::User};

const HOUR: u64 = 3_600;

pub struct Mint {
    buckets: KvBuckets,
    key: EncodingKey,
    kid: Token,
}

impl Mint {
    pub async fn new(cluster: &Cluster) -> Self {
        Self::on(&cluster.connect_nats().await).await
    }

    /// Of whatever installation has its log here.
    pub async fn on(nats: &Nats) -> Self {
        let buckets = KvBuckets::new(nats, Layout::load(nats).await.unwrap());
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let kid = Token::mint('k', rand::random());
        let public = PublicKey { ed25519: pair.public_key().as_ref().to_vec(), until: now_ms() + HOUR * 1_000 };
        buckets.signing_key(&kid).put(&public).await.unwrap();
        Self { buckets, key: EncodingKey::from_ed_der(pkcs8.as_ref()), kid }
    }

    pub async fn users(&self, count: usize) -> Vec<User> {
        stream::iter(0..count).map(|_| self.user()).buffered(64).try_collect().await.unwrap()
    }

    async fn user(&self) -> Result<User, natterjack_nats::KvError> {
        let (id, device) = (Token::mint('u', rand::random()), Token::mint('d', rand::random()));
        self.buckets.cursors(&id).create_if_absent(&UserCursors::default()).await?;
        self.buckets.threads(&id).create_if_absent(&UserThreads::default()).await?;
        Ok(self.user_on(id, device))
    }

    pub fn device(&self, user: &User, device: &str) -> User {
        self.user_on(user.id().clone(), Token::parse(device).unwrap())
    }

    fn user_on(&self, id: UserId, device: DeviceId) -> User {
        let now = now_ms() / 1_000;
        let access = self.sign(&Claims {
            iss: ISSUER.into(),
            sub: id.clone(),
            device: device.clone(),
            fam: "test".into(),
            iat: now,
            exp: now + HOUR,
        });
        let name = id.to_string();
        let tokens = Tokens { user: id, name: name.clone(), device, access, expires_in: HOUR, refresh: "none".into() };
        User { name, password: String::new(), tokens }
    }

    /// Any claims under the test's key: for tokens that are expired, of another issuer, …
    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header { kid: Some(self.kid.to_string()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}
