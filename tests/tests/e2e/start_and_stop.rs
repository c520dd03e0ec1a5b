//! What a start and a stop that go well say, and what they leave behind.

use std::{fs::File, net::SocketAddr, path::Path, time::Duration};

use natterjack_testkit::{eventually_within, net::Subnet, programs, within};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use super::up::{START, ready_line, signal, up};

/// Of a role, from its start to its end. More than a handful is not read.
const LINES: usize = 5;

fn lines<'a>(log: &'a str, level: &str) -> Vec<&'a str> {
    log.lines().filter(|l| l.split_ascii_whitespace().nth(1) == Some(level)).collect()
}

fn says_little(what: &str, log: &str, info: usize) {
    for level in ["WARN", "ERROR"] {
        assert!(lines(log, level).is_empty(), "{what} has a {level}:\n{log}");
    }
    let said = lines(log, "INFO").len();
    assert!((1..=info).contains(&said), "{what} says {said} lines, {info} are enough:\n{log}");
}

fn stopped_cleanly(log: &str) -> usize {
    log.lines().filter(|l| l.contains("stopped cleanly")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_says_little_when_it_starts_and_that_it_stopped_cleanly() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let roles = [cluster.edge(0), cluster.persister(0), cluster.channel(0)];
    for role in roles {
        eventually_within("it says that it is ready", START, async || role.log().contains("is ready")).await;
        says_little(role.name(), &role.log(), LINES);
    }
    // Every partition is a part by itself.
    let health: Value =
        reqwest::get(format!("http://{}/health", cluster.persister_admin(0))).await.unwrap().json().await.unwrap();
    for part in ["archive.1-0", "archive.1-1"] {
        assert_eq!(health["parts"][part], "ok", "{health}");
    }
    for role in roles {
        let status = role.terminate().await;
        assert_eq!(status.code(), Some(0), "{} ended with {status}", role.name());
        assert_eq!(stopped_cleanly(&role.log()), 1, "{}", role.log());
    }
    for role in [cluster.channel(0), cluster.persister(0)] {
        says_little(role.name(), &role.log(), LINES + 2);
    }
}

/// Somebody's notes to themselves, the last of them just before the stop.
async fn write(edge: SocketAddr, messages: usize) -> Vec<String> {
    let api = Api::new(edge, None);
    let (status, body) =
        api.post("/v1/register", &json!({ "name": "toad", "password": "correct horse battery" })).await;
    assert_eq!(status, 200, "{body}");
    let (api, me) = (api.with_token(body["access"].as_str().unwrap()), body["user"].as_str().unwrap());
    let mut sent = Vec::new();
    for n in 0..messages {
        let text = format!("note number {n} of {me}");
        let message = json!({ "cid": uuid::Uuid::now_v7(), "kind": "text", "body": { "text": text } });
        let (status, body) = api.post(&format!("/v1/threads/dm.{me}.{me}/messages"), &message).await;
        assert_eq!(status, 200, "{body}");
        sent.push(text);
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_starts_with_a_few_lines_and_stops_with_everything_in_one_file() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Subnet::next());
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let said = || std::fs::read_to_string(&log).unwrap();
    let mut child = up(&data, net, &["--port", "8080"]).stderr(File::create(&log).unwrap()).spawn().unwrap();
    let _stdin = child.stdin.take();
    ready_line(&mut child).await;
    eventually_within("both edges say that they are ready", START, async || {
        said().matches("edge is ready").count() == 2
    })
    .await;
    // Four processes' together.
    says_little("up", &said(), 2 * LINES);

    let sent = write(net.edge(0), 50).await;
    let copy = dir.path().join("copy");
    let made = command(&["backup", path(&copy), "--data", path(&data)]).await;
    assert!(copy.join("manifest.json").is_file(), "{made}");
    let refused = command(&["restore", path(&copy), "--data", path(&data)]).await;
    assert!(refused.contains("another `natterjack up`"), "{refused}");
    signal(child.id().unwrap(), Signal::TERM);
    let ended = within("up ends", Duration::from_secs(40), child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", said());
    let all = said();
    assert!(all.lines().last().is_some_and(|l| l.contains("stopped cleanly")), "{all}");
    for level in ["WARN", "ERROR"] {
        assert!(lines(&all, level).is_empty(), "{all}");
    }
    assert_eq!(beside(&data), ["archive.db"], "the archive is closed: no journal stands beside it");
    // SQLite keeps a text as it is.
    let file = std::fs::read(data.join("archive.db")).unwrap();
    for text in &sent {
        assert!(file.windows(text.len()).any(|w| w == text.as_bytes()), "{text} is not in archive.db alone");
    }

    // The copy, made while it ran, in another place.
    let other = dir.path().join("other");
    let made = command(&["restore", path(&copy), "--data", path(&other)]).await;
    assert!(made.contains("generation 2"), "{made}");
    let mut child = up(&other, net, &["--port", "8080"]).spawn().unwrap();
    let _stdin = child.stdin.take();
    ready_line(&mut child).await;
    let (status, me) = Api::new(net.edge(0), None)
        .post("/v1/login", &json!({ "name": "toad", "password": "correct horse battery" }))
        .await;
    assert_eq!(status, 200, "{me}");
    let (api, me) = (Api::new(net.edge(0), me["access"].as_str().map(str::to_owned)), me["user"].as_str().unwrap());
    let (status, page) = api.get(&format!("/v1/threads/dm.{me}.{me}/messages?limit=100")).await;
    let texts = page["events"].as_array().unwrap().iter().filter_map(|e| e["body"]["text"].as_str());
    assert_eq!((status, texts.collect::<Vec<_>>()), (200, sent.iter().map(String::as_str).collect()));
}

/// What it says, however it ends.
async fn command(args: &[&str]) -> String {
    let mut command = Command::new(programs::natterjack());
    let out = command.args(args).env("NATTERJACK_NATS_SERVER", programs::nats_server()).output().await.unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn beside(data: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with("archive")).collect()
}
