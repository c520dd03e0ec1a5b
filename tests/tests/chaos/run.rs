//! One run: a cluster, people, faults, healing, the verdict.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use natterjack_protocol::{Thread, UserId, client::frame::DeviceClass, codec::Codec};
use natterjack_testkit::{patience, within};
use natterjack_tests::kit::paging::whole_by;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, User};
use reqwest::Method;
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    asking,
    checker::{Rule, Verdict, check, presence::excused_until},
    faults, planted,
    raw::{Habit, Phase, Raw},
    record::{History, Message, Recorder, Recording},
    rules::{Form, Rng, schedule},
    sdk::Sdk,
};

const RAW: usize = 6;
const SDK: usize = 3;
/// Of those with a raw client, so many have a second phone.
const PHONES: usize = 2;
/// Who says now and then that they have read what nobody has written.
const LIAR: usize = 3;
/// Who write nothing and are in no thread: they come and go, to be looked at.
const GUESTS: usize = 3;
/// After the last fault every send has its answer within this.
const SETTLES: Duration = Duration::from_secs(30);
/// And every reader has everything: one sweep of heads and its jitter at the most.
const COMPLETE: Duration = Duration::from_secs(60);

pub struct People {
    pub users: Vec<User>,
    groups: Vec<Thread>,
    guests: Vec<User>,
}

impl People {
    /// Who is in a thread at some time of the run.
    pub fn threads(&self, i: usize) -> Vec<Thread> {
        let n = self.users.len();
        let dm = |j: usize| self.users[i].dm(&self.users[j]);
        self.groups.iter().cloned().chain([dm((i + 1) % n), dm((i + n - 1) % n)]).collect()
    }

    /// Everybody of whom it is known to the millisecond when they are connected.
    fn friends_of(&self, user: &User) -> Vec<UserId> {
        let all = self.users[..RAW].iter().chain(&self.guests);
        all.map(User::id).filter(|id| *id != user.id()).cloned().collect()
    }

    /// Each with its name, its owner, where it writes, and what it is.
    fn raw_devices(&self, cluster: &Cluster) -> Vec<(String, User, Vec<Thread>, Habit)> {
        let mut all = Vec::new();
        for (i, user) in self.users[..RAW].iter().enumerate() {
            let class = [DeviceClass::Desktop, DeviceClass::Web][i % 2];
            let class = if i < PHONES { DeviceClass::Phone } else { class };
            let habit = Habit { lies: i == LIAR, ..Habit::stays_on(class) };
            all.push((format!("raw{i}"), user.clone(), self.threads(i), habit));
            if i < PHONES {
                let second = cluster.other_device(user, &format!("d-second-{i}"));
                all.push((format!("phone{i}"), second, self.threads(i), habit));
            }
        }
        for (i, user) in self.guests.iter().enumerate() {
            // One looks in and does not come back for long, one comes and goes within a debounce, one around it.
            let away = [(60_000, 90_000), (500, 9_000), (8_000, 20_000)][i % 3];
            let habit = Habit { class: DeviceClass::Other, away, stays: Some((2_000, 8_000)), lies: false };
            all.push((format!("guest{i}"), user.clone(), Vec::new(), habit));
        }
        all
    }
}

pub async fn run(seed: u64, form: Form, again: &str) {
    eprintln!("chaos: seed {seed}, {form:?}; again with: NATTERJACK_SEED={seed} {again}");
    let spec = ClusterSpec {
        edges: form.edges,
        channels: form.channels,
        persisters: form.persisters,
        presences: form.presences,
        nats: form.nats,
        proxied_edges: true,
        proxied_presences: true,
        // Beside another cluster only by hand.
        alone: std::env::var_os("NATTERJACK_CHAOS_SHARED").is_none(),
        ..ClusterSpec::default()
    };
    let cluster = Cluster::start(spec).await;
    let record = Recorder::new();
    let people = gather(&cluster, &record).await;
    let (phase, phases) = watch::channel(Phase::Write);
    let rng = Rng::new(seed);
    let (mut tasks, mut waiting, mut clients) = (JoinSet::new(), Vec::new(), Vec::new());
    for (i, (name, user, threads, habit)) in people.raw_devices(&cluster).into_iter().enumerate() {
        let edges = (0..form.edges).map(|e| cluster.edge_addr(e)).collect();
        let codec = if i % 2 == 0 { Codec::Json } else { Codec::Msgpack };
        let (friends, rng) = (people.friends_of(&user), rng.fork(100 + i as u64));
        let raw = Raw::new(name, user, habit, friends, edges, threads, codec, record.clone(), rng, phases.clone());
        waiting.push(raw.waiting.subscribe());
        tasks.spawn(raw.run());
    }
    for (i, user) in people.users.iter().enumerate().skip(RAW) {
        let (name, threads, rng) = (format!("sdk{i}"), people.threads(i), rng.fork(200 + i as u64));
        let edges = (0..form.edges).map(|e| cluster.edge_url((e + i) % form.edges));
        let (client, events) = user.builder(edges).heartbeat(Duration::from_secs(1)).connect().await.unwrap();
        let reader = record.reader(&name, user.id().as_str());
        clients.push(client.clone());
        tasks.spawn(
            Sdk { name, client, events, threads, record: record.clone(), reader, rng, phase: phases.clone() }.run(),
        );
    }
    let steps = schedule(seed, &form);
    let asking = asking::ask(&cluster, &people, &record, phases.clone(), rng.fork(8));
    let churning = churn(&cluster, &people, &record, phases.clone(), rng.fork(7));
    let (unasked, (), ()) = tokio::join!(
        async {
            let unasked = faults::run(&cluster, &steps, &record).await;
            eprintln!("chaos: all is healed");
            // Some more messages when all is well: they show what the last loss has hidden.
            sleep(Duration::from_secs(3)).await;
            phase.send_replace(Phase::Settle);
            unasked
        },
        churning,
        asking
    );

    eprintln!("chaos: nobody writes any more");
    let healed = Instant::now();
    let settled = async {
        while waiting.iter().any(|w| *w.borrow() > 0) || clients.iter().any(|c| c.unsent() > 0) {
            // Asks again.
            sleep(Duration::from_millis(20)).await;
        }
    };
    // Who is not settled is named by the checker.
    let _ = tokio::time::timeout(patience(SETTLES), settled).await;
    let settled = healed.elapsed();
    eprintln!("chaos: reading every history");
    let histories = read_all(&cluster, &people, form.edges).await;
    record.lock().histories = histories;
    let unfinished = |v: &Verdict| v.violations.iter().any(|v| v.rule == Rule::Incomplete);
    let mut said = false;
    loop {
        let verdict = check(&record.lock());
        if !unfinished(&verdict) || healed.elapsed() > patience(COMPLETE) {
            break;
        }
        if !said && healed.elapsed() > Duration::from_secs(10) {
            said = true;
            eprintln!("chaos: still incomplete after 10 s:\n{verdict}");
        }
        // Reads again what has come meanwhile.
        sleep(Duration::from_millis(200)).await;
    }
    let complete = healed.elapsed();
    // And so is what was read.
    let stands = |v: &Verdict| !v.violations.iter().any(|v| matches!(v.rule, Rule::Unread | Rule::ReadLost));
    loop {
        asking::settle(&cluster, &people, &record).await;
        if stands(&check(&record.lock())) || healed.elapsed() > patience(COMPLETE) {
            break;
        }
        // Reads again what was stored meanwhile.
        sleep(Duration::from_millis(500)).await;
    }
    // What is shown in the end is judged, too, when no fault excuses it any more.
    let judged = excused_until(&record.lock()) + Duration::from_secs(2);
    sleep(judged.saturating_sub(Duration::from_micros(record.now()))).await;
    phase.send_replace(Phase::Stop);
    within("clients stop", Duration::from_secs(20), async {
        while tasks.join_next().await.is_some_and(|r| r.map_or_else(|e| panic!("{e}"), |()| true)) {}
    })
    .await;

    let recording: Recording = record.lock().clone();
    let verdict = check(&recording);
    report(&recording, &verdict, settled, complete);
    for p in cluster.processes() {
        assert!(!p.log().contains("panicked at"), "{} has panicked:\n{}", p.name(), p.log_tail(40));
    }
    assert!(unasked.is_empty(), "seed {seed}: {unasked:#?}");
    assert!(verdict.violations.is_empty(), "seed {seed} (NATTERJACK_SEED={seed} {again}):\n{verdict}");
    assert!(verdict.acked > 300, "only {} messages: that shows little", verdict.acked);
    let caught = planted::caught(&recording);
    eprintln!("chaos: {caught} of {} faults planted into this recording are caught", planted::COUNT);
    // Somebody was removed from a group perhaps, and nobody spoke before they were back: no place for that one fault.
    assert!(
        caught >= planted::COUNT - 1,
        "only {caught} of the faults have a place in this recording: that shows little"
    );
}

async fn gather(cluster: &Cluster, record: &Recorder) -> People {
    let mut users = cluster.mint_users(RAW + SDK + GUESTS).await;
    let guests = users.split_off(RAW + SDK);
    let api = cluster.api(&users[0], 0);
    let ids: Vec<String> = users[1..].iter().map(|u| u.id().to_string()).collect();
    let mut groups = Vec::new();
    for name in ["steady", "restless"] {
        let (status, made) = api.post("/v1/groups", &json!({ "name": name, "users": ids })).await;
        assert_eq!(status, 200, "{made}");
        let thread = made["thread"].as_str().unwrap();
        record.lock().witness.insert(thread.into(), users[0].id().to_string());
        groups.push(thread.parse().unwrap());
    }
    People { users, groups, guests }
}

/// Two members of the second group leave it against their will and come back, again and again; in the end both are in
/// it.
async fn churn(cluster: &Cluster, people: &People, record: &Recorder, phases: watch::Receiver<Phase>, mut rng: Rng) {
    let Thread::Group { gid } = &people.groups[1] else { unreachable!("a group") };
    let edges = cluster.spec().edges;
    let victims = [&people.users[RAW - 1], &people.users[RAW + SDK - 1]];
    let mut inside = [true, true];
    let mut last_word = None;
    loop {
        let writing = *phases.borrow() == Phase::Write;
        let end = (!writing).then(|| *last_word.get_or_insert_with(|| Instant::now() + Duration::from_secs(60)));
        assert!(end.is_none_or(|end| Instant::now() < end), "somebody cannot be brought back into the group");
        if !writing && inside == [true, true] {
            return;
        }
        let v = if writing { rng.index(2) } else { usize::from(inside[0]) };
        let api = Api::new(cluster.edge_addr(rng.index(edges)), Some(people.users[0].tokens.access.clone()));
        let user = victims[v].id();
        let (path, body) = (format!("/v1/groups/{gid}/members"), json!({ "users": [user] }));
        let changed = if inside[v] {
            let path = format!("{path}/{user}");
            tokio::time::timeout(Duration::from_secs(5), api.try_call(Method::DELETE, &path, None)).await
        } else {
            tokio::time::timeout(Duration::from_secs(5), api.try_call(Method::POST, &path, Some(&body))).await
        };
        match changed {
            Ok(Ok((200, _))) => {
                inside[v] = !inside[v];
                record.lock().numbers.membership_changes += 1;
            }
            // Unknown, or done already by an attempt whose answer was lost: what the group says counts.
            other => {
                if !writing {
                    eprintln!("chaos: {user} is not back in the group: {other:?}");
                }
                let shown = tokio::time::timeout(
                    Duration::from_secs(5),
                    api.try_call(Method::GET, &format!("/v1/groups/{gid}"), None),
                )
                .await;
                if let Ok(Ok((200, group))) = shown {
                    inside[v] = group["members"].as_array().unwrap().iter().any(|m| m["user"] == user.as_str());
                }
            }
        }
        // A pace, from the seed.
        sleep(Duration::from_millis(if writing { rng.range(300, 1_500) } else { 200 })).await;
    }
}

/// Every thread of everybody through every edge.
async fn read_all(cluster: &Cluster, people: &People, edges: usize) -> Vec<History> {
    let mut wanted = Vec::new();
    for (i, user) in people.users.iter().enumerate() {
        for thread in people.threads(i) {
            wanted.extend((0..edges).map(|edge| (edge, user, thread.clone())));
        }
    }
    let reads = wanted.into_iter().map(async |(edge, user, thread)| {
        let api = cluster.api(user, edge);
        let messages = whole_by(&api, &thread, edge % 2 == 0, 200).await.iter().map(Message::from).collect();
        History { edge, user: user.id().to_string(), messages, thread: thread.to_string() }
    });
    stream::iter(reads).buffered(4).collect().await
}

fn report(r: &Recording, v: &Verdict, settled: Duration, complete: Duration) {
    eprintln!(
        "chaos: {} written, {} acked, {} found without an ack, {} refused; {} shown to {} readers, {} histories; \
         {} sessions, {} resends, {} fills, {} changes of members; {} phones displaced, {} times somebody was told how \
         somebody is shown; {} said that they have read, {} stored, {} threads listed, {} receipts; \
         slowest ack {} ms, slowest live {} ms; all settled \
         after {:.1} s, all readers complete after {:.1} s",
        r.attempts.len(),
        v.acked,
        v.recovered,
        v.refused,
        v.shown,
        r.readers.len(),
        v.histories,
        r.numbers.sessions,
        r.numbers.resends,
        r.numbers.fills,
        r.numbers.membership_changes,
        v.displaced,
        v.presence,
        v.read_said,
        v.read_stored,
        v.lists,
        v.receipts,
        v.longest_ack_ms,
        v.latest_live_ms,
        settled.as_secs_f64(),
        complete.as_secs_f64(),
    );
}
