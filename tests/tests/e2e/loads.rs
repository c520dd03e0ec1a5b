//! `natterjack bench reading` in small: that each of its loads runs through and misses nothing. No figure is judged.

use std::{process::Stdio, time::Duration};

use natterjack_testkit::{net::Subnet, programs, within};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::up::{self, ready_line};

/// A young log is waited for first.
const RUN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reading_costs_is_measured_to_the_last_reader() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Subnet::next());
    let file = dir.path().join("state.json").display().to_string();
    let args = ["--state-file", &file, "--set", "limits.sends_per_user=0"];
    let mut child = up::up(&dir.path().join("data"), net, &args).spawn().unwrap();
    let _stdin = child.stdin.take();
    ready_line(&mut child).await;
    let mut bench = Command::new(programs::natterjack());
    bench.args(["bench", "--json", "--state", &file, "reading", "--members", "12", "--rounds", "2"]);
    bench.args(["--users", "40", "--threads", "5", "--within", "1"]);
    bench.stdin(Stdio::null()).kill_on_drop(true);
    let out = within("the loads run through", RUN, bench.output()).await.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let [at_once, starts] = said["loads"].as_array().unwrap().as_slice() else { panic!("{said}") };
    assert_eq!((&at_once["delivered"], &at_once["missing"]), (&json!(24), &json!(0)), "{at_once}");
    assert!(at_once["ack"]["max_us"].as_u64().is_some_and(|us| us > 0), "{at_once}");
    let notes = at_once["notes"].to_string();
    assert!(notes.contains("of 22 of 22 readers") && notes.contains(" writes to KV of what 24 have read"), "{notes}");
    assert_eq!((&starts["delivered"], &starts["missing"]), (&json!(40), &json!(0)), "{starts}");
    assert!(starts["delivery"]["max_us"].as_u64().is_some_and(|us| us > 0), "{starts}");
}
