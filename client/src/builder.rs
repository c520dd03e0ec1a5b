//! From settings to a running client: open the store, log in, start the driver.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use natterjack_protocol::{
    DeviceId, Most, Token,
    client::{
        frame::DeviceClass,
        http::{Registration, Tokens},
    },
    codec::Codec,
    text,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    auth::{Auth, LoginMethod, log_in, log_in_external, register},
    backoff::Backoff,
    client::{Client, Inner},
    core::Core,
    driver::{Driver, DriverOptions, WINDOW_MAX},
    edges::Edges,
    error::ConnectError,
    events::{Events, SharedMarks},
    http::Http,
    known_threads::KnownThreads,
    outbox::Outbox,
    read_state::ReadState,
    resume::Resume,
    store::{OutboxStore, Store, Stored},
    tls,
    waking::SleepWatch,
};

/// Events between driver and app; with them 1,024 wait in the driver before the socket is read no further.
const EVENTS: usize = 256;
const COMMANDS: usize = 256;
/// Of a backlog, per thread: 10,000 messages of some 800 bytes; eight are fetched at a time.
const MAX_FILL: Most = Most { count: 10_000, bytes: 8 << 20 };

/// Settings of a [`Client`].
#[derive(Clone)]
pub struct Builder {
    edges: Vec<String>,
    roots: Option<Vec<u8>>,
    login: LoginMethod,
    invite: Option<Token>,
    name: Option<String>,
    device: Option<String>,
    device_name: Option<String>,
    class: DeviceClass,
    app: Option<String>,
    store: OutboxStore,
    codec: Codec,
    heartbeat: Option<Duration>,
    max_fill: Most,
    outbox_max: usize,
    window: usize,
    per_thread: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            edges: Vec::new(),
            roots: None,
            login: LoginMethod::Stored,
            invite: None,
            name: None,
            device: None,
            device_name: None,
            class: DeviceClass::default(),
            app: None,
            store: OutboxStore::Memory,
            codec: Codec::Msgpack,
            heartbeat: None,
            max_fill: MAX_FILL,
            outbox_max: 10_000,
            window: 16,
            per_thread: 1,
        }
    }
}

impl Client {
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Where to connect: `ws://host:port`, or `wss://host:port` for TLS, as many as are known. More are learnt from the
    /// edges; if all of these are `wss://`, only such.
    #[must_use]
    pub fn edges<S: Into<String>>(mut self, edges: impl IntoIterator<Item = S>) -> Self {
        self.edges = edges.into_iter().map(Into::into).collect();
        self
    }

    /// Certificates in PEM that are believed beside the public roots, for `wss://` edges of a private authority.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    #[must_use]
    pub fn login(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = LoginMethod::Password { name: name.into(), password: password.into() };
        self
    }

    /// Makes the account first, unless the store is already logged in to it.
    #[must_use]
    pub fn register(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = LoginMethod::Register { name: name.into(), password: password.into() };
        self
    }

    /// The code of an invite, for [`Builder::register`] where the operator asks for one.
    #[must_use]
    pub fn invite(mut self, code: Token) -> Self {
        self.invite = Some(code);
        self
    }

    /// With a token (JWT) of the issuer that the server is configured for: a new login at each connect that is given
    /// one. The store keeps the login and renews it by itself, so a later connect needs none.
    #[must_use]
    pub fn login_external(mut self, token: impl Into<String>) -> Self {
        self.login = LoginMethod::External(token.into());
        self
    }

    /// Whose login the store has to hold; with this alone, `connect` fails with `NoLogin` if it holds none.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.login = LoginMethod::Tokens(tokens);
        self
    }

    /// Names this device; without it the store's, else a new one. Its second session replaces its first.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// What the user calls this device, in their list and where another one hears that this one took over.
    #[must_use]
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = Some(name.into());
        self
    }

    /// How many devices of a class may be connected at once is for the installation to say.
    #[must_use]
    pub fn class(mut self, class: DeviceClass) -> Self {
        self.class = class;
        self
    }

    /// Name and version of the app, for the list of devices.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }

    #[must_use]
    pub fn store(mut self, store: OutboxStore) -> Self {
        self.store = store;
        self
    }

    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Time between pings, in place of half of what the edge asks for.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    /// Messages fetched per thread after an absence (default 10,000); below them the app gets `Skipped`.
    #[must_use]
    pub fn max_fill(mut self, messages: usize) -> Self {
        self.max_fill.count = messages;
        self
    }

    /// Likewise, in bytes as the messages have them in JSON (default 8 MiB). What is fetched waits in memory until it
    /// is whole.
    #[must_use]
    pub fn max_fill_bytes(mut self, bytes: usize) -> Self {
        self.max_fill.bytes = bytes;
        self
    }

    /// Messages that may wait in the outbox (default 10,000).
    #[must_use]
    pub fn outbox_max(mut self, messages: usize) -> Self {
        self.outbox_max = messages;
        self
    }

    /// Sends without an answer in one thread (default 1) and in all (default 16, at most 32). Their order is kept in
    /// any case; more than one per thread is faster over a long line.
    #[must_use]
    pub fn pipeline(mut self, per_thread: usize, in_all: usize) -> Self {
        // The pump makes at most this many frames at once (`driver::BURST`), and the edge answers `inflight_requests`
        // at a time.
        self.window = in_all.clamp(1, WINDOW_MAX);
        self.per_thread = per_thread;
        self
    }

    /// Opens the store and logs in. Then the client connects by itself and stays connected; the events tell.
    ///
    /// Boxed, so that the whole client is compiled once, in this crate, and not again in each that uses it.
    pub fn connect(self) -> BoxFuture<'static, Result<(Client, Events), ConnectError>> {
        Box::pin(self.open())
    }

    async fn open(self) -> Result<(Client, Events), ConnectError> {
        let name = self.device_name.as_deref().map(text::device_name).transpose();
        let name = name.map_err(|e| ConnectError::Text(e.of("device name")))?;
        let app = self.app.as_deref().map(text::app_name).transpose().map_err(|e| ConnectError::Text(e.of("app")))?;
        let edges = Edges::new(&self.edges, rand::random::<u32>() as usize)?;
        let http = Http::new(edges, tls::config(self.roots.as_deref())?)?;
        let (store, mut stored) = Store::open(&self.store).await?;
        let auth = Arc::new(self.authenticate(&http, &store, &mut stored).await?);
        let marks = Arc::new(SharedMarks::new(store.keeps()));
        let (command, commands) = mpsc::channel(COMMANDS);
        let (events, items) = mpsc::channel(EVENTS);
        let outbox = Outbox::new(stored.outbox, stored.next_local, self.window, self.per_thread);
        let (waiting, pending) = watch::channel(outbox.waiting());
        let (stop, woken) = (CancellationToken::new(), Arc::new(Notify::new()));
        let driver = Driver {
            core: Core::new(
                auth.user.clone(),
                outbox,
                Resume::new(stored.cursors, stored.synced, self.max_fill),
                ReadState::new(stored.read),
                KnownThreads::new(store.keeps(), stored.known, stored.listed),
                auth.http().clock(),
            ),
            auth: auth.clone(),
            store: store.clone(),
            options: DriverOptions {
                codec: self.codec,
                class: self.class,
                name,
                app,
                heartbeat: self.heartbeat,
                outbox_max: self.outbox_max,
            },
            commands,
            events: Some(events),
            marks: marks.clone(),
            waiting,
            woken: woken.clone(),
            sleep: SleepWatch::start(),
            stop: stop.clone(),
            backoff: Backoff::default(),
            flush_at: None,
            aside: JoinSet::new(),
            stale: None,
            session: None,
            displaced: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(driver.run()));
        let client = Client::new(Inner {
            auth,
            command,
            pending,
            woken,
            store,
            _last: stop.clone().drop_guard(),
            stop,
            task: Mutex::new(Some(task)),
        });
        Ok((client, Events::new(items, marks)))
    }

    async fn authenticate(&self, http: &Http, store: &Store, stored: &mut Stored) -> Result<Auth, ConnectError> {
        let device = match (&self.device, stored.device.take()) {
            (Some(named), _) => DeviceId::parse(named)?,
            (None, Some(kept)) => kept,
            (None, None) => DeviceId::mint('d', rand::random()),
        };
        let named = match &self.login {
            LoginMethod::Password { name, .. } | LoginMethod::Register { name, .. } => Some(name.clone()),
            LoginMethod::Tokens(t) => Some(t.name.clone()),
            LoginMethod::External(_) | LoginMethod::Stored => self.name.clone(),
        };
        if let (Some(asked), Some(kept)) = (&named, &stored.owner)
            && !text::same_user(asked, kept)
        {
            return Err(ConnectError::OtherUser { stored: kept.clone(), asked: asked.clone() });
        }
        // Tokens are of one device; for another a new login is needed.
        let kept = stored.tokens.take().filter(|t| t.device == device);
        let (tokens, password) = match (&self.login, kept) {
            (LoginMethod::Tokens(tokens), _) => (tokens.clone(), None),
            (LoginMethod::Password { name, password } | LoginMethod::Register { name, password }, Some(kept)) => {
                (kept, Some((name.clone(), password.clone())))
            }
            (LoginMethod::Password { name, password }, None) => {
                (log_in(http, name, password, &device).await?, Some((name.clone(), password.clone())))
            }
            (LoginMethod::Register { name, password }, None) => {
                let (name, password, device) = (name.clone(), password.clone(), Some(device.clone()));
                let account = Registration { name, password, device, invite: self.invite.clone() };
                let known = Some((account.name.clone(), account.password.clone()));
                (register(http, account).await?, known)
            }
            (LoginMethod::External(token), _) => (log_in_external(http, token, &device).await?, None),
            (LoginMethod::Stored, Some(kept)) => (kept, None),
            (LoginMethod::Stored, None) => return Err(ConnectError::NoLogin),
        };
        // Whose a token from elsewhere is shows only now.
        if let Some(kept) = &stored.owner
            && !text::same_user(&tokens.name, kept)
        {
            return Err(ConnectError::OtherUser { stored: kept.clone(), asked: tokens.name });
        }
        store.save_login(tokens.device.clone(), Some(tokens.clone())).await?;
        Ok(Auth::new(http.clone(), store.clone(), password, tokens))
    }
}
