//! What a command says: a line for some seconds, or a page to read (pure).

use std::time::{Duration, Instant};

use crate::{
    full::wrap::wrap,
    screen::{Said, Tone, printable},
};

/// Time to read one line.
const SHOWN: Duration = Duration::from_secs(8);

#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    pub said: Said,
    pub until: Instant,
}

impl Notice {
    pub fn new(said: Said, now: Instant) -> Self {
        Self { said, until: now + SHOWN }
    }
}

/// Stands in place of the messages until it is closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Panel {
    pub title: String,
    said: Vec<Said>,
    /// Lines above the edge.
    pub top: usize,
}

impl Panel {
    pub fn new(title: impl Into<String>, said: Vec<Said>) -> Self {
        Self { title: title.into(), said, top: 0 }
    }

    pub fn lines(&self, width: usize) -> Vec<(Tone, String)> {
        let mut lines = Vec::new();
        for said in &self.said {
            let text = printable(&said.text);
            lines.extend(wrap(&text, width).into_iter().map(|l| (said.tone, l.to_owned())));
        }
        lines
    }

    pub fn scroll(&mut self, by: isize, width: usize, height: usize) {
        let most = self.lines(width).len().saturating_sub(height);
        self.top = self.top.saturating_add_signed(by).min(most);
    }
}
