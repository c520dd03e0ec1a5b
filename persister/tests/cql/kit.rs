//! One CQL server for all tests of this binary: `NATTERJACK_CQL`, else an Apache Cassandra of our own that ends with
//! us.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use natterjack_persister::store::cql::{Buckets, Cql, CqlConfig};
use natterjack_testkit::process::wait_until_stopped;
use tokio::{
    sync::{OnceCell, RwLock},
    time::{Instant, sleep},
};

/// Who freezes the server takes it for writing.
pub static SERVER: RwLock<()> = RwLock::const_new(());

/// A cold start on a busy machine; 6 s on an idle one.
const START: Duration = Duration::from_secs(300);

pub struct Server {
    pub address: String,
    /// None: somebody else's.
    pub pid: Option<u32>,
}

/// Starts it at the first call.
pub async fn server() -> &'static Server {
    static FOUND: OnceCell<Server> = OnceCell::const_new();
    FOUND
        .get_or_init(async || {
            if let Ok(address) = std::env::var("NATTERJACK_CQL") {
                return Server { address, pid: None };
            }
            // An address that no other test process has: pids are different.
            let pid = std::process::id();
            let [_, _, b, c] = pid.to_be_bytes();
            let address = SocketAddr::from((Ipv4Addr::new(127, 240 + (pid >> 16) as u8 % 10, b, c.max(1)), 9042));
            let pid = start(address);
            Server { address: address.to_string(), pid: Some(until_it_listens(address, pid).await) }
        })
        .await
}

fn start(address: SocketAddr) -> u32 {
    let folder = folder();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    // First without us, so that its words are seen: it says what to install.
    let fetched = Command::new(script.join("fetch-cassandra.sh")).stdout(Stdio::null()).status().unwrap();
    assert!(fetched.success(), "there is no CQL server to test with: see above");
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let log = std::fs::File::create(folder.join("log")).unwrap();
    // A thread that does not end: the child's death is bound to it.
    std::thread::spawn(move || {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(script.join("cassandra.sh"))
            .arg(address.ip().to_string())
            .arg(folder);
        let mut child: Child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        tell.send(child.id()).unwrap();
        let _ = child.wait();
    });
    told.recv().unwrap()
}

/// Named after this process, because nobody clears it away at its end: the next one does.
fn folder() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cassandra");
    std::fs::create_dir_all(&all).unwrap();
    for left in std::fs::read_dir(&all).unwrap().map(|e| e.unwrap()) {
        if !Path::new("/proc").join(left.file_name()).exists() {
            let _ = std::fs::remove_dir_all(left.path());
        }
    }
    let own = all.join(std::process::id().to_string());
    std::fs::create_dir_all(&own).unwrap();
    own
}

async fn until_it_listens(address: SocketAddr, pid: u32) -> u32 {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!state.is_empty() && !state.contains(") Z "), "Cassandra ended instead of starting");
        if began.elapsed() > START {
            // Another test may start one on the same address.
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
            panic!("Cassandra did not start within {START:?}");
        }
        // Asks again.
        sleep(Duration::from_millis(100)).await;
    }
    pid
}

impl Server {
    /// A keyspace of its own.
    pub fn config(&self) -> CqlConfig {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        CqlConfig {
            contact_points: vec![self.address.clone()],
            keyspace: format!("test_{}_{n}", std::process::id()),
            replication: 1,
            // So small that every test meets the edges of buckets.
            buckets: Buckets { rows: 3, span: 10_000_000_000 },
            ..CqlConfig::default()
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid.expect("only asked for a server of our own");
        assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
        if name == "STOP" {
            wait_until_stopped(pid);
        }
    }
}

/// With a fresh keyspace.
pub async fn connected() -> Cql {
    Cql::connect(&server().await.config()).await.unwrap()
}
