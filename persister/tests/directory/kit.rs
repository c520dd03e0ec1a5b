//! A real nats-server, a SQLite file and instances of `directory` on them.

use std::time::Duration;

use natterjack_nats::{KvBuckets, Layout, Nats, RpcError, ServerTime, provision, subjects};
use natterjack_persister::{
    directory::{self, DirectoryError, Logins, RegistrationRule},
    password::Cost,
    store::Sqlite,
};
use natterjack_protocol::{
    Code, DeviceId, Refusal, Times, Token, UserId,
    client::http::Tokens,
    internal::{
        operator::{OperatorAnswer, OperatorRequest},
        rpc::{DirectoryAnswer, DirectoryRequest},
    },
};
use natterjack_runtime::{Health, clock::wall_ms};
use natterjack_testkit::NatsServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct World {
    pub nats: Nats,
    pub layout: Layout,
    pub store: Sqlite,
    pub times: Times,
    registration: RegistrationRule,
    health: Health,
    stop: CancellationToken,
    instances: Vec<JoinHandle<Result<(), DirectoryError>>>,
    _server: NatsServer,
    dir: tempfile::TempDir,
}

/// Weak, so that tests of something else do not wait for argon2.
pub fn cheap() -> Cost {
    Cost { memory_kib: 64, passes: 1, lanes: 1 }
}

impl World {
    pub async fn new(cost: Cost) -> Self {
        Self::with(cost, Times::default()).await
    }

    pub async fn with(cost: Cost, times: Times) -> Self {
        Self::on(NatsServer::start(), cost, times, RegistrationRule::Open).await
    }

    pub async fn with_registration(registration: RegistrationRule) -> Self {
        Self::on(NatsServer::start(), cheap(), Times::default(), registration).await
    }

    /// While no other test runs: for one that asserts a time.
    pub async fn alone(cost: Cost) -> Self {
        Self::on(NatsServer::start_alone().await, cost, Times::default(), RegistrationRule::Open).await
    }

    async fn on(server: NatsServer, cost: Cost, times: Times, registration: RegistrationRule) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nats = server.nats().await;
        let layout = provision(&nats, &server.config(), &times).await.unwrap();
        let store = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        let mut world = Self {
            nats,
            layout,
            store,
            times,
            registration,
            health: Health::new(),
            stop: CancellationToken::new(),
            instances: Vec::new(),
            _server: server,
            dir,
        };
        world.start_directory(cost).await;
        world
    }

    /// Another instance, with its own handle on the file.
    pub async fn start_directory(&mut self, cost: Cost) {
        let store = Sqlite::open(self.dir.path().join("n.db")).await.unwrap();
        let (nats, layout, times) = (self.nats.clone(), self.layout, self.times.clone());
        let registration = self.registration;
        let (health, stop) = (Health::expecting(["directory"]), self.stop.clone());
        self.health = health.clone();
        self.instances.push(tokio::spawn(async move {
            let time = ServerTime::start(&nats, wall_ms).await;
            let base = directory::Base { nats, layout, store, times, time };
            let logins = Logins { password: cost, registration, name_hold: HOLD, external: None };
            directory::run(base, logins, health, stop).await
        }));
        tokio::time::timeout(Duration::from_secs(20), self.health.ready()).await.expect("directory is ready");
    }

    pub fn buckets(&self) -> KvBuckets {
        KvBuckets::new(&self.nats, self.layout)
    }

    pub async fn ask(&self, request: &DirectoryRequest) -> Result<DirectoryAnswer, Refusal> {
        match self.nats.request(subjects::DIRECTORY, request, Duration::from_secs(60)).await {
            Ok(answer) => Ok(answer),
            Err(RpcError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("directory does not answer: {e}"),
        }
    }

    pub async fn operate(&self, request: &OperatorRequest) -> Result<OperatorAnswer, Code> {
        match self.nats.request(subjects::OPERATORS, request, Duration::from_secs(60)).await {
            Ok(answer) => Ok(answer),
            Err(RpcError::Refused(refusal)) => Err(refusal.code),
            Err(e) => panic!("directory does not answer an operator: {e}"),
        }
    }

    pub async fn tokens(&self, request: &DirectoryRequest) -> Result<Tokens, Refusal> {
        match self.ask(request).await? {
            DirectoryAnswer::Tokens(t) => Ok(t),
            _ => panic!("tokens were asked for"),
        }
    }

    pub async fn refusal(&self, request: &DirectoryRequest) -> Refusal {
        match self.ask(request).await {
            Err(refusal) => refusal,
            Ok(_) => panic!("a refusal was expected"),
        }
    }

    pub async fn register(&self, name: &str) -> Tokens {
        self.tokens(&register(name)).await.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub async fn user(&self, name: &str) -> UserId {
        self.register(name).await.user
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        for instance in self.instances.drain(..) {
            instance.await.unwrap().unwrap();
        }
    }
}

/// For how long a name that was given up is nobody else's, here.
pub const HOLD: Duration = Duration::from_secs(4);

pub const PASSWORD: &str = "correct horse battery";

pub fn device() -> DeviceId {
    Token::parse("phone-1").unwrap()
}

pub fn register(name: &str) -> DirectoryRequest {
    DirectoryRequest::Register { name: name.into(), password: PASSWORD.into(), device: device(), invite: None }
}

pub fn login(name: &str, password: &str) -> DirectoryRequest {
    DirectoryRequest::Login { name: name.into(), password: password.into(), device: device(), known: false }
}

pub fn refresh(t: &Tokens) -> DirectoryRequest {
    DirectoryRequest::Refresh { refresh: t.refresh.clone() }
}
