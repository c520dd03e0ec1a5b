//! Passwords, and what an operator does to an account with `natterjack user`, over real processes.

use std::{process::Stdio, time::Duration};

use natterjack_nats::NatsRole;
use natterjack_protocol::{Code, codec::Codec};
use natterjack_testkit::{patience, programs};
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::common::{SOON, good, refused};

pub const ENDED: Duration = Duration::from_secs(2);
pub const UNAUTHORIZED: u16 = 4001;

/// `natterjack user …` with this on its standard input: what it prints, or why it failed.
pub async fn user_command(cluster: &Cluster, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = tokio::process::Command::new(programs::natterjack());
    command.arg("user").args(args).args(cluster.command_line(NatsRole::Provision)).kill_on_drop(true);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = pipes.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let out = process.wait_with_output().await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(said(&out.stdout)) } else { Err(said(&out.stderr)) }
}

pub async fn log_in(cluster: &Cluster, edge: usize, user: &User, password: &str) -> (u16, Value) {
    cluster.anonymous(edge).post("/v1/login", &json!({ "name": user.name, "password": password })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_disabled_is_out_everywhere() {
    // Alone: that it takes no longer than two seconds is asserted.
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let phone = alice.log_in(&cluster, 1).await;
    let mut at = (cluster.raw(&alice, 0, Codec::Json).await, cluster.raw(&phone, 1, Codec::Msgpack).await);
    let mut stays = cluster.raw(&bob, 1, Codec::Json).await;
    let began = Instant::now();
    let disable = ["disable", alice.name.as_str()];
    let (said, _) = tokio::join!(user_command(&cluster, &disable, ""), async {
        assert_eq!(tokio::join!(at.0.until_closed(SOON), at.1.until_closed(SOON)), (UNAUTHORIZED, UNAUTHORIZED));
    });
    let said = said.unwrap();
    assert!(began.elapsed() <= patience(ENDED), "with the start of the command: {:?}", began.elapsed());
    assert!(said.contains("disabled; 2 logins ended"), "{said}");
    for edge in 0..2 {
        refused(log_in(&cluster, edge, &alice, &alice.password).await, Code::AccountDisabled);
        refused(log_in(&cluster, edge, &alice, "wrong password").await, Code::Unauthorized);
        refused(cluster.api(&phone, edge).get("/v1/threads").await, Code::Unauthorized);
    }
    // The SDK is told so, and does not go on asking.
    let sdk = natterjack_client::Client::builder().edges([cluster.edge_url(0)]).login(&alice.name, &alice.password);
    let Err(e) = sdk.connect().await else { panic!("it is disabled") };
    assert!(format!("{e:?}").contains("AccountDisabled"), "{e:?}");
    stays.send_text(&bob.dm(&bob), "still here").await.unwrap();
    let list = user_command(&cluster, &["list"], "").await.unwrap();
    let line =
        |name: &str| list.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {list}")).to_owned();
    assert!(line(&alice.name).ends_with("disabled") && !line(&bob.name).contains("disabled"), "{list}");

    user_command(&cluster, &["enable", &alice.name], "").await.unwrap();
    let device = good(log_in(&cluster, 1, &alice, &alice.password).await)["device"].as_str().unwrap().to_owned();
    let shown = user_command(&cluster, &["show", &alice.name.to_uppercase()], "").await.unwrap();
    assert!(shown.contains(&device) && shown.contains(alice.id().as_str()) && !shown.contains("disabled"), "{shown}");
    assert!(!shown.contains("connected"), "{shown}");

    // A password from standard input.
    assert!(user_command(&cluster, &["passwd", &alice.name], "").await.unwrap_err().contains("no password"));
    assert!(user_command(&cluster, &["passwd", &alice.name], "short\n").await.unwrap_err().contains("invalid"));
    let said = user_command(&cluster, &["passwd", &alice.name], "a password of the operator\n").await.unwrap();
    assert!(said.contains("1 logins ended"), "{said}");
    refused(log_in(&cluster, 0, &alice, &alice.password).await, Code::Unauthorized);
    good(log_in(&cluster, 0, &alice, "a password of the operator").await);
    assert!(user_command(&cluster, &["logout", &alice.name], "").await.unwrap().contains("1 logins ended"));
    let nobody = user_command(&cluster, &["logout", "nobody-at-all"], "").await.unwrap_err();
    assert!(nobody.contains("there is no account nobody-at-all"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_made_with_an_invite() {
    let set = vec![("accounts.registration".to_owned(), "invite".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let register = async |edge: usize, name: &str, invite: Option<&str>| {
        let mut body = json!({ "name": name, "password": "correct horse battery" });
        if let Some(code) = invite {
            body["invite"] = code.into();
        }
        cluster.anonymous(edge).post("/v1/register", &body).await
    };
    refused(register(0, "alice", None).await, Code::BadInvite);
    refused(register(0, "alice", Some("i000")).await, Code::BadInvite);
    refused(register(0, "alice", Some("no code!")).await, Code::BadFrame);
    let said = user_command(&cluster, &["invite"], "").await.unwrap();
    let code = said.split_whitespace().next().unwrap().to_owned();
    // Two at once, at two edges, with the only use.
    let both = tokio::join!(register(0, "alice", Some(&code)), register(1, "bob", Some(&code)));
    let statuses = [both.0.0, both.1.0];
    assert!(statuses == [200, 403] || statuses == [403, 200], "{both:?}");
    refused(register(1, "carol", Some(&code)).await, Code::BadInvite);
    // The SDK, with one of several.
    let said = user_command(&cluster, &["invite", "--uses", "2", "--expires", "1"], "").await.unwrap();
    let code = natterjack_protocol::Token::parse(said.split_whitespace().next().unwrap()).unwrap();
    for name in ["dora", "emma"] {
        let sdk =
            natterjack_client::Client::builder().edges([cluster.edge_url(0)]).register(name, "correct horse battery");
        let (client, _events) = sdk.invite(code.clone()).connect().await.unwrap();
        client.close().await;
    }
    refused(register(0, "fred", Some(code.as_str())).await, Code::BadInvite);
    let wrong = user_command(&cluster, &["invite", "--uses", "0"], "").await.unwrap_err();
    assert!(wrong.contains("--uses"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_and_all_other_logins_end() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let alice = cluster.user("alice").await;
    let other = alice.log_in(&cluster, 1).await;
    let mut at_other = cluster.raw(&other, 1, Codec::Json).await;
    let mut mine = cluster.raw(&alice, 0, Codec::Json).await;
    let api = cluster.api(&alice, 0);
    let change = async |old: &str, new: &str| api.post("/v1/password", &json!({ "old": old, "new": new })).await;
    refused(change("wrong password", "another password").await, Code::Forbidden);
    refused(change(&alice.password, "short").await, Code::Invalid);
    good(log_in(&cluster, 1, &alice, &alice.password).await);
    assert_eq!(good(change(&alice.password, "another password").await), json!({ "ended": 2 }));
    assert_eq!(at_other.until_closed(SOON).await, UNAUTHORIZED);
    mine.send_text(&alice.dm(&alice), "still here").await.unwrap();
    assert_eq!(good(change(&alice.password, "another password").await), json!({ "ended": 0 }), "the answer was lost");
    refused(log_in(&cluster, 0, &alice, &alice.password).await, Code::Unauthorized);
    good(log_in(&cluster, 0, &alice, "another password").await);

    // The SDK.
    let (client, _events) = alice.builder([cluster.edge_url(1)]).connect().await.unwrap();
    assert_eq!(client.change_password("another password", "the third password").await.unwrap(), 1);
    client.close().await;
    // Whoever has somebody's device in their hands may not guess for long; logins elsewhere are not concerned.
    let mut wrong = 0;
    while change("wrong password", "another password").await.0 == Code::Forbidden.http_status() {
        wrong += 1;
        assert!(wrong <= 60);
    }
    refused(change("wrong password", "another password").await, Code::RateLimited);
    good(log_in(&cluster, 0, &alice, "the third password").await);
}
