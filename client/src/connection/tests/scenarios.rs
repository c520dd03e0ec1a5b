//! The list that the document's table is made from (protocol/scenarios): what the other side does, and what a client
//! has to do then and not before. Any SDK can run it; here time stands still unless a step lets it pass.

mod steps;

use std::{collections::HashMap, future::Future, time::Duration};

use natterjack_protocol::{
    Cid,
    client::{
        close::{Back, Close},
        frame::{ClientFrame, SendMessage, ServerFrame},
    },
    codec::Codec,
};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet, time::advance};

use self::steps::{Scenario, Server, Step, User, Wanted};
use super::{
    fake::{Dial, Session, scripted, tokens},
    thread,
};
use crate::{Client, ClientEvent, Events};

/// Real time, in which no timer fires.
#[allow(clippy::disallowed_methods, reason = "on a thread of its own: tokio's time stands still")]
async fn nap() {
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(3))).await.unwrap();
}

/// What needs no time but that of the machine.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    for _ in 0..5_000 {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = nap() => {}
        }
    }
    panic!("{what} does not come")
}

struct Run {
    client: Client,
    events: Events,
    edges: Vec<(String, mpsc::Receiver<Dial>, JoinSet<()>)>,
    at: usize,
    dial: Option<Dial>,
    session: Option<Session>,
    /// The attempt or the connection is over, so the client tells when it comes again.
    over: bool,
    sends: HashMap<String, SendMessage>,
    locals: HashMap<String, crate::Local>,
    closing: Option<tokio::task::JoinHandle<()>>,
}

impl Run {
    async fn start(edges: usize) -> Self {
        let mut all = Vec::new();
        for _ in 0..edges {
            all.push(scripted().await);
        }
        let builder = Client::builder()
            .edges(all.iter().map(|e| e.0.clone()))
            .tokens(tokens("good"))
            .pipeline(4, 16)
            .codec(Codec::Json);
        // Nobody answers pings here.
        let builder = builder.heartbeat(Duration::from_secs(100_000));
        let (client, events) = builder.connect().await.unwrap();
        Self {
            client,
            events,
            edges: all,
            at: 0,
            dial: None,
            session: None,
            over: false,
            sends: HashMap::new(),
            locals: HashMap::new(),
            closing: None,
        }
    }

    async fn event(&mut self, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
        let events = &mut self.events;
        soon("an event", async {
            loop {
                let event = events.next().await.expect("the stream goes on");
                if wanted(&event) {
                    return event;
                }
                let end = matches!(event, ClientEvent::Ended { .. } | ClientEvent::LoggedOut { .. });
                assert!(!end, "{event:?}");
            }
        })
        .await
    }

    async fn no_request(&mut self) {
        for _ in 0..3 {
            nap().await;
        }
        assert!(self.edges.iter_mut().all(|e| e.1.try_recv().is_err()), "too early");
    }

    /// The next request of the client, in its time and not before.
    async fn request(&mut self, path: &str, [from, until]: [u64; 2], edge: Option<&str>) {
        if std::mem::take(&mut self.over) {
            let ClientEvent::Reconnecting { wait } =
                self.event(|e| matches!(e, ClientEvent::Reconnecting { .. })).await
            else {
                unreachable!()
            };
            let in_time = Duration::from_millis(from)..=Duration::from_millis(until);
            assert!(in_time.contains(&wait), "waits {wait:?}, not {in_time:?}");
            // Whole milliseconds are what timers know.
            let before = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap().saturating_sub(2));
            advance(before).await;
            if !before.is_zero() {
                self.no_request().await;
            }
            advance(wait - before + Duration::from_millis(2)).await;
        }
        let others = (0..self.edges.len()).filter(|i| *i != self.at);
        let which: Vec<usize> = match edge {
            Some("other") => others.collect(),
            // The first one is taken at random.
            _ if self.edges.len() > 1 => (0..self.edges.len()).collect(),
            _ => vec![self.at],
        };
        let edges = &mut self.edges;
        let (at, dial) = soon(path, async {
            loop {
                for i in &which {
                    if let Ok(dial) = edges[*i].1.try_recv() {
                        return (*i, dial);
                    }
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(dial.path, path);
        (self.at, self.dial) = (at, Some(dial));
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a session")
    }

    async fn server(&mut self, step: Server) {
        match step {
            Server::Upgrades => {
                let dial = self.dial.take().expect("a request");
                self.session = Some(soon("hello", dial.upgrade()).await);
            }
            Server::Greets => self.session().welcome().await,
            Server::Welcomes => {
                Box::pin(self.server(Server::Upgrades)).await;
                self.session().welcome().await;
                self.session().say(&ServerFrame::Attached { synced: "1.1".into() }).await;
                self.event(|e| matches!(e, ClientEvent::Attached)).await;
            }
            Server::Answers { status, headers, body } => {
                let dial = self.dial.take().expect("a request");
                self.over = !(dial.path == "/v1/refresh" && status == 200 && body.starts_with('{')) && status != 401;
                soon("the answer", dial.answer(status, &headers.into_iter().collect::<Vec<_>>(), &body)).await;
            }
            Server::Says { mut frame } => {
                self.fill_in(&mut frame);
                let frame =
                    ServerFrame::decode(Codec::Json, frame.to_string().as_bytes()).unwrap().expect("a known frame");
                self.session().say(&frame).await;
            }
            Server::Closes { code } => {
                let session = self.session.take().expect("a session");
                soon("the close", session.close(Close { code, reason: "", back: Back::Backoff })).await;
                self.over = true;
            }
            Server::Breaks => {
                (self.session, self.dial) = (None, None);
                self.over = true;
            }
        }
    }

    /// `$cid.TEXT` and `$r.TEXT`: of the last `send` with this text.
    fn fill_in(&self, value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(|v| self.fill_in(v)),
            Value::Array(list) => list.iter_mut().for_each(|v| self.fill_in(v)),
            Value::String(s) => {
                if let Some(text) = s.strip_prefix("$cid.") {
                    *value = self.sends[text].cid.to_string().into();
                } else if let Some(text) = s.strip_prefix("$r.") {
                    *value = self.sends[text].r.into();
                }
            }
            _ => {}
        }
    }

    async fn wanted(&mut self, step: Wanted) {
        match step {
            Wanted::Connects { after_ms, edge } => self.request("/v1/ws", after_ms, edge.as_deref()).await,
            Wanted::Refreshes { after_ms } => self.request("/v1/refresh", after_ms, None).await,
            Wanted::Sends { text, behind, cid, after_ms } => {
                if let Some([from, until]) = after_ms {
                    // What was said last counts from now on.
                    self.session().say(&ServerFrame::Contacts).await;
                    self.event(|e| matches!(e, ClientEvent::Contacts)).await;
                    advance(Duration::from_millis(from - 1)).await;
                    self.sends_nothing().await;
                    advance(Duration::from_millis(until - from + 1)).await;
                } else {
                    // What may go at once may take a moment.
                    advance(Duration::from_millis(1)).await;
                }
                let send = loop {
                    match soon("a message", self.session().hear()).await {
                        ClientFrame::Send(send) => break send,
                        ClientFrame::Ping => {}
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(send.body.text.as_deref(), Some(&*text));
                assert_eq!(send.behind, behind.map(|b| self.sends[&b].cid), "behind");
                let before: Option<Cid> = self.sends.get(&text).map(|s| s.cid);
                match cid.as_deref() {
                    Some("same") => assert_eq!(before, Some(send.cid)),
                    Some(_) => assert_ne!(before, Some(send.cid)),
                    None => {}
                }
                self.sends.insert(text, send);
            }
            Wanted::SendsNothing => self.sends_nothing().await,
            Wanted::HasSent { text } => {
                let local = self.locals[&text];
                self.event(|e| matches!(e, ClientEvent::Sent { local: l, .. } if *l == local)).await;
            }
            Wanted::HasFailed { text } => {
                let local = self.locals[&text];
                self.event(|e| matches!(e, ClientEvent::Failed { local: l, .. } if *l == local)).await;
            }
            Wanted::SaysHello { session } => assert_eq!(self.session().hello.session.is_some(), session),
            Wanted::SaysBye => assert!(matches!(soon("bye", self.session().hear()).await, ClientFrame::Bye)),
            Wanted::StaysAway => {
                self.event(|e| matches!(e, ClientEvent::Displaced(_))).await;
                for _ in 0..3 {
                    // Less than a token lives, in all.
                    self.client.network_changed();
                    advance(Duration::from_secs(600)).await;
                    self.no_request().await;
                }
                // It comes back when it is told to, and says nothing of it before.
                self.over = false;
            }
            Wanted::Ends => {
                let events = &mut self.events;
                soon("the end", async { while events.next().await.is_some() {} }).await;
                for _ in 0..3 {
                    advance(Duration::from_secs(3_600)).await;
                    self.no_request().await;
                }
            }
        }
    }

    async fn sends_nothing(&mut self) {
        let hear = self.session.as_mut().expect("a session").hear();
        tokio::select! {
            biased;
            frame = hear => panic!("{frame:?}"),
            () = async { for _ in 0..5 { nap().await } } => {}
        }
    }

    async fn user(&mut self, step: User) {
        match step {
            User::Writes { text } => {
                let local = self.client.send_text(thread(), &text).await.unwrap();
                self.locals.insert(text, local);
            }
            User::TakesOver => assert!(self.client.take_over().await.unwrap()),
            User::Closes => {
                let client = self.client.clone();
                self.closing = Some(tokio::spawn(async move { client.close().await }));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_does_what_the_list_says() {
    // While a blocking task runs, paused time does not move by itself.
    let (still, until) = std::sync::mpsc::sync_channel::<()>(1);
    tokio::task::spawn_blocking(move || until.recv().is_err());
    let text = include_str!("../../../../protocol/scenarios/connection.json");
    let scenarios: Vec<Scenario> = serde_json::from_str(text).unwrap();
    for scenario in scenarios {
        println!("{}", scenario.what);
        let mut run = Run::start(scenario.edges).await;
        for step in scenario.steps {
            println!("  {step:?}");
            match step {
                Step::Server(step) => run.server(step).await,
                Step::Client(step) => run.wanted(step).await,
                Step::User(step) => run.user(step).await,
            }
        }
    }
    drop(still);
}
