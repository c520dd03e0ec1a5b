//! The invariants of ARCHITECTURE.md that can be seen without running anything: over `cargo metadata`, Cargo.lock and
//! the sources.
#![allow(clippy::unwrap_used, reason = "a test")]

mod circles;
mod documents;
mod metrics;
mod names;
mod report;
mod sizes;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use cargo_metadata::{DependencyKind, MetadataCommand};
use tree::{code, none, root, shipped, sources};

const ROLES: [&str; 3] = ["natterjack-edge", "natterjack-channel", "natterjack-persister"];

/// Normal dependencies of each crate of ours.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".into()])
        .exec()
        .unwrap();
    metadata
        .packages
        .into_iter()
        .map(|p| {
            let normal = p.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            (p.name.to_string(), normal.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn roles_meet_on_nats_only() {
    let deps = dependencies();
    for role in ROLES {
        for other in ROLES.iter().chain(&["natterjack-client", "natterjack"]) {
            assert!(!deps[role].contains(*other), "{role} imports {other}");
        }
    }
    let ours =
        |name: &str| deps[name].iter().filter(|d| d.starts_with("natterjack")).map(String::as_str).collect::<Vec<_>>();
    assert!(ours("natterjack-protocol").is_empty());
    assert_eq!(ours("natterjack-nats"), ["natterjack-protocol"]);
    assert_eq!(ours("natterjack-client"), ["natterjack-protocol"]);
    assert_eq!(ours("natterjack-chat"), ["natterjack-client", "natterjack-protocol"]);
    assert_eq!(ours("natterjack-bench"), ["natterjack-nats", "natterjack-protocol"]);
    assert!(ours("natterjack-runtime").iter().all(|d| *d == "natterjack-protocol"));
    assert_eq!(ours("natterjack-testkit"), ["natterjack-nats", "natterjack-protocol"]);
    let ship_it = deps.iter().filter(|(name, deps)| *name != "natterjack-tests" && deps.contains("natterjack-testkit"));
    none("crates that need the testkit to run", ship_it.map(|(name, _)| name.clone()).collect());
}

#[test]
fn only_the_persister_opens_the_archive() {
    let stores = ["rusqlite", "scylla"];
    let found = dependencies()
        .into_iter()
        // A client may keep a file of its own.
        .filter(|(name, _)| name != "natterjack-persister" && name != "natterjack-client")
        .filter(|(_, deps)| stores.iter().any(|s| deps.contains(*s)))
        .map(|(name, _)| name)
        .collect();
    none("crates that could open an archive", found);
}

/// Subjects, streams and buckets have one home, so that permissions can be read there and partitions changed there.
#[test]
fn only_the_nats_crate_spells_names() {
    const NAMES: [&str; 15] = [
        "\"chat.",
        "\"ctl.",
        "\"live.user",
        "\"live.group",
        "\"beat.",
        "\"presence.",
        "\"svc.",
        "\"CHAT-",
        "\"KV_",
        "\"$KV",
        "\"$JS",
        "\"groups-",
        "\"users-",
        "\"positions.",
        "\"edge.{",
    ];
    let mut found = Vec::new();
    for (path, text) in shipped() {
        if path.starts_with("nats/") {
            continue;
        }
        for (n, line) in code(&text) {
            if NAMES.iter().any(|name| line.contains(name)) {
                found.push(format!("{path}:{n}: {}", line.trim()));
            }
        }
    }
    none("names of subjects, streams or buckets outside nats/", found);
}

/// What speaks NATS is one room, and no type of the library leaves it. A test that plays an operator has a client of
/// its own.
#[test]
fn only_the_wire_room_names_the_nats_library() {
    let may = |path: &str| {
        let room = path.starts_with("nats/src/wire");
        // The tests' own client, and permissions, which are tried by a client without our names.
        room || path == "testkit/src/raw_nats.rs" || path.starts_with("nats/tests/real/")
    };
    let mut found = Vec::new();
    for (path, text) in sources() {
        // This file names what it looks for.
        if !may(&path) && !path.contains("invariants") {
            found.extend(code(&text).filter(|(_, l)| l.contains("async_nats::")).map(|(n, _)| format!("{path}:{n}")));
        }
    }
    none("uses of async_nats outside nats/src/wire", found);
    let crates = dependencies().into_iter().filter(|(_, deps)| deps.contains("async-nats")).map(|(name, _)| name);
    assert_eq!(crates.collect::<Vec<_>>(), ["natterjack-nats", "natterjack-testkit"]);
}

/// Only `channel` may publish events; an edge that could would be able to forge an id that makes readers drop all later
/// ones.
#[test]
fn only_the_channel_makes_live_events() {
    let mut found = Vec::new();
    for (path, text) in shipped() {
        let allowed = ["protocol/", "channel/", "nats/"].iter().any(|p| path.starts_with(p));
        found.extend(
            code(&text)
                .filter(|(_, l)| !allowed && (l.contains("live_user(") || l.contains("live_group(")))
                .map(|(n, _)| format!("{path}:{n}")),
        );
    }
    none("uses of the subjects for events outside channel/", found);
}

#[test]
fn one_tls_backend_and_no_c_of_it() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for banned in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"")), "{banned} is in Cargo.lock");
    }
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let root_manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(root_manifest.contains("unsafe_code = \"forbid\""));
    for name in dependencies().into_keys() {
        let folder = name.strip_prefix("natterjack-").unwrap_or(&name);
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not inherit the lints");
        let mut in_dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            }
            let own_version = in_dependencies && line.contains('=') && !line.contains("workspace = true");
            assert!(!own_version, "{name} names a version or path of its own: {line}");
        }
    }
}

#[test]
fn every_queue_is_bounded() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        // This file names what it looks for.
        if path.ends_with("invariants/main.rs") {
            continue;
        }
        found.extend(
            code(&text).filter(|(_, l)| l.contains("unbounded")).map(|(n, l)| format!("{path}:{n}: {}", l.trim())),
        );
    }
    none("unbounded queues", found);
}

/// Which step of a message's life it is; unit tests belong to the file above them.
#[test]
fn every_file_says_what_it_is() {
    let kit = sources().into_iter().filter(|(path, _)| path.starts_with("tests/") || path.starts_with("testkit/"));
    let found = shipped()
        .into_iter()
        .chain(kit)
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    none("files without a //! header", found);
}

/// Two clocks are never compared by accident: a machine's own is read where it is compared with the server's, and where
/// only one is asked.
#[test]
fn a_machines_clock_is_read_in_one_place() {
    let may = [
        "runtime/src/clock.rs",
        // Ids are made from it, and are above all others all the same.
        "nats/src/streams.rs",
        // Measures one machine.
        "bench/src/system.rs",
        // Compared with the monotonic clock of the same device: which of them went on while it slept.
        "client/src/waking.rs",
    ];
    let reads = |text: &str| {
        code(text)
            .filter(|(_, l)| l.contains("SystemTime::now") || l.contains("UNIX_EPOCH.elapsed"))
            .map(|(n, _)| n)
            .collect::<Vec<_>>()
    };
    let found = shipped().into_iter().filter(|(path, _)| !may.contains(&path.as_str()));
    let found = found.flat_map(|(path, text)| reads(&text).into_iter().map(move |n| format!("{path}:{n}"))).collect();
    none("a clock that is read elsewhere: use runtime::clock::wall_ms, the server's time or an Instant", found);
}

#[test]
fn no_unwrap_in_what_ships() {
    let mut found = Vec::new();
    for (path, text) in shipped() {
        found.extend(
            code(&text).filter(|(_, l)| l.contains(".unwrap()")).map(|(n, l)| format!("{path}:{n}: {}", l.trim())),
        );
    }
    none("unwrap outside tests", found);
}

/// Every link between our own documents leads somewhere.
#[test]
fn links_between_documents_lead_somewhere() {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone(), root.join("docs"), root.join("docs/adr")];
    folders.retain(|f| f.is_dir());
    for folder in folders {
        for path in fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "md"))
        {
            let text = fs::read_to_string(&path).unwrap();
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                let elsewhere = target.is_empty() || target.contains("://") || target.contains(' ');
                if !elsewhere && !folder.join(target).exists() {
                    found.push(format!("{} → {target}", path.display()));
                }
            }
        }
    }
    none("dead links", found);
}

/// `docker-compose.yml` runs nowhere here; at least it names nothing that is not there.
#[test]
fn compose_sets_keys_that_exist_and_runs_roles_that_exist() {
    let compose = fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let reference = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let names =
        compose.lines().filter_map(|l| l.trim().strip_prefix("NATTERJACK__")?.split_once(':')).map(|(name, _)| name);
    let keys: Vec<String> = names.map(|n| n.to_lowercase().replace("__", ".")).collect();
    assert!(keys.len() > 8, "{keys:?}");
    none(
        "keys in docker-compose.yml",
        keys.into_iter().filter(|k| !reference.contains(&format!("| `{k}` |"))).collect(),
    );
    let cli = fs::read_to_string(root().join("natterjack/src/cli.rs")).unwrap();
    for role in ["provision", "channel", "persister", "edge"] {
        assert!(compose.contains(&format!("command: [{role}]")), "no {role} in docker-compose.yml");
        let variant = format!("{}{}", role[..1].to_uppercase(), &role[1..]);
        assert!(cli.contains(&format!("    {variant}")), "{role} is no command");
    }
}

/// A test that sleeps hopes, unless time itself is what it is about: then it says so, on the line or on one of the two
/// above.
#[test]
fn every_sleep_of_a_test_says_why() {
    let mut found = Vec::new();
    let of_tests = |path: &str| {
        let mut folders = path.split('/');
        matches!(folders.next(), Some("tests" | "testkit")) || folders.next() == Some("tests")
    };
    for (path, text) in
        sources().into_iter().filter(|(path, _)| of_tests(path) && !path.ends_with("invariants/main.rs"))
    {
        let lines: Vec<&str> = text.lines().collect();
        let sleeps = |l: &str| l.contains("sleep(") && !l.trim_start().starts_with("//");
        let says = |at: usize| lines[at.saturating_sub(2)..=at].iter().any(|l| l.contains("// "));
        found.extend(
            (0..lines.len()).filter(|at| sleeps(lines[*at]) && !says(*at)).map(|at| format!("{path}:{}", at + 1)),
        );
    }
    none("wait for a condition (`eventually`), or say why time has to pass", found);
}
