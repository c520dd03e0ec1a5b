//! Who is told of a membership can read it: control entries are in KV before their event goes out.

use natterjack_nats::{KvBuckets, serve, subjects};
use natterjack_protocol::{
    Code, Kind, MsgId, Refusal,
    internal::{
        live::LiveMessage,
        rpc::{DirectoryAnswer, DirectoryRequest},
    },
    log::{Role, fold::UserThreads},
};
use natterjack_testkit::{NatsServer, eventually, thread};

use crate::kit::{Instance, Observer, What, Writer, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_entry_is_in_kv_before_its_event_is_seen() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let buckets = KvBuckets::new(&nats, layout);
    for u in ["a", "b", "c"] {
        buckets.threads(&user(u)).create_if_absent(&UserThreads::default()).await.unwrap();
    }
    let instance = Instance::start(&server, "one");
    let g = thread("group.g");
    let mut last = MsgId::NONE;
    let steps: [(&str, Kind, &[&str], &[&str]); 5] = [
        ("a", Kind::GroupCreated, &["b"], &["a", "b"]),
        ("a", Kind::MemberAdded, &["c"], &["c"]),
        ("a", Kind::GroupRenamed, &[], &[]),
        ("a", Kind::MemberRemoved, &["b"], &["b"]),
        ("c", Kind::MemberLeft, &[], &["c"]),
    ];
    for (from, kind, users, affected) in steps {
        last = writer.control(&g, from, kind, users, last).await;
        eventually("the control event", async || observer.saw_event("live.group.g.e", last)).await;
        // From the moment of the event on, at the latest.
        let (group, _) = buckets.group(&user("g")).load_with_revision().await.unwrap().unwrap();
        assert_eq!(group.version, last);
        for u in affected {
            let (threads, _) = buckets.threads(&user(u)).root().load_with_revision().await.unwrap().unwrap();
            assert_eq!(threads.threads[&g].v, last, "{u} at {kind:?}");
            let subject = subjects::live_user(&user(u));
            eventually("the member signal", async || {
                observer.with(|all| all.iter().any(|s| s.subject == subject && is_signal(&s.what, last)))
            })
            .await;
        }
        let signals = observer.with(|all| all.iter().filter(|s| is_signal(&s.what, last)).count());
        assert_eq!(signals, affected.len(), "{kind:?}: nobody else is told");
    }
    let (group, _) = buckets.group(&user("g")).load_with_revision().await.unwrap().unwrap();
    assert_eq!(
        (group.role(&user("a")), group.role(&user("b")), group.role(&user("c"))),
        (Some(Role::Owner), None, None)
    );

    let dm = thread("dm.a.b");
    let started = writer.control(&dm, "a", Kind::DmStarted, &["b"], MsgId::NONE).await;
    let blocked = writer.control(&dm, "b", Kind::Blocked, &[], started).await;
    for u in ["a", "b"] {
        let subject = subjects::live_user(&user(u));
        eventually("the block on both subjects", async || observer.saw_event(&subject, blocked)).await;
        let item = buckets.threads(&user(u)).root().load_with_revision().await.unwrap().unwrap().0.threads[&dm].clone();
        assert_eq!((item.v, item.blocks, item.blocked_by), (blocked, u == "b", u == "a"));
    }
    observer.has_everything(&writer).await;
    instance.stop().await;
}

fn is_signal(what: &What, of: MsgId) -> bool {
    matches!(what, What::Live(LiveMessage::Member { id, .. }) if *id == of)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_is_asked_for_and_never_made_here() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let buckets = KvBuckets::new(&nats, layout);
    buckets.threads(&user("a")).create_if_absent(&UserThreads::default()).await.unwrap();
    let instance = Instance::start(&server, "one");

    // Nobody there to ask: the entry goes on after a bounded wait, and nothing is invented.
    let ghost = thread("dm.a.ghost");
    let started = writer.control(&ghost, "a", Kind::DmStarted, &["ghost"], MsgId::NONE).await;
    eventually("the event in spite of the lost key", async || observer.saw_event("live.user.ghost.e", started)).await;
    assert!(buckets.threads(&user("ghost")).root().load_with_revision().await.unwrap().is_none());
    assert_eq!(
        buckets.threads(&user("a")).root().load_with_revision().await.unwrap().unwrap().0.threads[&ghost].v,
        started
    );

    // `directory` as far as this needs it: it knows one user.
    let state = buckets.clone();
    let directory =
        serve(&nats, subjects::DIRECTORY.into(), Some(subjects::DIRECTORY), 8, move |request: DirectoryRequest| {
            let state = state.clone();
            async move {
                match request {
                    DirectoryRequest::RebuildThreads { user } if user.as_str() == "lost" => {
                        let before = UserThreads::default();
                        state
                            .threads(&user)
                            .root()
                            .compare_and_set(&before, 0)
                            .await
                            .map_err(|_| Refusal::unavailable("not now"))?;
                        Ok(DirectoryAnswer::Done)
                    }
                    _ => Err(Refusal::new(Code::NotFound, "no such user")),
                }
            }
        })
        .await
        .unwrap();
    let dm = thread("dm.a.lost");
    let started = writer.control(&dm, "a", Kind::DmStarted, &["lost"], MsgId::NONE).await;
    eventually("the event behind the rebuilt key", async || observer.saw_event("live.user.lost.e", started)).await;
    assert_eq!(
        buckets.threads(&user("lost")).root().load_with_revision().await.unwrap().unwrap().0.threads[&dm].v,
        started
    );
    observer.has_everything(&writer).await;
    directory.drain().await;
    instance.stop().await;
}
