//! `natterjack up --host 0.0.0.0`, used from an address of the network: whoever comes by it is led to it, also when the
//! edge leaves.

use std::{collections::BTreeSet, net::TcpListener, time::Duration};

use natterjack_client::{Client, ClientEvent};
use natterjack_protocol::{Body, Kind};
use natterjack_testkit::{eventually_within, net::Subnet, within};
use natterjack_tests::kit::Api;
use rustix::process::Signal;

use super::up::{lines_until_ready, pid, signal, state, up};

const SOON: Duration = Duration::from_secs(30);

/// Two next to each other, free on every address. Not the usual ones: who listens on all addresses takes them from
/// every other test.
fn two_ports() -> u16 {
    for _ in 0..100 {
        let Ok(first) = TcpListener::bind("0.0.0.0:0") else { continue };
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("0.0.0.0", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_in_the_same_network_chats_and_is_never_sent_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (port, file) = (two_ports(), dir.path().join("state.json"));
    let (port_text, state_file) = (port.to_string(), file.display().to_string());
    let more = ["--set", "up.host=0.0.0.0", "--port", &port_text, "--state-file", &state_file];
    let mut child = up(&dir.path().join("data"), Subnet::next(), &more).spawn().unwrap();
    let _stdin = child.stdin.take();
    let lines = lines_until_ready(&mut child).await;
    let Some(line) = lines.iter().find(|l| l.starts_with("from another machine or a phone")) else {
        eprintln!(
            "\n==== SKIPPED: this machine has no address but its loopback, so nobody could come from elsewhere ====\n"
        );
        return;
    };
    let first = line.split_ascii_whitespace().find_map(|w| w.strip_prefix("ws://")).unwrap_or_else(|| panic!("{line}"));
    let addr: std::net::SocketAddr = first.parse().unwrap();
    assert!(addr.port() == port && !addr.ip().is_loopback() && line.contains("in clear"), "{line}");
    let at = |ip: std::net::IpAddr| {
        BTreeSet::from([port, port + 1].map(|p| format!("ws://{}", std::net::SocketAddr::new(ip, p))))
    };

    for ip in [addr.ip(), [127, 0, 0, 1].into()] {
        eventually_within("both edges are listed, by the address that was come to", SOON, async || {
            let (_, list) = Api::new((ip, port).into(), None).get("/v1/edges").await;
            let list: BTreeSet<String> = serde_json::from_value(list["edges"].clone()).unwrap();
            assert!(list.is_subset(&at(ip)), "{list:?}");
            list == at(ip)
        })
        .await;
    }

    let connect = async |name: &str| {
        let url = format!("ws://{addr}");
        let builder = Client::builder().edges([url]).register(name, "correct horse battery");
        within("a client by the address of the network", SOON, builder.connect()).await.unwrap()
    };
    let (phone, mut events) = connect("phone").await;
    let itself = phone.dm(phone.user());
    within("a message", SOON, phone.send_and_wait(itself.clone(), Kind::Text, Body::text("one"))).await.unwrap();
    // Its edge leaves: the other one, by the same address.
    let leaves = pid(&state(&file).await, "/pids/edges/0");
    signal(leaves, Signal::TERM);
    let other = format!("ws://{}", std::net::SocketAddr::new(addr.ip(), port + 1));
    within("the client goes on to the other edge", SOON, async {
        loop {
            match events.next().await {
                Some(ClientEvent::Connected { edge }) if edge == other => break,
                Some(ClientEvent::Connected { edge }) => assert_eq!(edge, format!("ws://{addr}")),
                Some(_) => {}
                None => panic!("the client has ended"),
            }
        }
    })
    .await;
    within("a message by the other edge", SOON, phone.send_and_wait(itself, Kind::Text, Body::text("two")))
        .await
        .unwrap();
    drop(events);
    phone.close().await;
    // A second signal to one that is still leaving would end it hard.
    eventually_within("it has left", SOON, async || pid(&state(&file).await, "/pids/edges/0") != leaves).await;
    signal(child.id().unwrap(), Signal::TERM);
    let ended = within("up ends", Duration::from_secs(40), child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
}
