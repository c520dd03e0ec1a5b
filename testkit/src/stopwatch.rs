//! How long each test holds a server or a cluster, which is what tests cost: `NATTERJACK_TEST_TIMES=file` appends a
//! line for each. `sort -rn file | head -30` shows where to look.

use std::{fs::File, io::Write, thread, time::Instant};

/// From its making until it is dropped. libtest names the thread of a test after it.
pub struct Stopwatch {
    test: String,
    began: Instant,
}

impl Stopwatch {
    #[allow(clippy::new_without_default, reason = "a watch that starts is no default")]
    pub fn new() -> Self {
        Self { test: thread::current().name().unwrap_or("unnamed").to_owned(), began: Instant::now() }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let Some(path) = std::env::var_os("NATTERJACK_TEST_TIMES") else { return };
        let line = format!("{:.2} {}\n", self.began.elapsed().as_secs_f64(), self.test);
        // Nobody's test fails for this.
        let _ =
            File::options().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
