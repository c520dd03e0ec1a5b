//! The checklist of an edge: connect, start the parts, listen, wait, drain, end.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use natterjack_nats::{Buckets, ConnectError, EdgeLease, KvError, Layout, Log, Nats, Publisher, ServerTime, layout::LayoutError};
use natterjack_protocol::{client::close, limits};
use natterjack_runtime::{Health, Resources, clock::wall_ms};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    Config, address,
    admission::limits::AdmissionLimits,
    auth::Auth,
    control::Control,
    delivery::DeliveryParts,
    directory::Directory,
    drain::drain,
    http,
    lease::{self, Edges, Keeper},
    long_poll::LongPolls,
    pages::Pages,
    people::People,
    readiness::Readiness,
    sends::{http::HttpSends, references::References, send::Sends},
    server::{
        accept::{self, Acceptor},
        capacity::Capacity,
        shutdown::ShutdownPhases,
        tls::{Tls, TlsError},
    },
    session::{Counts, Services},
    sessions::Sessions,
    status::StatusWatch,
    threads::ThreadLists,
};

/// At the end, when all sessions have gone: how long HTTP requests have to finish.
const ANSWERS: Duration = Duration::from_secs(5);
/// At a new generation of the log: how long requests have to finish and sessions to be told.
const RESUME: Duration = Duration::from_secs(1);

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
/// Boxed here, so that the edge is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: Config, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(serve(cfg, health, stop))
}

async fn serve(cfg: Config, health: Health, stop: CancellationToken) -> Result<(), Error> {
    crate::metrics::describe();
    health.set("edge", Err("starting".into()));
    let tls = cfg.tls.clone().map(Tls::open).transpose()?;
    let listener = accept::bind(cfg.listen).map_err(|source| Error::Listen { addr: cfg.listen, source })?;
    let nats = Nats::connect(&cfg.nats, "edge").await?;
    let mut next = stop.run_until_cancelled(Layout::at_start(&nats)).await.transpose()?;
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&nats, wall_ms)).await else { return Ok(()) };
    let limiter = AdmissionLimits::new(cfg.limits.clone());
    let _reloads = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.watch().await })));
    let has = Resources::now();
    let capacity = Capacity::of(cfg.max_connections, &has);
    let base = Base { cfg, capacity, has, tls, listener: Arc::new(listener), nats, time, limiter, health: health.clone() };
    while let Some(layout) = next {
        next = Box::pin(generation(&base, layout, &stop)).await?;
    }
    health.remove("edge");
    Ok(())
}

/// What outlives a generation of the log.
struct Base {
    cfg: Config,
    capacity: Capacity,
    has: Resources,
    tls: Option<Arc<Tls>>,
    listener: Arc<TcpListener>,
    nats: Nats,
    time: ServerTime,
    limiter: AdmissionLimits,
    health: Health,
}

/// Everything else is of one generation: until `stop` (none), or until there is a newer one. AfterAnswer all sessions resume from their cursors,
/// a moment later, here; who connects meanwhile waits in the kernel.
async fn generation(base: &Base, layout: Layout, stop: &CancellationToken) -> Result<Option<Layout>, Error> {
    let Base { cfg, capacity, has, tls, listener, nats, time, limiter, health } = base;
    let listen = listener.local_addr().unwrap_or(cfg.listen);
    let value = address::lease(cfg.public_url.clone(), listen, tls.is_some(), lease::machine(), &cfg.instance);
    let buckets = Buckets::new(nats, layout);
    // Outlives the drain: sessions are served until they have gone.
    let end = CancellationToken::new();
    let _end_with_us = end.clone().drop_guard();
    let DeliveryParts { live, attach, batch_acks, clock, members, history, fence, dispatcher } =
        DeliveryParts::start(cfg, nats, time.clone(), layout, &buckets, end.clone()).await?;
    let mut dispatcher = AbortOnDropHandle::new(dispatcher);

    let directory = Directory::new(nats);
    let (status, sessions) = (StatusWatch::default(), Sessions::default());
    // These wait for their buckets. At a new generation the health is still that of the one before.
    health.set("edge", Err("waiting for its buckets".into()));
    let auth = Auth::start(&buckets, time, &directory, &sessions, &cfg.times);
    let Some(auth) = stop.run_until_cancelled(auth).await.transpose()? else { return Ok(None) };
    let edges = Edges::start(&buckets, &cfg.edge_id, value.clone(), &cfg.times);
    let Some(edges) = stop.run_until_cancelled(edges).await.transpose()? else { return Ok(None) };
    let people = People::new(&buckets, &directory);
    let publisher = Publisher::new(nats, layout, cfg.times.clone()).behind(fence);
    let log = Log::new(nats, layout);
    let control = Control::new(log.clone(), &publisher, &people, &clock, &cfg.times, cfg.max_group_members);
    let threads = ThreadLists::new(&history, &people);
    let pages = Pages::new(&history, &people);

    let sends = Arc::new(Sends {
        publisher: publisher.clone(),
        control: control.clone(),
        people: people.clone(),
        references: References::new(&log, &history, &cfg.times),
        history,
        clock: clock.clone(),
        batch_acks,
        status: status.clone(),
        layout,
        times: cfg.times.clone(),
        metrics: Default::default(),
    });
    let api = http::Api {
        health: health.clone(),
        auth: auth.clone(),
        clock: clock.clone(),
        status: status.clone(),
        directory,
        people: people.clone(),
        control,
        pages: pages.clone(),
        threads: threads.clone(),
        polls: LongPolls {
            auth: auth.clone(),
            sessions: sessions.clone(),
            members: members.clone(),
            live: live.clone(),
            attach: attach.clone(),
            status: status.clone(),
            edges: edges.clone(),
            times: cfg.times.clone(),
        },
        http_sends: HttpSends::new(sends.clone(), members.clone(), people, limiter.clone()),
        limiter: limiter.clone(),
        edges: edges.clone(),
    };
    let moving = Readiness::new(health, layout, &clock, auth.watching().into_iter().chain([edges.watching()]));
    let _moving = AbortOnDropHandle::new(tokio::spawn(async move { moving.run().await }));
    let services = Arc::new(Services {
        auth,
        limiter: limiter.clone(),
        sessions: sessions.clone(),
        members,
        live,
        attach,
        clock: clock.clone(),
        status: status.clone(),
        sends,
        pages,
        threads,
        nats: nats.clone(),
        times: cfg.times.clone(),
        edge: cfg.edge_id.clone(),
        limits: limits::ClientLimits { group_members: cfg.max_group_members, ..limits::ClientLimits::default() },
        counts: Counts::default(),
    });

    let mut keeper = Keeper {
        lease: EdgeLease::start(&buckets, cfg.edge_id.as_str(), value.clone(), &cfg.times),
        value,
        status: status.clone(),
        sessions: sessions.clone(),
        limiter: limiter.clone(),
        clock,
        health: health.clone(),
        times: cfg.times.clone(),
    };
    let (leaving, tasks) = (ShutdownPhases::new(&end), TaskTracker::new());
    let front = Acceptor::new(services, http::router(api), leaving.clone(), *capacity, tls.clone());
    tasks.spawn(front.accept(listener.clone(), tasks.clone(), end.clone()));
    let url = cfg.public_url.as_deref().unwrap_or("by the address that each client comes to");
    let Capacity { connections, limit, .. } = *capacity;
    tracing::info!(
        edge = %cfg.edge_id, %listen, url, generation = layout.generation, ?limit,
        "edge listens; this edge takes {connections} connections; it may have {has}"
    );

    let work = async {
        stop.cancelled().await;
        let last = Instant::now() + cfg.times.drain.mul_f64(0.92);
        leaving.draining.cancel();
        drain(&sessions, &status, &edges, &leaving, &cfg.times).await;
        leaving.closing.cancel();
        tasks.close();
        // Requests that have reached this edge are answered, and goodbyes said.
        if timeout_at(last.min(Instant::now() + ANSWERS), tasks.wait()).await.is_err() {
            leaving.hurry.cancel();
            let _ = timeout(cfg.times.drain.mul_f64(0.05), tasks.wait()).await;
        }
    };
    let result = tokio::select! {
        () = work => Ok(None),
        () = keeper.keep() => Ok(None),
        _ = &mut dispatcher => Err(Error::LiveEnded),
        newer = layout.newer(nats) => Ok(Some(newer)),
    };
    publisher.close();
    if let Ok(Some(newer)) = &result {
        tracing::info!(
            generation = newer.generation,
            sessions = sessions.len(),
            "the log goes on with a new generation; all sessions resume"
        );
        leaving.closing.cancel();
        leaving.draining.cancel();
        sessions.all().iter().for_each(|s| s.outbox.close(close::RESYNC));
        tasks.close();
        let _ = timeout(RESUME, tasks.wait()).await;
    }
    end.cancel();
    tasks.close();
    tasks.wait().await;
    if !matches!(result, Ok(Some(_))) {
        let _ = timeout(cfg.times.edge_refresh, keeper.lease.release()).await;
    }
    result
}
