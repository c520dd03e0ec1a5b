//! What was read, here and elsewhere, and how far one's own messages have come.

use crossterm::event::KeyCode;
use natterjack_client::protocol::client::frame::{Receipt, ThreadSummary};

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
