//! What happens to the chat, what it wants done about it, and what that brought.

use crossterm::event::KeyEvent;
use natterjack_client::{
    ClientEvent, Local, Unsent,
    protocol::{
        Body, Event, GroupId, Kind, MsgId, Thread, UserId,
        client::frame::{Page, ThreadSummary},
    },
};

use crate::{full::timeline::PageWanted, screen::Said};

pub enum UiInput {
    Key(KeyEvent),
    Paste(String),
    Resize(u16, u16),
    Event(Box<ClientEvent>),
    Done(Done),
    /// Time has passed.
    Tick,
}

/// What the shell has to do.
#[derive(Debug, PartialEq)]
pub enum UiEffect {
    Job(Job),
    Typing(Thread),
    Watch(Vec<UserId>),
    /// The user has read this thread up to here.
    Read(Thread, MsgId),
    /// Draw everything anew.
    Redraw,
    /// Back to the shell until somebody brings us to the foreground.
    Suspend,
    Quit,
    /// It cannot go on, for this reason.
    End(String),
}

/// What takes its time and brings a [`Done`].
#[derive(Debug, PartialEq)]
pub enum Job {
    Send {
        ticket: u64,
        thread: Thread,
        kind: Kind,
        body: Box<Body>,
    },
    Page {
        thread: Thread,
        want: PageWanted,
    },
    /// As this device knows them; `sync`: brought up to date first.
    Threads {
        sync: bool,
    },
    /// What came to this device in an earlier run.
    Messages(Thread),
    /// What has been begun to be written there.
    Draft {
        thread: Thread,
        draft: String,
    },
    /// What was not sent before.
    Outbox,
    User(UserId),
    Group(GroupId),
    /// A command of the line mode, in this thread.
    Command {
        line: String,
        here: Option<Thread>,
    },
}

/// What became of a job; errors as people read them.
#[derive(Debug)]
pub enum Done {
    Send { ticket: u64, thread: Thread, result: Result<Local, String> },
    Page { thread: Thread, want: PageWanted, result: Result<Page, JobFailure> },
    Threads { threads: Vec<ThreadSummary>, failed: Option<JobFailure> },
    Messages { thread: Thread, events: Vec<Event> },
    Draft { failed: Option<JobFailure> },
    Outbox { rows: Vec<Unsent> },
    User { user: UserId, name: Option<String> },
    Group { gid: GroupId, name: Option<String> },
    Command { line: String, said: Vec<Said>, entered: Option<(Thread, String)> },
}

#[derive(Debug)]
pub struct JobFailure {
    pub why: String,
    /// Asking again cannot help.
    pub is_final: bool,
}
