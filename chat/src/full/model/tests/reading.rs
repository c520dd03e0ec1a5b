//! What was read, here and elsewhere, and how far one's own messages have come.

use crossterm::event::KeyCode;
use natterjack_client::protocol::client::{
    frame::{Receipt, ThreadSummary},
    thread_settings::ThreadSettings,
};

use super::*;
use crate::full::testing::{Chat, dm, event, summary, user};

#[test]
fn what_was_read_on_another_device_is_read_here_and_what_is_read_here_is_said() {
    let mut chat = Chat::with(80, 20, 3);
    assert_eq!(chat.read.get(&dm("bob")), Some(&MsgId(3)), "it stands on the screen");
    let carol = dm("carol");
    let listed = ThreadSummary { unread: Some(100), ..summary("carol", Some(event(&carol, 9, "carol", "x"))) };
    chat.done(Done::Threads { threads: vec![listed], failed: None });
    assert!(chat.sees("carol (99+)"), "{:#?}", chat.screen());
    chat.sdk(ClientEvent::Read { thread: carol.clone(), id: MsgId(8) });
    assert!(chat.sees("carol (99+)"), "not all of it");
    chat.sdk(ClientEvent::Read { thread: carol.clone(), id: MsgId(9) });
    assert!(!chat.sees("carol ("));
    chat.message(event(&carol, 10, "carol", "psst"));
    assert!(chat.sees("carol (1)") && !chat.read.contains_key(&carol));
    chat.key(KeyCode::Tab);
    assert_eq!(chat.read.get(&carol), Some(&MsgId(10)));
}

#[test]
fn a_message_of_ones_own_shows_how_far_it_has_come() {
    let mut chat = Chat::with(80, 20, 3);
    for id in [4, 5] {
        chat.message(event(&dm("bob"), id, "me", &format!("mine {id}")));
    }
    let receipts = |got, read| {
        let receipt = Receipt { user: user("bob"), got: MsgId(got), read: MsgId(read) };
        ClientEvent::Receipts { thread: dm("bob"), receipts: vec![receipt] }
    };
    assert!(chat.screen().iter().any(|l| l.trim_end().ends_with("mine 5 ✓")), "{:#?}", chat.screen());
    chat.sdk(receipts(5, 4));
    assert!(chat.sees("mine 4 ✓✓ read") && chat.screen().iter().any(|l| l.trim_end().ends_with("mine 5 ✓✓")));
    chat.sdk(receipts(4, 3));
    assert!(chat.sees("mine 4 ✓✓ read"), "one that comes late takes nothing back");
}

#[test]
fn what_is_set_elsewhere_shows_in_the_list_and_a_draft_goes_on_here() {
    let mut chat = Chat::with(80, 20, 3);
    let (bob, carol) = (dm("bob"), dm("carol"));
    let listed = summary("carol", Some(event(&carol, 1, "carol", "x")));
    chat.done(Done::Threads { threads: vec![listed], failed: None });
    let first = |chat: &Chat| chat.model.threads.sorted()[0].thread.clone();
    assert_eq!(first(&chat), bob);
    let set = |thread: &Thread, settings| ClientEvent::Settings { thread: thread.clone(), settings };
    let begun = ThreadSettings { pinned: true, draft: Some("dear carol".into()), ..ThreadSettings::default() };
    chat.sdk(set(&carol, begun.clone()));
    assert_eq!(first(&chat), carol);
    assert!(chat.sees("^* carol"), "{:#?}", chat.screen());
    chat.model.editor.insert("dear bob");
    chat.effects.clear();
    chat.key(KeyCode::Tab);
    assert_eq!((chat.model.current.as_ref(), chat.model.editor.text()), (Some(&carol), "dear carol"));
    let kept = Job::Draft { thread: bob.clone(), draft: "dear bob".into() };
    assert!(chat.effects.contains(&UiEffect::Job(kept)), "{:?}", chat.effects);
    // Written on another device meanwhile: not over what is written here.
    chat.model.editor.insert("!");
    chat.sdk(set(&carol, ThreadSettings { draft: Some("dear".into()), ..begun.clone() }));
    assert_eq!(chat.model.editor.text(), "dear carol!");
    chat.effects.clear();
    chat.key(KeyCode::Enter);
    let none = Job::Draft { thread: carol.clone(), draft: String::new() };
    assert!(chat.effects.contains(&UiEffect::Job(none)), "{:?}", chat.effects);
    chat.sdk(set(&carol, ThreadSettings { archived: true, ..begun }));
    assert!(chat.model.threads.sorted().iter().all(|row| row.thread != carol));
}
