//! One real process that can be killed, frozen and started again. It dies with the test, also when the test is killed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{eventually_within, within};

pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    ready: Ready,
    start: Duration,
    child: Mutex<Option<Running>>,
}

/// Killed and gone when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How much of memory a process takes now.
pub fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// How one knows that a process answers.
#[derive(Debug, Clone)]
pub enum Ready {
    /// `GET` gives 200.
    Http(String),
    /// Somebody listens.
    Tcp(std::net::SocketAddr),
    /// Nobody asks.
    Started,
}

/// Long enough for a cold start on a busy machine.
const START: Duration = Duration::from_secs(30);

impl Process {
    pub fn new(name: impl Into<String>, program: &Path, args: Vec<String>, logs: &Path, ready: Ready) -> Self {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        Self {
            name,
            program: program.to_owned(),
            args,
            env: Vec::new(),
            log,
            ready,
            start: START,
            child: Mutex::new(None),
        }
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Started by a shell that says this first, and is the process afterwards.
    pub fn behind(mut self, first: &str) -> Self {
        let own = std::mem::replace(&mut self.program, "/bin/sh".into());
        let shell = ["-c".to_owned(), format!("{first}; exec \"$0\" \"$@\""), own.display().to_string()];
        self.args.splice(0..0, shell);
        self
    }

    /// For what takes longer to start.
    pub fn patient(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, without waiting until it answers.
    pub fn spawn(&self) {
        let mut held = self.held();
        assert!(held.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            // Kept open: `--die-with-parent` watches it.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", self.name));
        *held = Some(Running(child));
    }

    /// Starts it and waits until it answers.
    pub async fn start(&self) {
        self.spawn();
        self.wait_ready().await;
    }

    pub async fn wait_ready(&self) {
        // Asked by address; whether its certificate is good is for the tests of that.
        let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
        eventually_within(&format!("{} is ready", self.name), self.start, async || {
            if let Some(status) = self.exited() {
                panic!("{} ended with {status} instead of starting:\n{}", self.name, self.log_tail(30));
            }
            match &self.ready {
                Ready::Started => Ok(()),
                Ready::Tcp(addr) => tokio::net::TcpStream::connect(addr).await.map(drop).map_err(|e| e.to_string()),
                Ready::Http(url) => match http.get(url).timeout(Duration::from_secs(1)).send().await {
                    Ok(r) if r.status().is_success() => Ok(()),
                    Ok(r) => Err(format!("{} {}", r.status(), r.text().await.unwrap_or_default())),
                    Err(e) => Err(e.to_string()),
                },
            }
        })
        .await;
    }

    fn held(&self) -> MutexGuard<'_, Option<Running>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exited(&self) -> Option<ExitStatus> {
        self.held().as_mut().and_then(|running| running.0.try_wait().unwrap())
    }

    pub fn is_running(&self) -> bool {
        self.held().as_mut().is_some_and(|running| running.0.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.held().as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).0.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|e| panic!("signalling {}: {e}", self.name));
    }

    /// SIGKILL, also to a frozen process; returns when it is gone. One that is gone already is left alone.
    pub fn kill(&self) {
        drop(self.held().take());
    }

    /// SIGKILL to a process that runs; returns when it is gone.
    pub async fn kill9(&self) {
        self.signal(Signal::KILL);
        self.wait_exit(Duration::from_secs(10)).await;
    }

    /// Asks it to drain and end; does not wait.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&self) -> ExitStatus {
        self.sigterm();
        self.wait_exit(Duration::from_secs(30)).await
    }

    /// Freezes it: sockets stay open, nobody answers. Returns when the last of its threads has stopped.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        if let Some(child) = &*self.held() {
            wait_until_stopped(child.0.id());
        }
    }

    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    pub async fn wait_exit(&self, limit: Duration) -> ExitStatus {
        assert!(self.held().is_some(), "{} does not run", self.name);
        let exit = async {
            loop {
                // Not `wait`: it closes the stdin, and a process that dies with its parent would take that for the end.
                if let Some(status) = self.exited() {
                    return status;
                }
                // Asks again.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = within(&format!("{} ends", self.name), limit, exit).await;
        self.held().take();
        status
    }

    /// Kills it if it runs, starts it again, waits until it answers.
    pub async fn restart(&self) {
        self.kill();
        self.start().await;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log();
        // A nats-server says several times a second that a killed one is not there.
        let all: Vec<&str> = text.lines().filter(|l| !l.contains("Error trying to connect to route")).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// After a SIGSTOP. Each thread stops when it comes by: one that has not could still answer, and store.
pub fn wait_until_stopped(pid: u32) {
    while !stopped(pid) {
        std::thread::yield_now();
    }
}

fn stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let state = |stat: String| stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
    // Or it has ended.
    threads.flatten().all(|t| std::fs::read_to_string(t.path().join("stat")).is_ok_and(|s| "TZX".contains(state(s))))
}
