//! Requests between roles, in MessagePack over NATS. The edge authorises its user; the service answers for whom it
//! names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    cid::Cid,
    client::{
        event::Event,
        frame::{Displaced, Page},
        http::{Contact, ContactChange, ContactState, Profile, Tokens, UserSession},
    },
    ids::{DeviceId, GroupId, MsgId, Token, UserId},
    log::{Intervals, fold::ThreadItem},
    refusal::Refusal,
    size::Size,
    thread::Thread,
};

/// The answer to any request: what was asked for, or a typed refusal that travels on to the client unchanged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    Ok(T),
    Refused(Refusal),
    /// As many are being answered as this instance answers at once; another may have room, or this one in a moment.
    Busy,
}

impl<T> From<Result<T, Refusal>> for Reply<T> {
    fn from(r: Result<T, Refusal>) -> Self {
        match r {
            Ok(t) => Self::Ok(t),
            Err(e) => Self::Refused(e),
        }
    }
}

/// To one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum EdgeRequest {
    /// The session is out of the user's devices: it is answered when nothing of it can be published any more.
    Close { user: UserId, device: DeviceId, session: Token, why: Leaving },
    /// Who is there?
    Ping,
}

/// Why a session has to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// Another device has taken over.
    Displaced(Displaced),
    /// The same device has a newer session.
    Replaced,
    /// It was let in while nobody could be asked, and may not be in.
    Refused,
    /// Its place is not known any more; it comes back.
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeAnswer {
    /// Of the process that answers.
    pub incarnation: Arc<str>,
}

/// To the holder of a partition: the newest ids of threads (by 64-bit hash), answered on the connection that publishes
/// its events. The answer is the barrier of attach: what is published later reaches every subscription made before the
/// request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Heads {
    pub threads: Vec<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsAnswer {
    /// Everything up to here has been published.
    pub frontier: MsgId,
    /// Ids at or below this are not known here: a thread without a head has nothing newer than the horizon.
    pub horizon: MsgId,
    /// The log's clock, milliseconds since 1970.
    pub ts: u64,
    /// In the order of the request; 0: nothing within the horizon.
    pub heads: Vec<MsgId>,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageStart {
    Newest,
    /// The page that ends just below this id.
    Before(MsgId),
    /// The page that begins just above this id.
    After(MsgId),
    /// Half a page on each side of this id.
    Around(MsgId),
    /// The page that begins with the first event at or after this time, milliseconds since 1970.
    Time(u64),
}

/// What somebody may read of a thread, as far as the asker knows. A change that the fold has not come to yet is in the
/// log already, so `history` looks there for entries after `v` that end it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAccess {
    pub intervals: Intervals,
    /// The control entry from which the intervals were made.
    pub v: MsgId,
}

impl From<&ThreadItem> for ReadAccess {
    fn from(item: &ThreadItem) -> Self {
        Self { intervals: item.intervals.clone(), v: item.v }
    }
}

/// The newest entry of a thread. Ids order the entries of one thread; which of two threads was active last only the
/// time can tell, because each partition counts its own ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEntry {
    /// 0: the thread has none.
    pub id: MsgId,
    /// When the log stored it, milliseconds since 1970.
    pub ts: u64,
}

/// What an edge has heard of a thread live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardOf {
    /// Whatever came later than this it has heard.
    pub since: MsgId,
    /// The newest of that; 0: nothing.
    pub head: MsgId,
}

/// A thread of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedThread {
    pub thread: Thread,
    pub access: ReadAccess,
    /// How far the reader has read; none: what is not read is not counted.
    pub read: Option<MsgId>,
    /// An answer is to be as new as this; none: as the log.
    pub heard: Option<HeardOf>,
}

/// About: the thread's name, two numbers, and intervals of two numbers.
impl Size for AskedThread {
    fn size(&self) -> usize {
        256 + 64 * self.access.intervals.0.len()
    }
}

/// What the list of threads says of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestOf {
    /// The newest message or change that the reader may see; of a long one the beginning.
    pub last: Option<Event>,
    pub cut: bool,
    /// The newest entry that the reader may see, whatever it is.
    pub newest: LastEntry,
    /// Messages of others behind what the reader has read, up to `limits::UNREAD_MAX`; none: not known now.
    pub unread: Option<u8>,
    /// The newest control entry, 0 if the log has none; none: that is not known.
    pub control: Option<MsgId>,
}

/// To `history`: any instance answers, from archive and log together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryRequest {
    /// One page of a thread, as `reader` with these intervals may see it. `min_id`: what the asker knows to exist; an
    /// answer that does not reach it would be stale.
    Page { thread: Thread, reader: UserId, access: ReadAccess, at: PageStart, limit: u16, min_id: MsgId },
    /// Every event with after < id <= upto, oldest first, at most `limit`, and as many as fit: for the repair of a
    /// chain. Nothing is hidden.
    Between { thread: Thread, after: MsgId, upto: MsgId, limit: u16 },
    /// The newest entry of each thread.
    LastEntries { threads: Vec<Thread> },
    /// The newest visible event of each thread, and how many messages are behind what was read, for the thread list.
    /// The answer may be of the first ones only: ask again for the rest.
    Latest { reader: UserId, threads: Vec<AskedThread> },
    /// The id under which (thread, sender, cid) is stored, if it is; looked for from the cid's time on, archive and
    /// log. `below`: only an id smaller than this counts (the late rule: is that entry a copy?).
    FindCid { thread: Thread, sender: UserId, cid: Cid, below: Option<MsgId> },
    /// Is there a message, recalled or not, under this id?
    IsMessage { thread: Thread, id: MsgId },
}

/// What was lost for ever, of any thread? For operators, whose role may not ask for what people wrote. Answered by a
/// list of [`LostIds`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LossesRequest;

/// Ids `first..=last` of a partition that nobody can read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostIds {
    pub generation: u32,
    pub partition: u32,
    pub first: MsgId,
    pub last: MsgId,
    /// When what stands before and after was stored, milliseconds since 1970.
    pub since: u64,
    pub until: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryAnswer {
    Page(Page),
    /// Events and whether that was all of them.
    Between {
        events: Vec<Event>,
        complete: bool,
    },
    LastEntries(Vec<LastEntry>),
    Latest(Vec<LatestOf>),
    /// `seen`: the log's clock at the lookup; goes into the entry if nothing was found.
    FindCid {
        found: Option<MsgId>,
        seen: u64,
    },
    IsMessage(bool),
}

/// Which logins of a user are to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedLogins {
    All,
    /// All but the one with this family of refresh tokens.
    AllBut(Token),
    Of(DeviceId),
}

/// That it is really the user who asks for something that cannot be undone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountProof {
    Password(String),
    /// Of the external issuer, made a moment ago.
    Token(String),
}

/// To `directory`: people, their logins and relations. `actor` has been authenticated by the edge.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryRequest {
    Register {
        name: String,
        password: String,
        device: DeviceId,
        invite: Option<Token>,
    },
    Login {
        name: String,
        password: String,
        device: DeviceId,
        /// Only if this device has logged in as this user before: strangers have used up what others may try.
        known: bool,
    },
    /// With a token of the external issuer; makes the account if there is none yet.
    LoginExternal {
        token: String,
        device: DeviceId,
    },
    Refresh {
        refresh: String,
    },
    /// Revokes the family of this refresh token.
    Logout {
        refresh: String,
    },
    /// The actor's logins, one row for each device. `device`: on which they ask.
    Sessions {
        actor: UserId,
        device: DeviceId,
    },
    /// Ends some of the actor's logins everywhere.
    EndSessions {
        actor: UserId,
        which: EndedLogins,
    },
    /// And ends all logins but the one with this family of refresh tokens.
    ChangePassword {
        actor: UserId,
        family: Token,
        old: String,
        new: String,
    },
    DeleteAccount {
        actor: UserId,
        proof: AccountProof,
    },
    /// Users whose name begins with this (case is ignored), at most 20.
    Find {
        actor: UserId,
        prefix: String,
    },
    Profiles {
        users: Vec<UserId>,
    },
    /// In the order of their names, those behind this name.
    Contacts {
        actor: UserId,
        after: Option<String>,
    },
    Contact {
        actor: UserId,
        other: UserId,
        change: ContactChange,
    },
    /// The key `<uid>.threads` was lost: build it again from archive and log.
    RebuildThreads {
        user: UserId,
    },
    /// The key of a group was lost: likewise.
    RebuildGroup {
        group: GroupId,
    },
    /// The key `<uid>.cursors` was lost: write it again from the archive.
    RestoreCursors {
        user: UserId,
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryAnswer {
    Done,
    Tokens(Tokens),
    /// To a login with `known`: it is not, or there is no such user. No password was tried.
    UnknownDevice,
    /// The device on which the user asks first, then by the time of the login, the newest first.
    Sessions(Vec<UserSession>),
    /// How many logins this ended.
    Ended(u32),
    Profiles(Vec<Profile>),
    /// `more`: they did not all fit.
    Contacts {
        contacts: Vec<Contact>,
        more: bool,
    },
    Contact(Option<ContactState>),
}
