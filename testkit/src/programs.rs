//! Which programs are under test: `natterjack` as built beside this test, and a real nats-server.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// `NATTERJACK_BIN`, else the binary of the same build as this test; built if it is not there yet.
pub fn natterjack() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os("NATTERJACK_BIN") {
            return named.into();
        }
        // target/fast/deps/e2e-… → target/fast/natterjack
        let exe = std::env::current_exe().unwrap();
        let folder = exe.ancestors().nth(2).unwrap();
        let binary = folder.join("natterjack");
        if !binary.is_file() {
            let profile = match folder.file_name().and_then(|n| n.to_str()) {
                Some("debug") => "dev",
                Some(name) => name,
                None => "fast",
            };
            eprintln!("{} is missing; building it", binary.display());
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--profile", profile, "-p", "natterjack"])
                .current_dir(root())
                .status()
                .unwrap();
            assert!(built.success(), "natterjack does not build");
        }
        binary
    })
}

/// `NATTERJACK_NATS_SERVER`, else on PATH, else what `make` fetched.
pub fn nats_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os("NATTERJACK_NATS_SERVER") {
            return named.into();
        }
        installed("nats-server")
            .or_else(|| Some(root().join(".cache/bin/nats-server")).filter(|p| p.is_file()))
            .expect("a nats-server: run `make nats-server` first")
    })
}

/// A program of the system, if it is installed; servers may stand where only root looks.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
