use std::task::Waker;

use natterjack_protocol::{Body, Kind};
use tokio::sync::mpsc;

use super::*;

fn cid(n: u8) -> Cid {
    Cid::mint(1, [n; 10])
}

fn send(n: u8, behind: Option<u8>) -> SendMessage {
    let thread = "dm.a.b".parse().unwrap();
    SendMessage { r: n.into(), cid: cid(n), thread, kind: Kind::Text, body: Body::text("x"), behind: behind.map(cid) }
}

/// What is on its way to the log, and what the log says to it. Each message of a batch gets the same.
type Publishing = (Vec<u32>, oneshot::Sender<SendResult>);

struct Edge {
    device: Arc<DeviceQueue>,
    log: mpsc::Sender<Publishing>,
    arriving: mpsc::Receiver<Publishing>,
    connection: u64,
}

impl Edge {
    fn new() -> Self {
        let (log, arriving) = mpsc::channel(9);
        let device: Arc<DeviceQueue> = Arc::default();
        Self { connection: device.connect(), device, log, arriving }
    }

    fn start(&self, first: Option<Queued>) {
        let (Some(first), log) = (first, self.log.clone()) else { return };
        tokio::spawn(drive(self.device.clone(), first, move |_, batch| {
            let log = log.clone();
            async move {
                let (reply, result) = oneshot::channel();
                log.send((batch.iter().map(|q| q.send.r).collect(), reply)).await.unwrap();
                let result = result.await.unwrap();
                Published { results: batch.iter().map(|_| result.clone()).collect(), rest: Vec::new() }
            }
        }));
    }

    /// Over the socket.
    fn push(&self, n: u8, behind: Option<u8>) -> Result<(), Code> {
        let first = self.device.push(self.connection, send(n, behind)).map_err(|e| e.code)?;
        self.start(first);
        Ok(())
    }

    fn post(&self, n: u8, behind: Option<u8>) -> Result<oneshot::Receiver<SendResult>, Code> {
        let (first, answer) = self.device.request(send(n, behind), Ok(())).map_err(|e| e.code)?;
        self.start(first);
        Ok(answer)
    }

    /// What arrives next, decided so.
    async fn log(&mut self, result: SendResult) -> Vec<u32> {
        let (batch, reply) = self.arriving.recv().await.unwrap();
        reply.send(result).unwrap();
        batch
    }

    fn answers(&self) -> Vec<(u32, Option<Code>)> {
        let answers = self.device.answers(self.connection, &Context::from_waker(Waker::noop()));
        answers.into_iter().map(|a| (a.r, a.result.err().map(|e| e.code))).collect()
    }
}

fn stored(n: u64) -> SendResult {
    Ok(MsgId(n))
}

#[tokio::test]
async fn socket_and_http_have_one_order_the_one_in_which_the_edge_took_them() {
    let mut edge = Edge::new();
    edge.push(1, None).unwrap();
    let second = edge.post(2, None).unwrap();
    edge.push(3, None).unwrap();
    edge.push(4, Some(3)).unwrap();
    let fifth = edge.post(5, Some(4)).unwrap();
    let mut order = Vec::new();
    for n in 1..=4 {
        order.push(edge.log(stored(n)).await);
    }
    assert_eq!(order, [vec![1], vec![2], vec![3, 4], vec![5]], "those of the socket together, each request alone");
    assert_eq!((second.await.unwrap(), fifth.await.unwrap()), (stored(2), stored(4)));
    assert_eq!(edge.answers(), [(1, None), (3, None), (4, None)]);
}

#[tokio::test]
async fn a_refusal_on_one_way_holds_what_came_behind_it_on_the_other() {
    let mut edge = Edge::new();
    let first = edge.post(1, None).unwrap();
    edge.push(2, None).unwrap();
    edge.push(3, Some(2)).unwrap();
    edge.log(Err(Refusal::unavailable("later"))).await;
    assert_eq!(first.await.unwrap().unwrap_err().code, Code::Unavailable);
    assert_eq!(edge.answers(), [(2, Some(Code::OutOfOrder)), (3, Some(Code::OutOfOrder))]);
    assert!(edge.device.is_closed(edge.connection));
    assert_eq!(
        edge.push(4, None),
        Err(Code::OutOfOrder),
        "in the socket's buffer when the refusal was written, perhaps"
    );
    edge.device.received_all(edge.connection);
    edge.push(5, None).unwrap();
    let sixth = edge.post(6, None).unwrap();
    edge.log(Err(Refusal::unavailable("later"))).await;
    assert_eq!(sixth.await.unwrap().unwrap_err().code, Code::OutOfOrder, "and the other way round");
    assert_eq!(edge.post(7, Some(6)).unwrap_err(), Code::OutOfOrder, "sent before the answer was read");
    assert!(edge.post(8, None).is_ok(), "a new cid, or another message: the client has its reasons");
}

#[tokio::test]
async fn a_session_is_woken_by_its_answers_and_by_refusals_over_http() {
    struct Woken(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(false.into()));
    let (mut edge, waker) = (Edge::new(), Waker::from(woken.clone()));
    let look = |edge: &Edge| edge.device.answers(edge.connection, &Context::from_waker(&waker)).len();
    let taken = || woken.0.swap(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(look(&edge), 0);
    let posted = edge.post(1, None).unwrap();
    edge.log(stored(1)).await;
    posted.await.unwrap().unwrap();
    assert!(!taken(), "nothing for it");
    edge.push(2, None).unwrap();
    edge.log(stored(2)).await;
    tokio::task::yield_now().await;
    assert!(taken() && look(&edge) == 1);
    assert!(edge.device.request(send(3, None), Err(full())).is_err());
    assert!(taken(), "it has to read what had come by then");
}

#[tokio::test]
async fn what_was_taken_is_published_also_when_nobody_waits_for_it() {
    let mut edge = Edge::new();
    edge.push(1, None).unwrap();
    drop(edge.post(2, None).unwrap());
    edge.push(3, None).unwrap();
    let old = edge.connection;
    edge.connection = edge.device.connect();
    edge.device.disconnect(old);
    edge.push(4, None).unwrap();
    let order = [edge.log(stored(1)).await, edge.log(stored(2)).await, edge.log(stored(3)).await];
    assert_eq!(order, [vec![1], vec![2], vec![3, 4]]);
    tokio::task::yield_now().await;
    assert_eq!(edge.answers(), [(4, None)], "the new connection hears of its own only");
    assert_eq!(edge.device.push(old, send(5, None)).unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn a_task_that_ends_early_leaves_nobody_waiting() {
    let device: Arc<DeviceQueue> = Arc::default();
    let connection = device.connect();
    let (first, answer) = device.request(send(1, None), Ok(())).unwrap();
    device.push(connection, send(2, None)).unwrap();
    let never = drive(device.clone(), first.unwrap(), |_, _| std::future::pending());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), never).await.is_err());
    assert_eq!(answer.await.unwrap().unwrap_err().code, Code::Unavailable);
    let answers = device.answers(connection, &Context::from_waker(Waker::noop()));
    assert_eq!(answers[0].result.as_ref().unwrap_err().code, Code::OutOfOrder);
    device.received_all(connection);
    assert!(device.push(connection, send(2, None)).unwrap().is_some(), "the thread is free again");
}

#[tokio::test]
async fn a_device_has_so_many_requests_and_no_more() {
    let device = DeviceQueue::default();
    let all: Vec<_> =
        (0..limits::INFLIGHT_REQUESTS as u8).map(|n| device.request(send(n, None), Ok(())).unwrap()).collect();
    assert_eq!(device.request(send(200, None), Ok(())).unwrap_err().code, Code::RateLimited);
    assert_eq!(device.request(send(201, Some(200)), Ok(())).unwrap_err().code, Code::RateLimited);
    drop(all);
}

#[test]
fn devices_with_nothing_to_do_are_forgotten() {
    let all = DeviceQueues::new((), &TaskTracker::new(), &CancellationToken::new());
    let held = all.of(&UserId::parse("held").unwrap(), &DeviceId::parse("d").unwrap());
    for n in 0..SWEEP_FROM * 8 {
        all.of(&UserId::parse(&format!("u{n}")).unwrap(), &DeviceId::parse("d").unwrap());
    }
    assert!(all.all.lock().len() < SWEEP_FROM * 4, "{}", all.all.lock().len());
    assert!(Arc::ptr_eq(&held, &all.of(&UserId::parse("held").unwrap(), &DeviceId::parse("d").unwrap())));
}
