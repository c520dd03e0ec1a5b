//! `docs/configuration.md` is what `natterjack config --markdown` prints. (That this package has a test here also makes
//! `cargo test` build the binary, which the end-to-end tests start.)

use std::{path::Path, process::Command};

#[test]
fn the_page_in_the_tree_is_the_generated_one() {
    let out = Command::new(env!("CARGO_BIN_EXE_natterjack")).args(["config", "--markdown"]).output().unwrap();
    assert!(out.status.success());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = String::from_utf8(out.stdout).unwrap();
    assert!(
        there == wanted,
        "docs/configuration.md is out of date; run: natterjack config --markdown > docs/configuration.md"
    );
}

#[test]
fn errors_are_reported_all_at_once_and_before_anything_starts() {
    let out = Command::new(env!("CARGO_BIN_EXE_natterjack"))
        .args(["edge", "--listen", "nowhere", "--set", "nats.replicas=2", "--set", "edge.colour=green"])
        .output()
        .unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    for key in ["edge.listen", "nats.replicas", "edge.colour"] {
        assert!(said.contains(key), "{key} is missing in: {said}");
    }
}
