//! The checklist of an edge: connect, start the parts, listen, wait, drain, end.

use std::sync::Arc;

use natterjack_nats::{Buckets, ConnectError, EdgeLease, KvError, Layout, Nats, Publisher, Tail, layout::LayoutError};
use natterjack_protocol::limits;
use natterjack_runtime::{Health, telemetry::Metrics};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    Config,
    accept::{self, Front},
    auth::Auth,
    control::Control,
    directory::Directory,
    door::Door,
    drain::drain,
    gate::Gate,
    http,
    lease::{self, Edges, Keeper},
    live,
    pages::Pages,
    people::People,
    poll::Polls,
    posts::Posts,
    send::Sends,
    session::Services,
    sessions::Sessions,
    threads::ThreadLists,
    tls::{Tls, TlsError},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("edge.listen: cannot listen on {addr}: {source}; is another edge running there?")]
    Listen { addr: std::net::SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("state: {0}")]
    State(#[from] KvError),
    #[error("the dispatcher of live messages has ended; this edge can deliver nothing")]
    LiveEnded,
}

/// Runs an edge until `stop` is cancelled and everybody has left, or something it cannot do without has failed.
pub async fn run(cfg: Config, health: Health, stop: CancellationToken) -> Result<(), Error> {
    Box::pin(run_with(cfg, health, None, stop)).await
}

/// Likewise; with `metrics`, `/metrics` is served on the clients' address too.
pub async fn run_with(cfg: Config, health: Health, metrics: Option<Metrics>, stop: CancellationToken) -> Result<(), Error> {
    crate::describe::describe();
    health.set("edge", Err("starting".into()));
    let tls = cfg.tls.clone().map(Tls::open).transpose()?;
    let listener = accept::bind(cfg.listen).map_err(|source| Error::Listen { addr: cfg.listen, source })?;
    let listen = listener.local_addr().unwrap_or(cfg.listen);
    let url = cfg.public_url.clone().unwrap_or_else(|| format!("{}://{listen}", if tls.is_some() { "wss" } else { "ws" }));

    let nats = Nats::connect(&cfg.nats, "edge").await?;
    let layout = Layout::load(&nats).await?;
    let buckets = Buckets::new(&nats, layout);
    // Outlives the drain: sessions are served until they have gone.
    let end = CancellationToken::new();
    let _end_with_us = end.clone().drop_guard();
    let live::Started { live, clock, members, history, task: dispatcher } =
        live::start(&cfg, &nats, &layout, &buckets, end.clone()).await?;
    let mut dispatcher = AbortOnDropHandle::new(dispatcher);

    let directory = Directory::new(&nats);
    let (gate, sessions) = (Gate::default(), Sessions::default());
    let auth = Auth::start(&buckets, &clock, &directory, &sessions, &cfg.times).await?;
    let edges = Edges::start(&buckets, &cfg.edge_id, &cfg.times).await?;
    let people = People::new(&buckets, &directory);
    let publisher = Publisher::new(&nats, layout, cfg.times.clone());
    let control = Control::new(Tail::new(&nats, layout), &publisher, &people, &clock, &cfg.times, cfg.max_group_members);
    let threads = ThreadLists::new(&history, &people);
    let pages = Pages::new(&history, &people);
    let door = Door::new(cfg.limits.clone());

    let sends = Arc::new(Sends {
        publisher: publisher.clone(),
        control: control.clone(),
        people: people.clone(),
        history,
        clock: clock.clone(),
        gate: gate.clone(),
        layout,
        times: cfg.times.clone(),
    });
    let api = http::Api {
        auth: auth.clone(),
        clock: clock.clone(),
        gate: gate.clone(),
        directory,
        people: people.clone(),
        control,
        pages: pages.clone(),
        threads: threads.clone(),
        polls: Polls {
            auth: auth.clone(),
            sessions: sessions.clone(),
            members: members.clone(),
            live: live.clone(),
            gate: gate.clone(),
            edges: edges.clone(),
            times: cfg.times.clone(),
        },
        posts: Posts::new(sends.clone(), members.clone(), people, door.clone()),
        door: door.clone(),
        edges: edges.clone(),
        health: health.clone(),
        metrics,
        nats: nats.clone(),
        own_url: url.clone(),
    };
    let services = Arc::new(Services {
        auth,
        door,
        sessions: sessions.clone(),
        members,
        live,
        clock: clock.clone(),
        gate: gate.clone(),
        sends,
        pages,
        threads,
        nats,
        times: cfg.times.clone(),
        edge: cfg.edge_id.clone(),
        limits: limits::ForClients { group_members: cfg.max_group_members, ..limits::ForClients::default() },
    });

    let value = lease::value(&url, &cfg.instance);
    let mut keeper = Keeper {
        lease: EdgeLease::start(&buckets, cfg.edge_id.as_str(), value.clone(), &cfg.times),
        value,
        gate: gate.clone(),
        sessions: sessions.clone(),
        clock,
        health: health.clone(),
        times: cfg.times.clone(),
    };
    let (draining, tasks) = (CancellationToken::new(), TaskTracker::new());
    let _reloads = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.watch().await })));
    let front = Front::new(services, http::router(api), draining.clone(), cfg.max_connections, tls);
    tasks.spawn(front.accept(listener, tasks.clone(), end.clone()));
    tracing::info!(edge = %cfg.edge_id, %listen, url, "edge listens");

    let work = async {
        stop.cancelled().await;
        draining.cancel();
        drain(&sessions, &gate, &edges, &cfg.times).await;
    };
    let result = tokio::select! {
        () = work => Ok(()),
        () = keeper.keep() => Ok(()),
        _ = &mut dispatcher => Err(Error::LiveEnded),
    };
    publisher.close();
    end.cancel();
    tasks.close();
    tasks.wait().await;
    let _ = tokio::time::timeout(cfg.times.edge_refresh, keeper.lease.release()).await;
    health.remove("edge");
    result
}
