//! Addresses: each cluster has a /24 of 127.0.0.0/8 to itself, so every port in it is fixed and free. And how many
//! clusters run at once.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::wait::within;

pub const NATS_PORT: u16 = 4222;
pub const ROUTE_PORT: u16 = 6222;
pub const EDGE_PORT: u16 = 8080;
pub const ADMIN_PORT: u16 = 9100;
pub const CQL_PORT: u16 = 9042;

/// Shared by all test processes on this machine.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join("natterjack-tests");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn open(name: &str) -> File {
    File::options().create(true).read(true).write(true).truncate(false).open(folder().join(name)).unwrap()
}

/// 127.a.b.0/24.
#[derive(Debug, Clone, Copy)]
pub struct Subnet {
    a: u8,
    b: u8,
}

impl Subnet {
    /// The next of 50,000; a counter under a lock, so that two processes never get the same.
    pub fn next() -> Self {
        let mut file = open("subnet");
        file.lock().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let n: u32 = text.trim().parse().unwrap_or(0);
        file.set_len(0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        write!(file, "{}", n.wrapping_add(1)).unwrap();
        // 127.0 and 127.1 belong to the rest of the machine.
        let n = n % (200 * 256);
        Self { a: u8::try_from(n / 256).unwrap() + 10, b: u8::try_from(n % 256).unwrap() }
    }

    fn host(self, host: usize) -> IpAddr {
        Ipv4Addr::new(127, self.a, self.b, u8::try_from(host).expect("a host of a /24")).into()
    }

    pub fn nats(self, i: usize) -> SocketAddr {
        (self.host(10 + i), NATS_PORT).into()
    }

    pub fn route(self, i: usize) -> SocketAddr {
        (self.host(10 + i), ROUTE_PORT).into()
    }

    pub fn edge(self, i: usize) -> SocketAddr {
        (self.host(20 + i), EDGE_PORT).into()
    }

    pub fn edge_admin(self, i: usize) -> SocketAddr {
        (self.host(20 + i), ADMIN_PORT).into()
    }

    pub fn channel(self, i: usize) -> SocketAddr {
        (self.host(60 + i), ADMIN_PORT).into()
    }

    pub fn persister(self, i: usize) -> SocketAddr {
        (self.host(80 + i), ADMIN_PORT).into()
    }

    pub fn presence(self, i: usize) -> SocketAddr {
        (self.host(85 + i), ADMIN_PORT).into()
    }

    pub fn cql(self, i: usize) -> SocketAddr {
        (self.host(90 + i), CQL_PORT).into()
    }

    /// In front of the first CQL server.
    pub fn cql_proxy(self) -> SocketAddr {
        (self.host(99), CQL_PORT).into()
    }

    /// In front of NATS, for edge `i`.
    pub fn nats_proxy(self, i: usize) -> SocketAddr {
        (self.host(100 + i), NATS_PORT).into()
    }

    /// The kit's own proxies, numbered as they are made.
    pub fn proxy(self, i: usize) -> SocketAddr {
        (self.host(150 + i), EDGE_PORT).into()
    }

    /// For what a test runs beside the cluster.
    pub fn spare(self, i: usize, port: u16) -> SocketAddr {
        (self.host(220 + i), port).into()
    }
}

/// Two cores carry three clusters, which mostly wait; latency and chaos want to be alone. Held until dropped, also by a
/// process that crashes.
#[derive(Debug)]
pub struct Turn {
    _held: Vec<File>,
}

const TURNS: [&str; 3] = ["turn-0", "turn-1", "turn-2"];
/// Who waits to be alone keeps this, so that nobody overtakes for ever; the others pass through it.
const GATE: &str = "gate";

impl Turn {
    pub async fn wait(alone: bool) -> Self {
        // Longer than the longest queue of clusters; who waits for more waits for something that hangs.
        let turn = async {
            if alone {
                let _gate = lock(GATE).await;
                let mut held = Vec::new();
                for name in TURNS {
                    held.push(lock(name).await);
                }
                return Self { _held: held };
            }
            loop {
                let gate = lock(GATE).await;
                if let Some(file) = TURNS.into_iter().find_map(try_lock) {
                    return Self { _held: vec![file] };
                }
                drop(gate);
                // Asks again.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("a turn for a cluster", Duration::from_secs(900), turn).await
    }
}

fn try_lock(name: &str) -> Option<File> {
    let file = open(name);
    file.try_lock().is_ok().then_some(file)
}

async fn lock(name: &str) -> File {
    loop {
        if let Some(file) = try_lock(name) {
            return file;
        }
        // Asks again.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
