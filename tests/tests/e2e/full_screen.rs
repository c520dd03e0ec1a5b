//! `natterjack chat` on a real pseudo-terminal: two people chat, scroll, paste, resize, and get their terminals back.

use std::time::Duration;

use natterjack_client::At;
use natterjack_testkit::{eventually_within, programs};
use natterjack_tests::kit::{Cluster, ClusterSpec, Terminal, User};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);
const PAGE_UP: &str = "\x1b[5~";

fn chat(cluster: &Cluster, edge: usize, user: &User, more: &[&str], size: (u16, u16)) -> Terminal {
    let url = cluster.edge_url(edge);
    let args = [&["chat", "--edge", &url, "--name", &user.name][..], more].concat();
    Terminal::start(size.0, size.1, programs::natterjack(), &args, &[("NATTERJACK_PASSWORD", &user.password)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_chat_on_two_full_screens() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let mut a = chat(&cluster, 0, &alice, &["--to", &bob.name], (90, 24));
    let mut b = chat(&cluster, 1, &bob, &["--to", &alice.name], (50, 12));
    a.sees("●", SOON).await;
    b.sees("●", SOON).await;
    a.sees(&format!("│ {}", bob.name), SOON).await;
    b.sees(&alice.name, SOON).await;
    assert!(a.is_full_screen() && b.is_full_screen());

    // A message with what is wide and what combines; delivered here, seen there.
    a.write("toads: 蟾蜍 🐸 e\u{301}\r");
    a.sees("toads: 蟾蜍 🐸 e\u{301} ✓", SOON).await;
    b.sees("toads: 蟾蜍 🐸 e\u{301}", SOON).await;
    b.write("let me th");
    a.sees(&format!("{} is typing…", bob.name), SOON).await;
    b.write("ink\r");
    a.sees("let me think", SOON).await;

    // A pasted text is one message, also with its line breaks.
    b.write("\x1b[200~first line\rsecond line\x1b[201~");
    b.sees("  second line", SOON).await;
    b.write("\r");
    a.sees("  first line", SOON).await;
    a.sees("  second line", SOON).await;

    // Commands are those of the line mode.
    a.write("/group new choir ");
    a.write(&format!("{}\r", bob.name));
    a.sees("│ #choir", SOON).await;
    a.write("all together\r");
    a.sees("all together ✓", SOON).await;
    // Bob is told, on a narrow screen, and goes there.
    b.write("\t");
    b.sees("all together", SOON).await;
    b.sees("#choir", SOON).await;

    // Smaller, narrower, and everything that matters is still there.
    a.resize(30, 6);
    a.sees("all together ✓", SOON).await;
    eventually_within("it is drawn for the new size", SOON, async || !a.text().contains('│')).await;

    a.write("\x03");
    assert!(a.wait_exit(SOON).await.success());
    a.assert_restored();
    b.signal(Signal::TERM);
    assert!(b.wait_exit(SOON).await.success());
    b.assert_restored();
    cluster.assert_not_logged("all together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_to_the_beginning_and_an_edge_that_dies() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let (client, _events) = cluster.client(&bob, 0).await;
    let thread = alice.dm(&bob);
    for n in 1..=250 {
        client.send_text(thread.clone(), format!("croak {n:03}")).await.unwrap();
    }
    client.flushed(SOON).await.unwrap();
    eventually_within("history has them", SOON, async || {
        client
            .history(thread.clone(), At::Newest, 1)
            .await
            .is_ok_and(|p| p.events.last().and_then(|e| e.body.text.as_deref()) == Some("croak 250"))
    })
    .await;

    // Without --to: the latest thread.
    let other = cluster.edge_url(0);
    let mut a = chat(&cluster, 1, &alice, &["--edge", &other], (80, 20));
    a.sees("croak 250", SOON).await;
    eventually_within("the beginning is on the screen", SOON, async || {
        a.write(PAGE_UP);
        a.text().contains("this is the beginning")
    })
    .await;
    a.sees("croak 001", SOON).await;
    // Something new comes below; Esc goes there.
    client.send_text(thread.clone(), "the latest croak").await.unwrap();
    a.sees("↓ 1 new", SOON).await;
    assert!(!a.text().contains("the latest croak"));
    a.write("\x1b");
    a.sees("the latest croak", SOON).await;

    // The edge that the status line names.
    let on =
        (0..2).find(|i| a.text().contains(&format!("● {} ", cluster.edge_url(*i)))).expect("connected to one of them");
    cluster.edge(on).kill9().await;
    a.write("through the storm\r");
    a.sees("through the storm ✓", SOON).await;
    a.sees("● ws://", SOON).await;
    a.write("/quit\r");
    assert!(a.wait_exit(SOON).await.success());
    a.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_lines_on_request() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let alice = cluster.user("alice").await;
    let mut a = chat(&cluster, 0, &alice, &["--plain"], (80, 20));
    a.sees("connected to ws://", SOON).await;
    assert!(!a.is_full_screen());
    a.write("/quit\r");
    assert!(a.wait_exit(SOON).await.success());
    a.assert_restored();
}
