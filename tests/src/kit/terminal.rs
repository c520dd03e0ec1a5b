//! A terminal without a window: a program runs on a pseudo-terminal, what it draws is read back as a screen.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use natterjack_testkit::{eventually_within, within};
use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::process::{Child, Command};

/// The program dies with it.
pub struct Terminal {
    master: File,
    /// Held open, so that its settings can be read when the program has ended.
    slave: Option<File>,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub fn start(columns: u16, rows: u16, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "setsid", "--ctty"])
            .arg(program)
            .args(args)
            .env("TERM", "xterm-256color")
            .envs(env.iter().copied())
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        let (master, screen) = (File::from(master), Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0))));
        let (mut from, to) = (master.try_clone().unwrap(), screen.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error: nobody has the other end open any more.
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..n]);
            }
        });
        Self { master, slave: Some(slave), child, screen, reader: Some(reader) }
    }

    fn screen(&self) -> MutexGuard<'_, vt100::Parser> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a keyboard would.
    pub fn write(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
    }

    /// Everything on it, a line each.
    pub fn text(&self) -> String {
        self.screen().screen().contents()
    }

    /// Waits until this stands on it.
    pub async fn sees(&self, text: &str, limit: Duration) {
        let what = format!("{text:?} is on the screen");
        eventually_within(&what, limit, async || {
            let now = self.text();
            if now.contains(text) { Ok(()) } else { Err(format!("\n{now}")) }
        })
        .await;
    }

    pub fn is_full_screen(&self) -> bool {
        self.screen().screen().alternate_screen()
    }

    /// Lines and echo as a shell expects them, the cursor to be seen, no paste marks, the first of the two screens.
    pub fn assert_restored(&self) {
        let modes = tcgetattr(&self.master).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        let parser = self.screen();
        let screen = parser.screen();
        assert!(
            !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste(),
            "{}",
            screen.contents()
        );
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Returns when all that it wrote is on the screen, too.
    pub async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let status = within("the program on the terminal ends", limit, self.child.wait()).await.unwrap();
        // Behind it, in order: what the program wrote has then been read.
        let mark = "end-of-the-program";
        write!(self.slave.as_ref().expect("only taken on drop"), "\r\n{mark}").unwrap();
        self.sees(mark, limit).await;
        status
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the terminal ----\n{}", self.text());
        }
        // With the last other end the reader ends; the program, if it still runs, is killed when `child` is dropped.
        self.slave.take();
        let _ = self.child.start_kill();
        drop(self.reader.take());
    }
}
