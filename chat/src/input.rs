//! Standard input: lines as they come, and a password that is not echoed.

use std::{io::BufRead, thread::JoinHandle};

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Lines read ahead; a script that writes faster waits in its pipe.
const AHEAD: usize = 64;

/// A thread of its own reads: a blocking read cannot be taken back, and must not hold up the runtime's end.
pub struct StdinLines {
    lines: mpsc::Receiver<String>,
    _reader: JoinHandle<()>,
}

impl StdinLines {
    pub fn start() -> anyhow::Result<Self> {
        let (to, lines) = mpsc::channel(AHEAD);
        let reader = move || {
            let mut line = Vec::new();
            let mut stdin = std::io::stdin().lock();
            while matches!(stdin.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                // Invalid UTF-8 is shown as such rather than ending the session.
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                line.clear();
                if to.blocking_send(text).is_err() {
                    break;
                }
            }
        };
        let reader =
            std::thread::Builder::new().name("stdin".into()).spawn(reader).context("start reading standard input")?;
        Ok(Self { lines, _reader: reader })
    }

    /// None at the end. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

pub async fn password(name: &str) -> anyhow::Result<String> {
    let typed = typed_password(format!("Password for {name}: ")).await;
    let password = typed.context("read the password (or set NATTERJACK_PASSWORD)")?;
    anyhow::ensure!(!password.is_empty(), "no password: give one, or set NATTERJACK_PASSWORD");
    Ok(password)
}

/// A line of standard input; not echoed, after the prompt, if that is a terminal.
pub async fn typed_password(prompt: String) -> anyhow::Result<String> {
    Ok(tokio::task::spawn_blocking(move || read_password(&prompt)).await??)
}

fn read_password(prompt: &str) -> std::io::Result<String> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        eprint!("{prompt}");
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Now, before)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
