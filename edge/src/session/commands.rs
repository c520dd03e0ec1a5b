//! Step 2: what a client may ask over the socket, in one match. A request carries `r` and gets exactly one answer with
//! the same `r`.

use natterjack_protocol::{
    Code, MsgId, Refusal, Thread,
    client::{
        close,
        frame::{
            Acknowledged, ActivityReport, ClientFrame, HistoryQuery, Page, ReadAllQuery, Request, ServerFrame,
            SetThread, SyncQuery, ThreadsQuery, TypingIn, WatchQuery,
        },
    },
    limits,
    log::fold,
};

use super::{Done, End, Session, backend::Backend};
use crate::{
    pages::PageQuestion,
    threads::{ListQuery, ListedThreads},
};

/// The number of the request, for refusing it.
pub(super) fn request(frame: &ClientFrame) -> Option<Request> {
    match frame {
        ClientFrame::Send(s) => Some(s.r),
        ClientFrame::History(h) => Some(h.r),
        ClientFrame::Threads(ThreadsQuery { r, .. }) | ClientFrame::Sync(SyncQuery { r, .. }) => Some(*r),
        ClientFrame::Watch(w) => Some(w.r),
        ClientFrame::SetThread(s) => Some(s.r),
        ClientFrame::ReadAll(a) => Some(a.r),
        ClientFrame::Hello(_)
        | ClientFrame::Ack(_)
        | ClientFrame::Typing(_)
        | ClientFrame::Report(_)
        | ClientFrame::Ping
        | ClientFrame::Bye => None,
    }
}

/// Of a request that is answered already, or refused.
fn done(r: Request, answered: Result<(), Refusal>) -> Done {
    answered.map_or_else(|refusal| Done::Answer(ServerFrame::error(Some(r), refusal)), |()| Done::Nothing)
}

impl<B: Backend> Session<B> {
    pub(super) fn command(&mut self, frame: ClientFrame) -> Result<(), End> {
        match frame {
            ClientFrame::Send(send) => {
                let (r, cid) = (send.r, send.cid);
                let taken = match self.services.limiter.sends(&self.handle.user) {
                    Ok(()) => self.sends().push(send),
                    Err(refusal) => {
                        self.sends().refused(&send, &refusal);
                        Err(refusal.with_cid(cid))
                    }
                };
                if let Err(refusal) = taken {
                    self.error(Some(r), refusal);
                }
            }
            ClientFrame::Ack(acked) => self.ack(acked),
            ClientFrame::Typing(TypingIn { thread }) => self.typing(thread),
            ClientFrame::Watch(WatchQuery { r, users }) => {
                let (services, handle) = (self.services.clone(), self.handle.clone());
                self.request(async move { done(r, services.backend.watch(&handle, users, r).await) });
            }
            ClientFrame::Report(ActivityReport { active }) => self.handle.activity.report(active),
            ClientFrame::History(h) => self.history(h),
            ClientFrame::Threads(ThreadsQuery { r, limit, before, since, archived }) => {
                let (services, handle) = (self.services.clone(), self.handle.clone());
                self.request(async move {
                    let page = async {
                        let room = handle.room().await?;
                        handle.state.loaded(services.times.attach).await?;
                        let query = ListQuery { limit, before, since, archived, session: Some(handle.id) };
                        let list = services.backend.threads(&handle.user, handle.state.snapshot(), query).await?;
                        let ListedThreads { threads, next, synced } = list;
                        room.frame(&ServerFrame::Threads { r, threads, next, synced });
                        Ok(())
                    };
                    done(r, page.await)
                });
            }
            ClientFrame::SetThread(SetThread { r, thread, set }) => {
                let (services, handle) = (self.services.clone(), self.handle.clone());
                self.request(async move {
                    let set = async {
                        handle.state.loaded(services.times.attach).await?;
                        services.backend.set_thread(&handle, &thread, set).await
                    };
                    Done::Answer(match set.await {
                        Ok(settings) => ServerFrame::ThreadSettings { r: Some(r), thread, settings },
                        Err(e) => ServerFrame::error(Some(r), e.with_thread(&thread)),
                    })
                });
            }
            ClientFrame::ReadAll(ReadAllQuery { r }) => {
                let (services, handle) = (self.services.clone(), self.handle.clone());
                self.request(async move {
                    let read = async {
                        handle.state.loaded(services.times.attach).await?;
                        services.backend.read_all(&handle).await
                    };
                    Done::Answer(match read.await {
                        Ok(()) => ServerFrame::Ok { r },
                        Err(e) => ServerFrame::error(Some(r), e),
                    })
                });
            }
            ClientFrame::Sync(SyncQuery { r, cursors }) => {
                if cursors.len() > limits::CURSORS_PER_HELLO {
                    self.error(
                        Some(r),
                        Refusal::invalid(format!("cursors: at most {} at once", limits::CURSORS_PER_HELLO)),
                    );
                    return Ok(());
                }
                let (services, handle) = (self.services.clone(), self.handle.clone());
                self.request(async move {
                    Done::Answer(match services.backend.sync(&handle, cursors).await {
                        Ok(()) => ServerFrame::Ok { r },
                        Err(e) => ServerFrame::error(Some(r), e),
                    })
                });
            }
            ClientFrame::Ping => {
                self.gives_back = true;
                // A change of a membership below this may not have been told yet, or the page of a group that was
                // joined not sent.
                let whole = self.attached && self.whole && !self.handle.state.is_reading() && !self.handle.is_joining();
                let synced = self.services.backend.synced().filter(|_| whole);
                self.handle.frame(&ServerFrame::Pong { now: self.services.clock.any_now_ms(), synced });
            }
            ClientFrame::Hello(_) => self.error(None, Refusal::invalid("t: this session has said hello already")),
            ClientFrame::Bye => return self.last_words(close::BYE),
        }
        Ok(())
    }

    /// Before the threads are known it waits for them; a thread that is not known may have begun a moment ago.
    fn ack(&mut self, acked: Acknowledged) {
        if self.attached {
            match self.services.backend.ack(&self.handle, acked.clone()) {
                Err(refusal) if refusal.code == Code::NotMember => {}
                Err(refusal) => return self.error(None, refusal),
                Ok(()) => return,
            }
        }
        let (services, session) = (self.services.clone(), self.handle.clone());
        self.request(async move {
            let taken = async {
                session.state.loaded(services.times.attach).await?;
                services.backend.ack_surely(&session, acked).await
            };
            taken.await.map_or_else(|refusal| Done::Answer(ServerFrame::error(None, refusal)), |()| Done::Nothing)
        });
    }

    /// Shown for a few seconds, may be lost. Answered only when it makes no sense at all; a conversation that has not
    /// begun has nobody to show it to.
    fn typing(&mut self, thread: Thread) {
        let item = self.handle.state.item(&thread);
        match item.as_ref().map(fold::may_send) {
            Some(Ok(())) if item.is_some_and(|i| i.not_begun) => return,
            Some(Ok(())) => {}
            Some(Err(refusal)) => return self.error(None, refusal.with_thread(&thread)),
            None if self.attached && thread.peer(&self.handle.user).is_none() => {
                return self
                    .error(None, Refusal::new(Code::NotMember, "you are not in this thread").with_thread(&thread));
            }
            None => return,
        }
        let (services, session) = (self.services.clone(), self.handle.clone());
        self.request(async move {
            services.backend.typing(&session, thread).await;
            Done::Nothing
        });
    }

    fn history(&mut self, h: HistoryQuery) {
        let min_id =
            self.acked.as_ref().filter(|(t, _)| Some(t) == h.thread.as_ref()).map_or(MsgId::NONE, |(_, id)| *id);
        let (services, handle) = (self.services.clone(), self.handle.clone());
        self.request(async move {
            let r = h.r;
            let page = async {
                let question = PageQuestion::of(&h)?;
                let room = handle.room().await?;
                handle.state.loaded(services.times.attach).await?;
                let known = handle.state.item(&question.thread);
                let page = services.backend.page(&handle.user, known, question, min_id).await?;
                room.frame(&ServerFrame::Page(Page { r: Some(r), ..page }));
                Ok(())
            };
            done(r, page.await)
        });
    }
}
