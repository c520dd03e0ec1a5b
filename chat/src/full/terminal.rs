//! The terminal as a full screen, and back as it was: at the end, after an error, in a panic, when we go to the
//! background.

use std::{
    io::{self, BufWriter, Stdout, stdout},
    panic::{set_hook, take_hook},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::Show,
    event::{DisableBracketedPaste, EnableBracketedPaste},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};
use rustix::process::{Signal, getpid, kill_process};

pub struct FullScreen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    /// Somebody panicked: the screen was given back, nothing may be drawn any more.
    panicked: Arc<AtomicBool>,
    /// What a panic does otherwise.
    hook: Arc<Hook>,
}

type Hook = Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Send + Sync>;

impl FullScreen {
    pub fn enter() -> io::Result<Self> {
        // One write per frame.
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, stdout())))?;
        let (panicked, hook) = (Arc::new(AtomicBool::new(false)), Arc::new(take_hook()));
        let (seen, before) = (panicked.clone(), hook.clone());
        set_hook(Box::new(move |info| {
            // First the screen, so that the words stay.
            if !seen.swap(true, Ordering::AcqRel) {
                leave();
            }
            before(info);
        }));
        // From here on dropping gives the terminal back.
        let screen = Self { terminal, panicked, hook };
        take()?;
        Ok(screen)
    }

    pub fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|s| (s.width, s.height))
    }

    /// An error: there is nothing to draw on (any more).
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if self.panicked.load(Ordering::Acquire) {
            return Err(io::Error::other("a part of the program panicked"));
        }
        self.terminal.draw(draw).map(|_| ())
    }

    /// Everything anew with the next frame.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Returns when somebody has brought us to the foreground again.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        // Sent to the whole process, it stops the thread that asks before anything else happens there: this is the main
        // thread, which is preferred.
        kill_process(getpid(), Signal::TSTP)?;
        take()?;
        self.terminal.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        if !self.panicked.load(Ordering::Acquire) {
            leave();
        }
        if !std::thread::panicking() {
            let hook = self.hook.clone();
            drop(take_hook());
            set_hook(Box::new(move |info| hook(info)));
        }
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)
}

/// Each step by itself: a terminal that has gone is no reason to leave the next one out.
fn leave() {
    let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
