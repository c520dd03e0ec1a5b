//! `natterjack up`: four processes, ready soon, an edge that comes back, clear words when something is in the way.

use std::{
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use natterjack_testkit::{eventually_within, net::Subnet, process::resident_mib, programs, within};
use natterjack_tests::kit::Api;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

pub const START: Duration = Duration::from_secs(90);

pub fn up(data: &Path, net: Subnet, more: &[&str]) -> Command {
    let mut c = Command::new("setpriv");
    c.args(["--pdeathsig", "KILL", "--"])
        .arg(programs::natterjack())
        .args(["up", "--die-with-parent", "--data"])
        .arg(data);
    c.args(["--host", &net.edge(0).ip().to_string()]).args(more);
    c.env("NATTERJACK_NATS_SERVER", programs::nats_server())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    c
}

/// One that cannot start: it must say so and end by itself.
async fn refused(mut command: Command) -> String {
    let mut child = command.spawn().unwrap();
    // Held, so that its end is not the parent's.
    let _stdin = child.stdin.take();
    let Output { status, stderr, .. } = within("up refuses to start", START, child.wait_with_output()).await.unwrap();
    assert!(!status.success());
    String::from_utf8_lossy(&stderr).into_owned()
}

pub async fn state(file: &Path) -> Value {
    eventually_within("the state file is there", START, async || {
        std::fs::read(file)
            .map_err(|e| e.to_string())
            .and_then(|b| serde_json::from_slice::<Value>(&b).map_err(|e| e.to_string()))
    })
    .await
}

pub fn pid(state: &Value, at: &str) -> u32 {
    state.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("{at} in {state}")).try_into().unwrap()
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn is_running(pid: u32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
}

/// All that it says up to the line that begins with ready.
pub async fn lines_until_ready(child: &mut Child) -> Vec<String> {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    within("the line that begins with ready", START, async {
        let mut said = Vec::new();
        loop {
            said.push(lines.next_line().await.unwrap().expect("up ended instead of getting ready"));
            if said.last().is_some_and(|line| line.starts_with("ready")) {
                return said;
            }
        }
    })
    .await
}

pub async fn ready_line(child: &mut Child) -> String {
    lines_until_ready(child).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_that_survive_what_happens_to_them() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Subnet::next());
    let (data, file) = (dir.path().join("data"), dir.path().join("state.json"));
    let state_file = file.display().to_string();
    // NATS listens on 127.0.0.1 alone, so its port is left to be chosen.
    let args = ["--port", "8080", "--state-file", &state_file];
    let mut child = up(&data, net, &args).spawn().unwrap();
    // Its end would be the parent's; `wait` closes it.
    let _stdin = child.stdin.take();
    let ready = ready_line(&mut child).await;
    let edges = [net.edge(0), (net.edge(0).ip(), 8081).into()];
    for word in [format!("ws://{}", edges[0]), format!("ws://{}", edges[1]), "natterjack chat".into()] {
        assert!(ready.contains(&word), "{word} is missing in: {ready}");
    }

    let before = state(&file).await;
    // What is for operators is on addresses of its own, and each process has one.
    for (n, metric) in ["natterjack_persister_", "natterjack_edge_", "natterjack_edge_"].into_iter().enumerate() {
        let addr = before["admin"][n].as_str().unwrap().parse().unwrap();
        let (status, text) = Api::new(addr, None).get("/metrics").await;
        assert!(status == 200 && text.as_str().unwrap().contains(metric), "{n}: {text}");
    }
    assert_eq!(Api::new(edges[0], None).get("/metrics").await.0, 404);
    let all = ["/pids/up", "/pids/nats", "/pids/edges/0", "/pids/edges/1"].map(|at| pid(&before, at));
    let resident: u64 = all.iter().map(|pid| resident_mib(*pid)).sum();
    // Twice the target, because this is not the release build.
    assert!(resident < 600, "{resident} MiB resident when idle");

    // The second edge is killed and comes back where it was.
    let name = json!({ "name": "toad", "password": "correct horse battery" });
    let (status, body) = Api::new(edges[1], None).post("/v1/register", &name).await;
    assert_eq!(status, 200, "{body}");
    signal(all[3], Signal::KILL);
    eventually_within("the edge is back with a new process", START, async || {
        let now = state(&file).await;
        let answer = Api::new(edges[1], None).try_call(Method::GET, "/ready", None).await;
        pid(&now, "/pids/edges/1") != all[3] && answer.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    // nats-server is killed and comes back with what it had.
    signal(all[1], Signal::KILL);
    eventually_within("logging in works again", START, async || {
        match Api::new(edges[1], None).try_call(Method::POST, "/v1/login", Some(&name)).await {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(e) => Err(e.to_string()),
        }
    })
    .await;

    // The log goes on with another number of partitions, which is nobody's configuration.
    let now = state(&file).await;
    let nats = format!("nats.urls={}", now["nats_url"].as_str().unwrap());
    let mut provision = Command::new(programs::natterjack());
    let out = provision.args(["provision", "--partitions", "3", "--set", &nats]).output().await.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    eventually_within("the edges go on", START, async || {
        let answer = Api::new(edges[0], None).try_call(Method::GET, "/ready", None).await;
        answer.is_ok_and(|(status, _)| status == 200)
    })
    .await;

    // A second one on the same folder is refused, with the reason.
    let other = up(&data, Subnet::next(), &[]);
    let said = refused(other).await;
    assert!(said.contains("another `natterjack up`") && said.contains("--data"), "{said}");

    // SIGTERM drains: all four end, and nothing is left behind.
    let last = state(&file).await;
    let all = ["/pids/up", "/pids/nats", "/pids/edges/0", "/pids/edges/1"].map(|at| pid(&last, at));
    signal(all[0], Signal::TERM);
    let ended = within("up ends", Duration::from_secs(40), child.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
    for pid in all {
        assert!(!is_running(pid), "process {pid} was left behind");
    }
    assert!(!file.exists(), "the state file of nothing");

    // Everything is there after a restart.
    let mark = data.join("running");
    assert!(!mark.exists(), "it ended in good order");
    let mut child = up(&data, net, &args).spawn().unwrap();
    let _stdin = child.stdin.take();
    ready_line(&mut child).await;
    let (status, body) = Api::new(edges[0], None).post("/v1/login", &name).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(generation(&state(&file).await).await, 2);

    // Killed as a machine is: what the log had not synced may be gone, so it goes on above every id that can have been
    // given.
    let last = state(&file).await;
    let all = ["/pids/up", "/pids/nats", "/pids/edges/0", "/pids/edges/1"].map(|at| pid(&last, at));
    signal(all[0], Signal::KILL);
    child.wait().await.unwrap();
    eventually_within("its children end", START, async || all.iter().all(|pid| !is_running(*pid))).await;
    assert!(mark.exists());
    std::fs::write(&mark, "another boot\n").unwrap();
    std::fs::remove_file(&file).unwrap();
    let mut child = up(&data, net, &args).spawn().unwrap();
    let _stdin = child.stdin.take();
    ready_line(&mut child).await;
    assert_eq!(generation(&state(&file).await).await, 3);
    assert_ne!(std::fs::read_to_string(&mark).unwrap(), "another boot\n", "the next start has nothing to do");
    let (status, body) = Api::new(edges[0], None).post("/v1/login", &name).await;
    assert_eq!(status, 200, "{body}");
}

async fn generation(state: &Value) -> u32 {
    let cfg =
        natterjack_nats::NatsConfig { urls: vec![state["nats_url"].as_str().unwrap().into()], ..Default::default() };
    let nats = natterjack_nats::Nats::connect(&cfg, "test").await.unwrap();
    natterjack_nats::Layout::load(&nats).await.unwrap().generation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_said_clearly_if_it_was_asked_for() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Subnet::next());
    let _taken = TcpListener::bind((net.edge(0).ip(), 8081)).unwrap();
    let said = refused(up(&dir.path().join("data"), net, &["--port", "8080"])).await;
    assert!(said.contains("8081") && said.contains("taken"), "{said}");
    // One line of words, not a backtrace.
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_nats_server_and_a_bad_folder_are_said_clearly() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, net) = (tempfile::tempdir().unwrap(), Subnet::next());
    let old = dir.path().join("nats-server");
    std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.10.7'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = up(&dir.path().join("data"), net, &[]);
    command.env("NATTERJACK_NATS_SERVER", &old);
    let said = refused(command).await;
    assert!(said.contains("2.10.7") && said.contains("too old"), "{said}");
    let said = refused(up(&old, net, &[])).await;
    assert!(said.contains("--data"), "{said}");
}

/// A disk of its own, in a mount namespace that ends with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let started = up(dir.path(), Subnet::next(), &[]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", r#"mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@""#]);
    command.arg(dir.path()).arg(started.as_std().get_program()).args(started.as_std().get_args());
    command.env("NATTERJACK_NATS_SERVER", programs::nats_server());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let said = refused(command).await;
    assert!(said.contains("the disk is full: 0 MB") && said.contains("256 MB are needed"), "{said}");
}
