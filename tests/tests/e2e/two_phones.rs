//! Two devices of one user where one may be in: the one that has to leave hears who took over, stays away, and comes
//! back when its user wants that; the SDK and `natterjack chat`.

use std::time::Duration;

use natterjack_client::{Client, ClientEvent, Events};
use natterjack_protocol::client::frame::{DeviceClass, Displaced};
use natterjack_testkit::{programs, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, Terminal, User, next_event, next_messages};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

async fn connect(cluster: &Cluster, user: &User, edge: usize, class: DeviceClass, name: &str) -> (Client, Events) {
    let (client, mut events) =
        cluster.client_with(user, edge, |b| b.class(class).device_name(name).app("Teich 1.4")).await;
    attached(&mut events).await;
    (client, events)
}

async fn attached(events: &mut Events) {
    next_event(events, "attached", SOON, |e| matches!(e, ClientEvent::Attached).then_some(())).await;
}

async fn displaced(events: &mut Events) -> Displaced {
    next_event(events, "who took over", SOON, |e| match e {
        ClientEvent::Displaced(displaced) => Some(displaced),
        ClientEvent::Ended { .. } | ClientEvent::LoggedOut { .. } => panic!("ended for good: {e:?}"),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_phone_hears_who_took_over_and_comes_back_when_it_is_told_to() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(2).await;
    let (anna, ben) = (&users[0], &users[1]);
    let (other, thread) = (cluster.other_device(anna, "d-new"), anna.dm(ben));
    let (ben, _bens) = cluster.client(ben, 1).await;
    let (old, mut olds) = connect(&cluster, anna, 0, DeviceClass::Phone, "old phone").await;
    let (new, mut news) = connect(&cluster, &other, 1, DeviceClass::Phone, "new phone").await;
    let by = displaced(&mut olds).await.by;
    assert_eq!((by.device.as_str(), by.name.as_deref(), by.class), ("d-new", Some("new phone"), DeviceClass::Phone));

    // It stays away, whatever its network does; what its user writes waits, what others write it gets later.
    old.network_changed();
    old.send_text(thread.clone(), "from the old one").await.unwrap();
    ben.send_text(thread, "to whichever you hold").await.unwrap();
    assert_eq!(next_messages(&mut news, 1, SOON).await[0].body.text.as_deref(), Some("to whichever you hold"));
    // Four times the longest wait before a first dial.
    let quiet = timeout(Duration::from_secs(2), olds.next()).await;
    assert!(quiet.is_err(), "it says {quiet:?}");
    assert_eq!((old.unsent(), new.take_over().await.unwrap()), (1, false));

    assert!(old.take_over().await.unwrap());
    assert_eq!(displaced(&mut news).await.by.name.as_deref(), Some("old phone"));
    let texts: Vec<_> = next_messages(&mut olds, 2, SOON).await.into_iter().filter_map(|m| m.body.text).collect();
    assert_eq!(texts, ["to whichever you hold", "from the old one"]);
    old.flushed(SOON).await.unwrap();
    let quiet = timeout(Duration::from_secs(2), news.next()).await; // and neither takes turns by itself
    assert!(quiet.is_err(), "it says {quiet:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_shows_who_took_over_and_takes_over_again() {
    let set = [("devices.desktop".to_owned(), "1".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set: set.into(), ..ClusterSpec::default() }).await;
    let (alice, url) = (cluster.user("alice").await, cluster.edge_url(0));
    let args = ["chat", "--edge", &url, "--name", &alice.name, "--device-name", "desk"];
    let password = [("NATTERJACK_PASSWORD", &*alice.password)];
    let mut full = Terminal::start(100, 16, programs::natterjack(), &args, &password);
    full.sees("● ws://", SOON).await;
    let (laptop, mut events) = connect(&cluster, &alice, 1, DeviceClass::Desktop, "laptop").await;
    full.sees("“laptop”, another desktop of yours, has taken over: /here takes over again", SOON).await;
    full.write("/sessions\r");
    full.sees("● laptop · desktop · Teich 1.4 · at ", SOON).await;
    full.sees("○ desk · desktop · natterjack ", SOON).await;
    full.write("/here\r");
    full.sees("● ws://", SOON).await;
    assert_eq!(displaced(&mut events).await.by.name.as_deref(), Some("desk"));

    // Its login is ended from the other one, which is away: it does not log in again with the password it was given.
    let sessions = laptop.list_sessions().await.unwrap();
    let desk = sessions.iter().find(|s| s.name.as_deref() == Some("desk")).expect("in the list");
    assert_eq!(laptop.end_session(&desk.device).await.unwrap(), 1);
    assert!(!full.wait_exit(SOON).await.success());
    full.assert_restored();
    within("the laptop is in again", SOON, laptop.take_over()).await.unwrap();
    attached(&mut events).await;

    // On lines.
    let args = [&args[..], &["--plain"]].concat();
    let mut plain = Terminal::start(100, 16, programs::natterjack(), &args, &password);
    plain.sees("connected to ws://", SOON).await;
    displaced(&mut events).await;
    assert!(laptop.take_over().await.unwrap());
    plain.sees("“laptop”, another desktop of yours, has taken over: /here takes over again", SOON).await;
    plain.write("/here\r");
    displaced(&mut events).await;
    plain.write("/sessions\r");
    plain.sees(" ○ laptop · desktop · Teich 1.4 · ", SOON).await;
    plain.write("/sessions end others\r");
    plain.sees("1 login ended", SOON).await;
    plain.write("/quit\r");
    assert!(plain.wait_exit(SOON).await.success());
}
