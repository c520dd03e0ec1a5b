//! An edge in one generation of the log: connect, start the parts, listen, wait, drain, end.

use std::{sync::Arc, time::Duration};

use natterjack_nats::{EdgeLease, KvBuckets, Layout, LeaseStanding, Publisher, Service, ThreadLog, serve, subjects};
use natterjack_protocol::{
    client::close,
    internal::{kv::EdgeInfo, rpc::EdgeRequest},
    limits,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{Base, Error};
use crate::{
    address,
    admission::Admission,
    auth::TokenVerifier,
    control::ControlAppender,
    cursors::CursorKeeper,
    delivery::DeliveryParts,
    devices::{
        Devices,
        world::{NatsDevices, ask},
    },
    directory::Directory,
    drain::drain,
    edges::KnownEdges,
    http,
    lease::{self, LeaseKeeper},
    long_poll::{LongPolls, places::PollPlaces},
    pages::Pages,
    people::People,
    presence::{Presence, SILENCE, choice::Choices, desk, handle, source::NatsPresence},
    readiness::Readiness,
    receipts::Receipts,
    sends::{
        device::DeviceQueues, http::HttpSends, log_condition::LogCondition, membership::Membership,
        references::References, send::Sends,
    },
    server::{accept::Acceptor, capacity::Capacity, shutdown::ShutdownPhases},
    session::{Counts, Services, backend::EdgeBackend},
    sessions::Sessions,
    status::StatusWatch,
    threads::{ThreadLists, heard::HeardThreads, marks::ListMarks},
};

/// At the end, when all sessions have gone: how long HTTP requests have to finish.
const ANSWERS: Duration = Duration::from_secs(5);
/// At a new generation of the log: how long requests have to finish and sessions to be told.
const RESUME: Duration = Duration::from_secs(1);
/// At the end: how long the places of sessions that have gone have to be given back, and what they had read to be
/// written.
const RELEASES: Duration = Duration::from_secs(2);
/// Requests of other edges, and pings of `presence`, that are answered at once: each looks at one session at most.
const REQUESTS: usize = 1_024;

/// Until `stop` (none), or until there is a newer generation. Then all sessions resume from their cursors, a moment
/// later, there; who connects meanwhile waits in the kernel.
pub(super) async fn generation(base: &Base, layout: Layout, stop: &CancellationToken) -> Result<Option<Layout>, Error> {
    // Outlives the drain: sessions are served until they have gone.
    let end = CancellationToken::new();
    let _end_with_us = end.clone().drop_guard();
    let Some(mut running) = Box::pin(start(base, layout, stop, &end)).await? else { return Ok(None) };
    let result = running.until_over(base, stop).await;
    running.publisher.close();
    if let Ok(Some(next)) = &result {
        running.resume_in(next).await;
    }
    end.cancel();
    running.tasks.close();
    running.tasks.wait().await;
    running.poll_places.give_back_all();
    let _ = timeout(RELEASES, async { tokio::join!(running.devices.released(), running.cursors.written()) }).await;
    if !matches!(result, Ok(Some(_))) {
        let _ = timeout(base.cfg.times.edge_refresh, running.keeper.lease.release()).await;
    }
    result
}

/// What an edge that listens is watched and ended by.
struct Running {
    layout: Layout,
    phases: ShutdownPhases,
    /// Connections, and messages on their way into the log.
    tasks: TaskTracker,
    sessions: Sessions,
    devices: Arc<Devices>,
    cursors: CursorKeeper,
    poll_places: Arc<PollPlaces>,
    status: StatusWatch,
    edges: KnownEdges,
    publisher: Publisher,
    keeper: LeaseKeeper,
    dispatcher: AbortOnDropHandle<()>,
    _presence: AbortOnDropHandle<()>,
    /// What other edges and `presence` ask.
    _service: Service,
    _watches: [AbortOnDropHandle<()>; 2],
    _readiness: AbortOnDropHandle<()>,
}

/// None: it was stopped before it could listen.
async fn start(
    base: &Base,
    layout: Layout,
    stop: &CancellationToken,
    end: &CancellationToken,
) -> Result<Option<Running>, Error> {
    let Base { cfg, capacity, has, tls, listener, nats, time, limiter, health } = base;
    let listen = listener.local_addr().unwrap_or(cfg.listen);
    let value = address::lease(cfg.public_url.clone(), listen, tls.is_some(), lease::machine(), &cfg.instance);
    let value = EdgeInfo { started: time.now_ms(), ..value };
    if ask(nats, &cfg.edge_id, &EdgeRequest::Ping).await.is_some_and(|other| *other.incarnation != *cfg.instance) {
        return Err(Error::IdInUse(cfg.edge_id.clone()));
    }
    let standing = LeaseStanding::default();
    let buckets = KvBuckets::new(nats, layout);
    let (presence_desk, presence_inbox) = handle::channel();
    let delivery =
        DeliveryParts::start(cfg, nats, time.clone(), layout, &buckets, presence_desk.clone(), end.clone()).await?;
    let directory = Directory::new(nats);
    let (clock, cursors) = (delivery.clock.clone(), delivery.cursors.clone());
    let (status, sessions) = (StatusWatch::default(), Sessions::default());
    // These wait for their buckets. At a new generation the health is still that of the one before.
    health.set("edge", Err("waiting for its buckets".into()));
    let auth = TokenVerifier::start(&buckets, time, &directory, &sessions, &cfg.times);
    let Some(auth) = stop.run_until_cancelled(auth).await.transpose()? else { return Ok(None) };
    let edges = KnownEdges::start(&buckets, &cfg.edge_id, value.clone(), &cfg.times);
    let Some(edges) = stop.run_until_cancelled(edges).await.transpose()? else { return Ok(None) };

    let source = NatsPresence { nats: nats.clone(), layout, directory: directory.clone() };
    let desk = desk::run(source.clone(), SILENCE, presence_inbox, end.clone());
    let desk = AbortOnDropHandle::new(tokio::spawn(desk));
    let people = People::new(&buckets, &directory);
    let presence =
        Presence { desk: presence_desk, source, people: people.clone(), choices: Choices::new(&buckets, time) };
    let readiness = Readiness::new(health, layout, &clock, auth.watching().into_iter().chain([edges.watching()]));
    let tasks = TaskTracker::new();
    let own: (_, Arc<str>) = (cfg.edge_id.clone(), cfg.instance.as_str().into());
    let world =
        NatsDevices { buckets: buckets.clone(), nats: nats.clone(), edges: edges.clone(), incarnation: own.1.clone() };
    let devices =
        Devices::new(Box::new(world), own, cfg.devices, sessions.clone(), standing.clone(), time.clone(), &cfg.times);
    let answering = devices.clone();
    let service = serve(nats, subjects::edge_service(&cfg.edge_id), None, REQUESTS, move |request| {
        let answer = answering.answer(&request);
        async move { Ok(answer) }
    });
    let service = service.await?;
    let watches = [
        AbortOnDropHandle::new(tokio::spawn(devices.clone().watch_lease())),
        AbortOnDropHandle::new(tokio::spawn(devices.clone().watch_bucket())),
    ];
    let poll_places = PollPlaces::start(cfg.times.poll_grace);
    let parts = Parts {
        devices: devices.clone(),
        poll_places: poll_places.clone(),
        people,
        publisher: Publisher::new(nats, layout, cfg.times.clone())
            .behind(delivery.fence.clone())
            .while_stands(standing.clone()),
        log: LogCondition { clock: clock.clone(), status: status.clone(), layout, times: cfg.times.clone() },
        directory,
        auth,
        sessions: sessions.clone(),
        edges: edges.clone(),
        presence,
    };
    let publisher = parts.publisher.clone();
    let (dispatcher, services, api) = parts.wire(base, delivery, &tasks, end);
    let keeper = LeaseKeeper {
        lease: EdgeLease::start(&buckets, &cfg.edge_id, value.clone(), standing, &cfg.times),
        value,
        status: status.clone(),
        sessions: sessions.clone(),
        sessions_in: devices.sessions_in(),
        limiter: limiter.clone(),
        clock,
        health: health.clone(),
        times: cfg.times.clone(),
    };
    let phases = ShutdownPhases::new(end);
    let acceptor = Acceptor::new(services, http::router(api), phases.clone(), *capacity, tls.clone());
    tasks.spawn(acceptor.accept(listener.clone(), tasks.clone(), end.clone()));
    let url = cfg.public_url.as_deref().unwrap_or("by the address that each client comes to");
    let Capacity { connections, limit, .. } = *capacity;
    tracing::info!(
        edge = %cfg.edge_id, %listen, url, generation = layout.generation, ?limit,
        "edge listens; this edge takes {connections} connections; it may have {has}"
    );
    let _readiness = AbortOnDropHandle::new(tokio::spawn(async move { readiness.run().await }));
    Ok(Some(Running {
        layout,
        phases,
        tasks,
        sessions,
        devices,
        cursors,
        poll_places,
        status,
        edges,
        publisher,
        keeper,
        dispatcher,
        _presence: desk,
        _service: service,
        _watches: watches,
        _readiness,
    }))
}

/// What several of the services are made of.
struct Parts {
    people: People,
    publisher: Publisher,
    log: LogCondition,
    directory: Directory,
    auth: TokenVerifier,
    sessions: Sessions,
    devices: Arc<Devices>,
    poll_places: Arc<PollPlaces>,
    edges: KnownEdges,
    presence: Presence,
}

impl Parts {
    /// The dispatcher's task, what sessions use, and what HTTP handlers use.
    fn wire(
        self,
        base: &Base,
        delivery: DeliveryParts,
        tasks: &TaskTracker,
        end: &CancellationToken,
    ) -> (AbortOnDropHandle<()>, Arc<Services<EdgeBackend>>, http::Api) {
        let Base { cfg, nats, limiter, health, .. } = base;
        let DeliveryParts { live, attach, cursors, settings, batch_acks, clock, members, history, dispatcher, .. } =
            delivery;
        let Self { people, publisher, log, directory, auth, sessions, edges, presence, .. } = self;
        let (status, thread_log) = (log.status.clone(), ThreadLog::new(nats, log.layout));
        let control =
            ControlAppender::new(thread_log.clone(), &publisher, &people, &clock, &cfg.times, cfg.max_group_members);
        let known = (ListMarks::new(&clock, log.layout), HeardThreads::new(&live, &clock, log.layout));
        let threads = ThreadLists::new(&history, &people, &cursors, settings, known);
        let pages = Pages::new(&history, &people);
        let receipts = Receipts::new(&KvBuckets::new(nats, log.layout), &people, &pages);
        let admission = Arc::new(Admission {
            revoked: auth.revoked().clone(),
            sessions,
            members,
            live,
            presence: presence.desk.clone(),
            devices: self.devices,
        });
        let sends = Sends {
            publisher,
            membership: Membership { people: people.clone(), control: control.clone(), log: log.clone() },
            references: References::new(&thread_log, &history, &cfg.times),
            history,
            batch_acks,
            log,
            metrics: Default::default(),
        };
        let devices = Arc::new(DeviceQueues::new(sends, tasks, end));
        let polls = LongPolls {
            admission: admission.clone(),
            attach: attach.clone(),
            presence: presence.clone(),
            places: self.poll_places,
            status: status.clone(),
            edges: edges.clone(),
            times: cfg.times.clone(),
        };
        let api = http::Api {
            health: health.clone(),
            auth: auth.clone(),
            clock: clock.clone(),
            status: status.clone(),
            directory,
            people,
            presence: presence.clone(),
            control,
            pages: pages.clone(),
            receipts,
            threads: threads.clone(),
            cursors: cursors.clone(),
            polls,
            http_sends: HttpSends::new(devices.clone(), admission.clone(), limiter.clone()),
            limiter: limiter.clone(),
            edges,
        };
        let services = Arc::new(Services {
            backend: EdgeBackend { tokens: auth, attach, pages, threads, presence, cursors, nats: nats.clone() },
            devices,
            admission,
            limiter: limiter.clone(),
            clock,
            status,
            times: cfg.times.clone(),
            edge: cfg.edge_id.clone(),
            limits: limits::ClientLimits { group_members: cfg.max_group_members, ..limits::ClientLimits::default() },
            counts: Counts::default(),
        });
        (AbortOnDropHandle::new(dispatcher), services, api)
    }
}

impl Running {
    /// Waits, in no order, for: the end of the drain, the end of what it cannot do without, a newer generation.
    async fn until_over(&mut self, base: &Base, stop: &CancellationToken) -> Result<Option<Layout>, Error> {
        let Self { layout, phases, tasks, sessions, status, edges, keeper, dispatcher, .. } = self;
        let times = &base.cfg.times;
        let left = async {
            stop.cancelled().await;
            let last = Instant::now() + times.drain.mul_f64(0.92);
            phases.draining.cancel();
            drain(sessions, status, edges, phases, times).await;
            phases.closing.cancel();
            tasks.close();
            // Requests that have reached this edge are answered, and goodbyes said.
            if timeout_at(last.min(Instant::now() + ANSWERS), tasks.wait()).await.is_err() {
                phases.hurry.cancel();
                let _ = timeout(times.drain.mul_f64(0.05), tasks.wait()).await;
            }
        };
        tokio::select! {
            () = left => Ok(None),
            () = keeper.keep() => Ok(None),
            _ = dispatcher => Err(Error::LiveEnded),
            next = layout.next_generation(&base.nats) => Ok(Some(next)),
        }
    }

    /// Has all sessions connect again, which the edge of the next generation takes.
    async fn resume_in(&self, next: &Layout) {
        tracing::info!(
            generation = next.generation,
            sessions = self.sessions.len(),
            "the log goes on with a new generation; all sessions resume"
        );
        self.phases.closing.cancel();
        self.phases.draining.cancel();
        self.sessions.all().iter().for_each(|s| s.outbox.close(close::RESYNC));
        self.tasks.close();
        let _ = timeout(RESUME, self.tasks.wait()).await;
    }
}
