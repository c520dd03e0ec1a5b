//! Carries jobs out: questions to the SDK beside each other, sends and commands one after the other. What they bring
//! goes back to the model.

use std::collections::VecDeque;

use natterjack_client::{
    Client, RequestError,
    protocol::{Retry, client::thread_settings::SettingsChange},
};
use tokio::task::{JoinError, JoinSet};

use super::model::{Done, Job, JobFailure};
use crate::{act::Chat, names::shown_name};

/// Of a page of history: a few screens.
const PAGE: u16 = 100;

/// Jobs of one sort; what does not run waits here. The model keeps the number small: one page per thread, one name per
/// id, and what a person types.
struct Lane {
    waiting: VecDeque<Job>,
    running: usize,
    most: usize,
}

#[derive(Clone, Copy)]
enum Sort {
    /// In the order of writing.
    Send,
    Ask,
    /// The chat of the line mode has one current thread.
    Command,
}

enum Finished {
    Work(Sort, Done),
    Command(Box<Chat>, Done),
}

pub struct Work {
    client: Client,
    jobs: JoinSet<Finished>,
    lanes: [Lane; 3],
    /// None while it runs a command.
    chat: Option<Box<Chat>>,
}

impl Work {
    /// `begin`: the user or group to go to first.
    pub fn new(client: Client, chat: Chat, begin: Option<(Option<String>, Option<String>)>) -> Self {
        let lane = |most| Lane { waiting: VecDeque::new(), running: 0, most };
        let mut work = Self { client, jobs: JoinSet::new(), lanes: [lane(1), lane(8), lane(1)], chat: None };
        match begin {
            None => work.chat = Some(Box::new(chat)),
            Some((to, group)) => {
                work.lanes[Sort::Command as usize].running = 1;
                work.jobs.spawn(begin_with(Box::new(chat), to, group));
            }
        }
        work
    }

    pub fn start(&mut self, job: Job) {
        let sort = match &job {
            Job::Send { .. } => Sort::Send,
            Job::Command { .. } => Sort::Command,
            Job::Page { .. }
            | Job::Threads { .. }
            | Job::Messages(_)
            | Job::Draft { .. }
            | Job::Outbox
            | Job::User(_)
            | Job::Group(_) => Sort::Ask,
        };
        self.lanes[sort as usize].waiting.push_back(job);
        self.next(sort);
    }

    /// Pending for ever when there is nothing to do. Safe to drop while it waits.
    pub async fn done(&mut self) -> Done {
        match self.jobs.join_next().await {
            Some(finished) => self.finished(finished),
            None => std::future::pending().await,
        }
    }

    /// What was typed before the end belongs in the outbox.
    pub async fn finish_sends(&mut self) {
        while self.lanes[Sort::Send as usize].running > 0 {
            self.done().await;
        }
    }

    fn finished(&mut self, finished: Result<Finished, JoinError>) -> Done {
        let (sort, done) = match finished {
            Ok(Finished::Work(sort, done)) => (sort, done),
            Ok(Finished::Command(chat, done)) => {
                self.chat = Some(chat);
                (Sort::Command, done)
            }
            // Nobody cancels a job but the end of all.
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        };
        self.lanes[sort as usize].running -= 1;
        self.next(sort);
        done
    }

    fn next(&mut self, sort: Sort) {
        let lane = &mut self.lanes[sort as usize];
        while lane.running < lane.most {
            let Some(job) = lane.waiting.pop_front() else { return };
            lane.running += 1;
            let client = self.client.clone();
            match job {
                Job::Command { line, here } => {
                    let chat = self.chat.take().expect("one command at a time, and its chat comes back with it");
                    self.jobs.spawn(command(chat, line, here))
                }
                Job::Send { ticket, thread, kind, body } => self.jobs.spawn(async move {
                    let result = client.send(thread.clone(), kind, *body).await.map_err(|e| e.to_string());
                    Finished::Work(sort, Done::Send { ticket, thread, result })
                }),
                Job::Page { thread, want } => self.jobs.spawn(async move {
                    let result = client.history(thread.clone(), want.at(), PAGE).await.map_err(failure);
                    Finished::Work(sort, Done::Page { thread, want, result })
                }),
                Job::Threads { sync } => self.jobs.spawn(async move {
                    let failed = if sync { client.sync_threads().await.err().map(failure) } else { None };
                    let threads = client.known_threads().await.unwrap_or_default();
                    Finished::Work(sort, Done::Threads { threads, failed })
                }),
                Job::Messages(thread) => self.jobs.spawn(async move {
                    let events = client.known_messages(&thread).await.unwrap_or_default();
                    Finished::Work(sort, Done::Messages { thread, events })
                }),
                Job::Draft { thread, draft } => self.jobs.spawn(async move {
                    let change = SettingsChange { draft: Some(draft), ..SettingsChange::default() };
                    let failed = client.set_thread(&thread, &change).await.err().map(failure);
                    Finished::Work(sort, Done::Draft { failed })
                }),
                // A client that is closed says so as an event.
                Job::Outbox => self.jobs.spawn(async move {
                    let rows = client.outbox().await.unwrap_or_default();
                    Finished::Work(sort, Done::Outbox { rows })
                }),
                // Without an answer the id has to do.
                Job::User(user) => self.jobs.spawn(async move {
                    let name = client.profile(&user).await.map(|p| shown_name(&p)).ok();
                    Finished::Work(sort, Done::User { user, name })
                }),
                Job::Group(gid) => self.jobs.spawn(async move {
                    let name = client.group(&gid).await.map(|g| g.name).ok();
                    Finished::Work(sort, Done::Group { gid, name })
                }),
            };
        }
    }
}

async fn begin_with(mut chat: Box<Chat>, to: Option<String>, group: Option<String>) -> Finished {
    if let Err(e) = Box::pin(chat.begin(to.as_deref(), group.as_deref())).await {
        chat.screen.problem(&format!("{e:#}"));
    }
    said(chat, String::new(), true).await
}

async fn command(mut chat: Box<Chat>, line: String, here: Option<natterjack_client::protocol::Thread>) -> Finished {
    chat.go_back_to(here.clone());
    Box::pin(chat.line(&line)).await;
    let moved = chat.current() != here.as_ref();
    said(chat, line, moved).await
}

async fn said(mut chat: Box<Chat>, line: String, moved: bool) -> Finished {
    let entered = match chat.current().cloned().filter(|_| moved) {
        Some(thread) => Some((thread.clone(), chat.place(&thread).await)),
        None => None,
    };
    let done = Done::Command { line, said: chat.screen.take(), entered };
    Finished::Command(chat, done)
}

fn failure(e: RequestError) -> JobFailure {
    let is_final = match &e {
        RequestError::Refused(refusal) => refusal.code.retry() == Retry::Never,
        _ => false,
    };
    JobFailure { why: e.to_string(), is_final }
}
