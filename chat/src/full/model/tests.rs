mod reading;

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use natterjack_client::{
    ClientEvent, Unsent,
    protocol::{MsgId, Refusal, client::frame::Page},
};

use super::*;
use crate::full::{
    testing::{Chat, dm, event, page, summary, user},
    timeline::PageWanted,
};

fn local_of(chat: &mut Chat, ticket: u64, local: u64) {
    chat.done(Done::Send { ticket, thread: dm("bob"), result: Ok(Local(local)) });
}

fn sent(local: u64, id: u64) -> ClientEvent {
    let cid = event(&dm("bob"), id, "me", "").cid;
    ClientEvent::Sent { local: Local(local), thread: dm("bob"), cid, id: MsgId(id) }
}

#[test]
fn a_message_is_pending_then_sent_and_never_there_twice() {
    let mut chat = Chat::with(60, 20, 0);
    chat.write("hello bob");
    let sends = chat.sends();
    assert_eq!(sends[0].1, "hello bob");
    assert!(chat.sees("hello bob …"));
    local_of(&mut chat, sends[0].0, 7);
    assert!(chat.sees("hello bob …"));
    chat.sdk(sent(7, 1));
    assert!(chat.sees("hello bob ✓"));
    chat.message(event(&dm("bob"), 1, "me", "hello bob"));
    assert_eq!(chat.screen().iter().filter(|l| l.contains("hello bob")).count(), 1);
    assert!(chat.model.here().unwrap().timeline.pending.is_empty());
}

#[test]
fn the_answer_may_come_before_the_name_of_what_it_answers() {
    let mut chat = Chat::with(60, 20, 0);
    chat.write("fast");
    let ticket = chat.sends()[0].0;
    chat.sdk(sent(7, 1));
    chat.message(event(&dm("bob"), 1, "me", "fast"));
    local_of(&mut chat, ticket, 7);
    assert!(chat.model.here().unwrap().timeline.pending.is_empty());
    assert!(chat.sees("fast ✓"));
}

#[test]
fn a_refused_message_stays_with_its_reason() {
    let mut chat = Chat::with(60, 20, 0);
    chat.write("to a wall");
    let ticket = chat.sends()[0].0;
    local_of(&mut chat, ticket, 7);
    let refusal = Refusal::invalid("bob has blocked you");
    chat.sdk(ClientEvent::Failed { local: Local(7), thread: dm("bob"), refusal });
    assert!(chat.sees("to a wall") && chat.sees("✗ not sent: bob has blocked you"));
    // Not even stored.
    chat.write("second");
    let ticket = chat.sends()[0].0;
    chat.done(Done::Send { ticket, thread: dm("bob"), result: Err("the outbox is full".into()) });
    assert!(chat.sees("✗ not sent: the outbox is full"));
    chat.write("/discard");
    assert!(!chat.sees("✗") && !chat.sees("to a wall"));
    assert!(chat.effects.iter().any(|e| matches!(e, UiEffect::Job(Job::Command { line, .. }) if line == "/discard")));
}

#[test]
fn what_an_earlier_run_did_not_send_is_there() {
    let mut chat = Chat::with(60, 20, 0);
    let row = Unsent {
        local: Local(3),
        thread: dm("bob"),
        kind: Kind::Text,
        body: Body::text("from yesterday"),
        cid: None,
        failed: None,
        unsure: false,
    };
    chat.model.unnamed = 1;
    chat.done(Done::Outbox { rows: vec![row] });
    assert!(chat.sees("from yesterday …") && chat.sees("1 to be sent"));
    chat.sdk(sent(3, 1));
    assert!(chat.sees("from yesterday ✓"));
}

#[test]
fn scrolling_up_fetches_older_pages_until_the_beginning() {
    let mut chat = Chat::with(60, 12, 0);
    chat.message(event(&dm("bob"), 1_000, "bob", "message 1000"));
    chat.model.here_mut().unwrap().timeline.older = crate::full::timeline::Older::Unknown;
    chat.input(UiInput::Tick);
    let mut first = 1_000;
    let mut asked = 0;
    while first > 1 {
        for want in chat.pages() {
            assert_eq!(want, PageWanted::Older(MsgId(first)));
            asked += 1;
            let next = (first - 100).max(1);
            chat.page(want, page(&dm("bob"), next, first - 1));
            first = next;
        }
        chat.key(KeyCode::PageUp);
    }
    assert_eq!(asked, 10);
    chat.input(UiInput::Key(KeyEvent::new(KeyCode::Home, KeyModifiers::CONTROL)));
    assert!(chat.sees("this is the beginning") && chat.sees("message 1"));
    assert_eq!(chat.pages(), []);
    // And all the way down again.
    for _ in 0..400 {
        chat.key(KeyCode::PageDown);
    }
    assert!(chat.model.here().unwrap().anchor.is_end() && chat.sees("message 1000"));
}

#[test]
fn nothing_moves_under_who_reads_what_is_older() {
    let mut chat = Chat::with(60, 12, 50);
    chat.key(KeyCode::PageUp);
    let rows = |chat: &Chat| chat.screen()[1..9].to_vec();
    let before = rows(&chat);
    chat.message(event(&dm("bob"), 51, "bob", "a new one"));
    assert_eq!(rows(&chat), before);
    assert!(chat.sees("↓ 1 new"));
    chat.key(KeyCode::PageDown);
    chat.key(KeyCode::PageDown);
    assert!(chat.sees("a new one") && !chat.sees("↓ 1 new"));
    assert_eq!(chat.model.here().unwrap().unread, 0);
}

#[test]
fn lines_go_up_and_down_by_one() {
    let mut chat = Chat::with(60, 12, 50);
    let before = chat.screen();
    chat.key(KeyCode::Up);
    chat.key(KeyCode::Up);
    assert_ne!(chat.screen()[1..9], before[1..9]);
    chat.key(KeyCode::Down);
    chat.key(KeyCode::Down);
    assert_eq!(chat.screen(), before);
    // Less than a screen does not scroll.
    let mut chat = Chat::with(60, 12, 2);
    chat.key(KeyCode::PageUp);
    assert!(chat.model.here().unwrap().anchor.is_end());
}

#[test]
fn a_page_that_does_not_come_is_asked_for_again() {
    let mut chat = Chat::with(90, 20, 0);
    chat.model.here_mut().unwrap().timeline = crate::full::timeline::Timeline::default();
    chat.input(UiInput::Tick);
    assert_eq!(chat.pages(), [PageWanted::Newest]);
    let failure = JobFailure { why: "the archive is away".into(), is_final: false };
    chat.done(Done::Page { thread: dm("bob"), want: PageWanted::Newest, result: Err(failure) });
    assert!(chat.sees("the archive is away") && chat.sees("trying again"));
    assert_eq!(chat.pages(), []);
    let wake = chat.model.wake(chat.now).unwrap();
    chat.pass(wake - chat.now);
    assert_eq!(chat.pages(), [PageWanted::Newest]);
    assert_ne!(chat.model.wake(chat.now), Some(wake), "no busy waiting");
    // Without a connection nobody is asked.
    chat.page(PageWanted::Newest, Page { prev: MsgId(5), ..page(&dm("bob"), 6, 7) });
    assert_eq!(chat.pages(), [PageWanted::Older(MsgId(6))]);
    chat.sdk(ClientEvent::Reconnecting { wait: Duration::from_secs(3) });
    let failure = JobFailure { why: "no answer".into(), is_final: false };
    chat.done(Done::Page { thread: dm("bob"), want: PageWanted::Older(MsgId(6)), result: Err(failure) });
    chat.key(KeyCode::PageUp);
    assert_eq!(chat.pages(), []);
    assert!(chat.sees("they come with the connection") && chat.sees("again in 3 s"));
    chat.connect();
    assert_eq!(chat.pages(), [PageWanted::Older(MsgId(6))]);
}

#[test]
fn what_comes_elsewhere_is_unread_until_somebody_goes_there() {
    let mut chat = Chat::with(80, 20, 3);
    let carol = dm("carol");
    chat.message(event(&carol, 10, "carol", "psst"));
    chat.message(event(&carol, 11, "me", "from my other device"));
    chat.message(event(&carol, 12, "carol", "well?"));
    assert!(chat.screen()[0].starts_with(" carol (2)"), "{:#?}", chat.screen());
    chat.key(KeyCode::Tab);
    assert_eq!(chat.model.current, Some(carol.clone()));
    assert!(chat.sees("── new ──") && !chat.sees("(2)"));
    chat.key(KeyCode::Tab);
    assert_eq!(chat.model.current, Some(dm("bob")));
    chat.key(KeyCode::Tab);
    assert!(!chat.sees("── new ──"), "it is new once");
    // Behind a page to read nobody sees it either.
    chat.key(KeyCode::F(1));
    chat.message(event(&carol, 13, "carol", "hello?"));
    assert!(chat.sees("carol (1)"));
    chat.key(KeyCode::Esc);
    assert!(chat.sees("hello?") && !chat.sees("(1)"));
}

#[test]
fn what_was_there_before_this_device_is_no_news() {
    let mut chat = Chat::new(80, 20);
    chat.sdk(ClientEvent::Connected { edge: "ws://edge".into() });
    chat.message(event(&dm("carol"), 10, "carol", "long ago"));
    chat.sdk(ClientEvent::Attached);
    assert_eq!(chat.model.threads.get(&dm("carol")).unwrap().unread, 0);
    chat.message(event(&dm("carol"), 11, "carol", "now"));
    assert_eq!(chat.model.threads.get(&dm("carol")).unwrap().unread, 1);
}

#[test]
fn each_thread_keeps_what_is_being_written_in_it() {
    let mut chat = Chat::with(80, 20, 3);
    chat.message(event(&dm("carol"), 10, "carol", "psst"));
    chat.input(UiInput::Paste("half a".into()));
    chat.key(KeyCode::Tab);
    assert_eq!(chat.model.editor.text(), "");
    chat.input(UiInput::Paste("for carol".into()));
    chat.control('p');
    assert_eq!(chat.model.editor.text(), "half a");
    chat.write(" message");
    assert_eq!(chat.sends()[0].1, "half a message");
}

#[test]
fn a_pasted_text_is_one_message_of_many_lines() {
    let mut chat = Chat::with(80, 20, 0);
    chat.input(UiInput::Paste("one\r\ntwo\rthree".into()));
    assert_eq!(chat.sends(), []);
    chat.key(KeyCode::Enter);
    assert_eq!(chat.sends()[0].1, "one\ntwo\nthree");
    assert!(chat.model.editor.is_empty());
}

#[test]
fn typing_is_told_now_and_then_and_shown_for_a_while() {
    let mut chat = Chat::with(80, 20, 3);
    let told = |chat: &Chat| chat.effects.iter().filter(|e| matches!(e, UiEffect::Typing(_))).count();
    "hell".chars().for_each(|c| chat.key(KeyCode::Char(c)));
    assert_eq!(told(&chat), 1);
    chat.pass(Duration::from_secs(4));
    chat.key(KeyCode::Char('o'));
    assert_eq!(told(&chat), 2);
    chat.sdk(ClientEvent::Typing { thread: dm("bob"), user: user("bob") });
    assert!(chat.sees("bob is typing…"));
    let wake = chat.model.wake(chat.now).unwrap();
    chat.pass(wake - chat.now);
    assert!(!chat.sees("bob is typing…"));
    chat.sdk(ClientEvent::Typing { thread: dm("bob"), user: user("bob") });
    chat.message(event(&dm("bob"), 4, "bob", "done"));
    assert!(!chat.sees("bob is typing…"));
    // A command is nobody's business.
    let mut chat = Chat::with(80, 20, 3);
    chat.input(UiInput::Paste("/block bob".into()));
    assert_eq!(told(&chat), 0);
}

#[test]
fn commands_of_the_line_mode_go_to_the_line_mode() {
    let mut chat = Chat::with(80, 20, 3);
    chat.write("/group new choir bob");
    let command = UiEffect::Job(Job::Command { line: "/group new choir bob".into(), here: Some(dm("bob")) });
    assert!(chat.effects.contains(&command), "{:?}", chat.effects);
    let choir: Thread = "group.g1".parse().unwrap();
    chat.done(Done::Command { line: String::new(), said: Vec::new(), entered: Some((choir.clone(), "#choir".into())) });
    assert_eq!(chat.model.current, Some(choir));
    assert!(chat.sees("#choir"));
    // One line is a notice, more are a page to read.
    let said = |text: &str| Said { tone: Tone::Plain, text: text.into() };
    chat.done(Done::Command {
        line: "/block bob".into(),
        said: vec![said("bob can no longer write to you")],
        entered: None,
    });
    assert!(chat.sees("bob can no longer write to you"));
    chat.pass(Duration::from_secs(10));
    assert!(!chat.sees("bob can no longer write to you"));
    chat.done(Done::Command { line: "/contacts".into(), said: vec![said("a\nb")], entered: None });
    assert!(chat.sees("/contacts · Esc closes"));
    chat.key(KeyCode::Esc);
    assert!(!chat.sees("Esc closes"));
    // A mistake leaves what was written.
    chat.write("/nonsense");
    assert!(chat.sees("there is no command /nonsense"));
    assert_eq!(chat.model.editor.text(), "/nonsense");
}

#[test]
fn edits_without_an_id_are_about_the_own_last_message() {
    let mut chat = Chat::with(80, 20, 0);
    chat.write("/edit better");
    assert!(chat.sees("You wrote none here yet"));
    chat.control('u');
    chat.message(event(&dm("bob"), 4, "me", "worse"));
    chat.message(event(&dm("bob"), 5, "bob", "hm"));
    chat.effects.clear();
    chat.write("/edit better");
    let [UiEffect::Typing(_) | UiEffect::Job(Job::Send { .. })] = &chat.effects[..] else {
        panic!("{:?}", chat.effects)
    };
    let target = chat
        .effects
        .iter()
        .find_map(|e| if let UiEffect::Job(Job::Send { body, .. }) = e { body.target } else { None });
    assert_eq!(target, Some(MsgId(4)));
}

#[test]
fn a_first_start_goes_to_the_latest_thread_or_says_what_to_do() {
    let mut chat = Chat::new(80, 20);
    chat.connect();
    chat.done(Done::Threads { threads: Vec::new(), failed: None });
    assert!(chat.sees("/to NAME"));
    let summary = |name: &str, id: u64| summary(name, Some(event(&dm(name), id, name, "x")));
    chat.done(Done::Threads { threads: vec![summary("bob", 5), summary("carol", 9)], failed: None });
    assert_eq!(chat.model.current, Some(dm("carol")));
}

#[test]
fn quitting_and_the_end_of_the_session() {
    let mut chat = Chat::with(80, 20, 3);
    chat.control('c');
    assert_eq!(chat.effects.pop(), Some(UiEffect::Quit));
    chat.write("/quit");
    assert_eq!(chat.effects.pop(), Some(UiEffect::Quit));
    chat.sdk(ClientEvent::Ended { code: 4_001, reason: "replaced".into() });
    assert!(matches!(chat.effects.pop(), Some(UiEffect::End(why)) if why.contains("replaced")));
}
