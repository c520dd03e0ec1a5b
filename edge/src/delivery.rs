//! The parts that bring events to sessions, put together: fan-in, dispatcher, attach.

pub mod jobs;
pub mod repair;

use natterjack_nats::{FanIn, Fence, KvBuckets, Layout, LeaderReader, Nats, NatsConnectError, ServerTime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::jobs::DispatcherJobs;
use crate::{
    Config,
    attach::Attach,
    clock::Clock,
    cursors::CursorKeeper,
    directory::Directory,
    history::HistoryClient,
    live::{
        self, LiveHandle,
        batch_acks::BatchAcks,
        dispatch::{self, Dispatch},
    },
    members::Members,
    presence::handle::PresenceHandle,
    receipt_push,
    thread_settings::SettingsKeeper,
};

pub struct DeliveryParts {
    pub live: LiveHandle,
    pub attach: Attach,
    pub cursors: CursorKeeper,
    pub settings: SettingsKeeper,
    pub batch_acks: BatchAcks,
    pub clock: Clock,
    pub members: Members,
    pub history: HistoryClient,
    /// Beats open it.
    pub fence: Fence,
    /// Ends when `stop` is cancelled.
    pub dispatcher: JoinHandle<()>,
}

impl DeliveryParts {
    pub async fn start(
        cfg: &Config,
        nats: &Nats,
        time: ServerTime,
        layout: Layout,
        buckets: &KvBuckets,
        presence: PresenceHandle,
        stop: CancellationToken,
    ) -> Result<Self, NatsConnectError> {
        let feed = FanIn::connect(&cfg.nats, &format!("edge-{}-fanin", cfg.edge_id)).await?;
        let (live, inbox) = live::channel();
        let clock = Clock::new(layout.partitions, &cfg.times, time.clone());
        let cursors = CursorKeeper::new(nats, buckets, layout, &clock, &time, &Directory::new(nats));
        let settings = SettingsKeeper::new(nats, buckets, &cursors, &time);
        let (members, batch_acks, fence) = (Members::default(), BatchAcks::default(), Fence::new(nats, layout));
        let history = HistoryClient::new(nats.clone(), cfg.times.attach);
        let attach = Attach {
            live: live.clone(),
            nats: nats.clone(),
            buckets: buckets.clone(),
            layout,
            clock: clock.clone(),
            history: history.clone(),
            tail: LeaderReader::new(nats, layout),
            cursors: cursors.clone(),
            settings: settings.clone(),
            times: cfg.times.clone(),
        };
        let (receipts, inbox_of_receipts) = receipt_push::channel();
        tokio::spawn(receipt_push::run(buckets.clone(), inbox_of_receipts, stop.clone()));
        let dispatch = Dispatch {
            feed,
            jobs: DispatcherJobs { attach: attach.clone(), history: history.clone(), deadline: cfg.times.attach },
            clock: clock.clone(),
            members: members.clone(),
            batch_acks: batch_acks.clone(),
            presence,
            receipts,
            on_beat: Box::new({
                let fence = fence.clone();
                move |p| fence.heard(p)
            }),
            generation: layout.generation,
            partitions: layout.partitions,
            times: cfg.times.clone(),
        };
        let dispatcher = tokio::spawn(dispatch::run(dispatch, inbox, stop));
        Ok(Self { live, attach, cursors, settings, batch_acks, clock, members, history, fence, dispatcher })
    }
}
