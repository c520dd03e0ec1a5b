//! What a typed line means (pure).

use natterjack_client::protocol::{
    MsgId,
    client::{http::ContactChange, presence::PresenceChoice},
    log::Role,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputLine {
    Text(String),
    /// A user's name, or `#` and a group's name or id.
    To(String),
    Group(GroupCommand),
    Threads,
    /// Those in the archive.
    ArchivedThreads,
    /// Of the current thread.
    Set(ThreadCommand),
    ReadAll,
    History(u16),
    Find(String),
    Contacts,
    Contact(String, ContactChange),
    Blocks,
    Block(String),
    Unblock(String),
    /// The message (none: the own last one) and its new text.
    Edit(Option<MsgId>, String),
    Recall(Option<MsgId>),
    /// Who has got and read a message; none: the own last one.
    Receipts(Option<MsgId>),
    /// Does this user give receipts, and get those of others?
    GiveReceipts(bool),
    /// Up to this message the thread is read; none: the newest one that was shown.
    Read(Option<MsgId>),
    Typing,
    Sessions,
    /// A number of the last list, or the id of a device.
    EndSession(String),
    EndOtherSessions,
    /// In place of the device that has taken over.
    TakeOver,
    /// How the user is to be shown.
    Choose(PresenceChoice),
    Outbox,
    /// None: all that were refused.
    Discard(Option<u64>),
    Help,
    Quit,
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadCommand {
    /// For so many hours; none: for ever.
    Mute(Option<u32>),
    Unmute,
    Pin(bool),
    Archive(bool),
    Unread,
    /// Empty: none any more.
    Draft(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupCommand {
    New { name: String, users: Vec<String> },
    Add(Vec<String>),
    Remove(Vec<String>),
    Leave,
    Rename(String),
    Role(String, Role),
    Info,
}

pub const HELP: &str = "\
A line is a message to the current thread; // at its beginning sends a line that begins with /.
/to NAME                     write to this user (/to #GROUP: to a group, by name or id)
/threads [archived]          your threads       /history [N]      the last N messages here
/pin   /unpin                the thread stands before all others, on all your devices
/mute [HOURS]   /unmute      no notifications   /archive   /unarchive   out of the list, and back
/unread                      mark it as unread  /draft [TEXT]     keep what you have begun; without a text: forget it
/group new NAME USER…        make a group       /group info       its members
/group add|remove USER…      /group leave       /group rename NAME   /group role USER owner|admin|member
/find PREFIX                 look for users     /contacts         yours, and who asks
/contact NAME request|accept|remove
/block NAME                  /unblock NAME      /blocks           whom you block
/edit [#ID] TEXT             change a message of yours, the last one without an ID
/recall [#ID]                take it back       /typing           tell the others that you write
/receipts [#ID]              who has got and read a message of yours, the last one without an ID
/receipts on|off             give receipts to others, and get theirs; or neither
/read [#ID]                  you have read the thread up to this message, the newest one without an ID
/read all                    you have read everything
/available                   /away   /dnd        /hidden: how you are shown to others
/sessions                    your devices       /sessions end N|others   ends their logins
/here                        use this device again after another has taken over
/outbox                      what is not sent   /discard [N]      forget what was refused, or message N
/help                        this               /quit";

pub fn parse(line: &str) -> Result<InputLine, String> {
    if line.trim().is_empty() {
        return Ok(InputLine::Nothing);
    }
    let Some(command) = line.strip_prefix('/') else { return Ok(InputLine::Text(line.to_owned())) };
    if command.starts_with('/') {
        return Ok(InputLine::Text(command.to_owned()));
    }
    let (verb, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(v, r)| (v, r.trim()));
    match verb {
        "to" => one(rest, "/to NAME").map(InputLine::To),
        "group" => group(rest).map(InputLine::Group),
        "threads" => match rest {
            "" => Ok(InputLine::Threads),
            "archived" => Ok(InputLine::ArchivedThreads),
            _ => Err("/threads or /threads archived".into()),
        },
        "pin" | "unpin" => none(rest, verb, ThreadCommand::Pin(verb == "pin")),
        "archive" | "unarchive" => none(rest, verb, ThreadCommand::Archive(verb == "archive")),
        "unread" => none(rest, verb, ThreadCommand::Unread),
        "unmute" => none(rest, verb, ThreadCommand::Unmute),
        "mute" if rest.is_empty() => Ok(InputLine::Set(ThreadCommand::Mute(None))),
        "mute" => match rest.parse() {
            Ok(hours @ 1..=8_760) => Ok(InputLine::Set(ThreadCommand::Mute(Some(hours)))),
            _ => Err("/mute HOURS, from 1 to 8760; without a number for ever".into()),
        },
        "draft" => Ok(InputLine::Set(ThreadCommand::Draft(rest.to_owned()))),
        "history" if rest.is_empty() => Ok(InputLine::History(20)),
        "history" => match rest.parse() {
            Ok(n @ 1..=200) => Ok(InputLine::History(n)),
            _ => Err("/history N, with N from 1 to 200".into()),
        },
        "find" => one(rest, "/find PREFIX").map(InputLine::Find),
        "contacts" => Ok(InputLine::Contacts),
        "contact" => match words(rest)?.as_slice() {
            [name, change] => Ok(InputLine::Contact(name.clone(), contact_change(change)?)),
            _ => Err("/contact NAME request|accept|remove".into()),
        },
        "blocks" => Ok(InputLine::Blocks),
        "block" => one(rest, "/block NAME").map(InputLine::Block),
        "unblock" => one(rest, "/unblock NAME").map(InputLine::Unblock),
        "edit" => {
            let (id, text) = target(rest)?;
            if text.is_empty() { Err("/edit [#ID] TEXT".into()) } else { Ok(InputLine::Edit(id, text.to_owned())) }
        }
        "recall" => match target(rest)? {
            (id, "") => Ok(InputLine::Recall(id)),
            _ => Err("/recall [#ID]".into()),
        },
        "receipts" => match target(rest)? {
            (id, "") => Ok(InputLine::Receipts(id)),
            (None, "on") => Ok(InputLine::GiveReceipts(true)),
            (None, "off") => Ok(InputLine::GiveReceipts(false)),
            _ => Err("/receipts [#ID], /receipts on or /receipts off".into()),
        },
        "read" => match target(rest)? {
            (id, "") => Ok(InputLine::Read(id)),
            (None, "all") => Ok(InputLine::ReadAll),
            _ => Err("/read [#ID] or /read all".into()),
        },
        "typing" => Ok(InputLine::Typing),
        "sessions" => match words(rest)?.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(InputLine::Sessions),
            ["end", "others"] => Ok(InputLine::EndOtherSessions),
            ["end", which] => Ok(InputLine::EndSession((*which).to_owned())),
            _ => Err("/sessions, /sessions end N or /sessions end others".into()),
        },
        "here" => Ok(InputLine::TakeOver),
        "available" => Ok(InputLine::Choose(PresenceChoice::Available)),
        "away" => Ok(InputLine::Choose(PresenceChoice::Away)),
        "dnd" => Ok(InputLine::Choose(PresenceChoice::Dnd)),
        "hidden" => Ok(InputLine::Choose(PresenceChoice::Hidden)),
        "outbox" => Ok(InputLine::Outbox),
        "discard" if rest.is_empty() => Ok(InputLine::Discard(None)),
        "discard" => {
            rest.parse().map(|n| InputLine::Discard(Some(n))).map_err(|_| "/discard N, with N from /outbox".into())
        }
        "help" | "?" => Ok(InputLine::Help),
        "quit" | "exit" => Ok(InputLine::Quit),
        other => Err(format!("there is no command /{other}; /help lists them, // sends a line that begins with /")),
    }
}

fn group(rest: &str) -> Result<GroupCommand, String> {
    let words = words(rest)?;
    let Some((verb, names)) = words.split_first() else {
        return Err("/group new|add|remove|leave|rename|role|info".into());
    };
    match (verb.as_str(), names) {
        ("new", [name, users @ ..]) => Ok(GroupCommand::New { name: name.clone(), users: users.to_vec() }),
        ("add", users) if !users.is_empty() => Ok(GroupCommand::Add(users.to_vec())),
        ("remove", users) if !users.is_empty() => Ok(GroupCommand::Remove(users.to_vec())),
        ("leave", []) => Ok(GroupCommand::Leave),
        ("rename", name) if !name.is_empty() => Ok(GroupCommand::Rename(name.join(" "))),
        ("role", [user, role]) => Ok(GroupCommand::Role(user.clone(), self::role(role)?)),
        ("info", []) => Ok(GroupCommand::Info),
        _ => Err("/group new NAME USER… | add USER… | remove USER… | leave | rename NAME | role USER \
                  owner|admin|member | info"
            .into()),
    }
}

fn contact_change(s: &str) -> Result<ContactChange, String> {
    match s {
        "request" => Ok(ContactChange::Request),
        "accept" => Ok(ContactChange::Accept),
        "remove" => Ok(ContactChange::Remove),
        _ => Err("/contact NAME request|accept|remove".into()),
    }
}

fn role(s: &str) -> Result<Role, String> {
    match s {
        "owner" => Ok(Role::Owner),
        "admin" => Ok(Role::Admin),
        "member" => Ok(Role::Member),
        _ => Err("a role is owner, admin or member".into()),
    }
}

/// A command that takes nothing.
fn none(rest: &str, verb: &str, command: ThreadCommand) -> Result<InputLine, String> {
    if rest.is_empty() {
        Ok(InputLine::Set(command))
    } else {
        Err(format!("/{verb} takes nothing: it is for the thread here"))
    }
}

fn one(rest: &str, usage: &str) -> Result<String, String> {
    match words(rest)?.as_slice() {
        [word] => Ok(word.clone()),
        _ => Err(usage.to_owned()),
    }
}

/// `#123 text` or `text`.
fn target(rest: &str) -> Result<(Option<MsgId>, &str), String> {
    let Some(after) = rest.strip_prefix('#') else { return Ok((None, rest)) };
    let (id, text) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
    let id = id.parse().map_err(|_| "a message is named by # and its number".to_owned())?;
    Ok((Some(MsgId(id)), text.trim()))
}

/// Words; what stands in double quotes is one.
fn words(s: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = s.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a \" is not closed")?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_commands() {
        let p = |s| parse(s).unwrap();
        assert_eq!(p("hello /to"), InputLine::Text("hello /to".into()));
        assert_eq!(p("//etc"), InputLine::Text("/etc".into()));
        assert_eq!(p("  "), InputLine::Nothing);
        assert_eq!(p("/to bob"), InputLine::To("bob".into()));
        assert_eq!(p("/to \"#toad choir\""), InputLine::To("#toad choir".into()));
        assert_eq!(p("/history 5"), InputLine::History(5));
        assert_eq!(p("/edit #12 new text"), InputLine::Edit(Some(MsgId(12)), "new text".into()));
        assert_eq!(p("/edit 12 is a number"), InputLine::Edit(None, "12 is a number".into()));
        assert_eq!(p("/recall"), InputLine::Recall(None));
        assert_eq!((p("/receipts"), p("/receipts off")), (InputLine::Receipts(None), InputLine::GiveReceipts(false)));
        assert_eq!(p("/receipts #9"), InputLine::Receipts(Some(MsgId(9))));
        assert_eq!((p("/read"), p("/read #9")), (InputLine::Read(None), InputLine::Read(Some(MsgId(9)))));
        assert_eq!((p("/read all"), p("/threads archived")), (InputLine::ReadAll, InputLine::ArchivedThreads));
        let set = |line| match p(line) {
            InputLine::Set(command) => command,
            other => panic!("{other:?}"),
        };
        assert_eq!((set("/mute"), set("/mute 8")), (ThreadCommand::Mute(None), ThreadCommand::Mute(Some(8))));
        assert_eq!((set("/unpin"), set("/archive")), (ThreadCommand::Pin(false), ThreadCommand::Archive(true)));
        assert_eq!(set("/draft to be or"), ThreadCommand::Draft("to be or".into()));
        assert_eq!(set("/draft"), ThreadCommand::Draft(String::new()));
        assert_eq!(p("/discard"), InputLine::Discard(None));
        assert_eq!(p("/discard 7"), InputLine::Discard(Some(7)));
        assert_eq!(p("/blocks"), InputLine::Blocks);
        assert_eq!(p("/sessions"), InputLine::Sessions);
        assert_eq!(p("/sessions end 2"), InputLine::EndSession("2".into()));
        assert_eq!(p("/sessions end others"), InputLine::EndOtherSessions);
        assert_eq!(p("/here"), InputLine::TakeOver);
        assert_eq!(p("/available"), InputLine::Choose(PresenceChoice::Available));
        assert_eq!(
            p("/group new \"toad choir\" bob"),
            InputLine::Group(GroupCommand::New { name: "toad choir".into(), users: vec!["bob".into()] })
        );
        assert_eq!(p("/group role bob admin"), InputLine::Group(GroupCommand::Role("bob".into(), Role::Admin)));
        assert_eq!(p("/contact bob accept"), InputLine::Contact("bob".into(), ContactChange::Accept));
    }

    #[test]
    fn mistakes_are_explained() {
        for bad in [
            "/to",
            "/to a b",
            "/nonsense",
            "/history 0",
            "/mute 0",
            "/mute long",
            "/pin bob",
            "/threads all",
            "/history x",
            "/group",
            "/group add",
            "/group role bob king",
            "/edit",
            "/edit #x y",
            "/recall words",
            "/read words",
            "/receipts maybe",
            "/sessions 2",
            "/sessions end",
            "/contact bob",
            "/contact bob marry",
            "/to \"bob",
        ] {
            assert!(!parse(bad).unwrap_err().is_empty(), "{bad}");
        }
    }
}
