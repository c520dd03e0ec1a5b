use std::time::Duration;

use natterjack_client::{
    ClientEvent,
    protocol::client::{
        frame::{DeviceClass, Displaced, OtherDevice},
        presence::{PresenceOf, PresenceState},
    },
};

use super::*;
use crate::full::{
    model::UiInput,
    testing::{Chat, TS, dm, event, user},
};

#[test]
fn a_whole_screen() {
    let mut chat = Chat::with(72, 14, 2);
    chat.message(event(&dm("bob"), 3, "me", "hello bob"));
    chat.message(event(&dm("carol"), 4, "carol", "psst"));
    chat.sdk(ClientEvent::Typing { thread: dm("bob"), user: user("bob") });
    chat.input(UiInput::Paste("I am wri".into()));
    let expected = "
 carol (1)  11:25 │ bob
 bob        11:25 │
                  │
                  │
                  │╌╌ this is the beginning ╌╌
                  │── Saturday 21 November 2026 (UTC) ──
                  │bob  11:25
                  │  message 1
                  │  message 2
                  │me  11:25
                  │  hello bob ✓
                  │bob is typing…
                  │> I am wri
● ws://edge · me                                   F1 help · Ctrl-C quit";
    assert_eq!(chat.screen(), expected.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn wide_characters_are_wrapped_and_never_halved() {
    let mut chat = Chat::with(20, 10, 0);
    chat.message(event(&dm("bob"), 1, "bob", "蟾蜍在夜里大声地唱歌🐸🐸🐸 e\u{301}te\u{301}"));
    let screen = chat.screen();
    assert!(screen.contains(&"  蟾蜍在夜里大声地唱".to_owned()), "{screen:#?}");
    assert!(screen.contains(&"  歌🐸🐸🐸 e\u{301}te\u{301}".to_owned()), "{screen:#?}");
    for line in screen {
        assert!(crate::full::wrap::width(&line) <= 20, "{line:?}");
    }
}

#[test]
fn what_others_write_does_not_steer_the_terminal() {
    let mut chat = Chat::with(60, 20, 0);
    chat.message(event(&dm("bob"), 1, "bob", "a\x1b[2Jb\r\u{202e}c"));
    assert!(chat.sees("a\u{fffd}[2Jb\u{fffd}\u{fffd}c"));
    // Nor do names say something on a line of their own, whatever a server gives out.
    let (bob, name) = (crate::full::testing::user("bob"), Some("bob\u{9b}31m\nalice: pay him\u{2028}".to_owned()));
    chat.done(crate::full::model::Done::User { user: bob, name });
    assert!(chat.sees("bob\u{fffd}31m\u{fffd}alice: pay him\u{fffd}"), "{:#?}", chat.screen());
    assert!(!chat.screen().iter().any(|l| l.trim_start().starts_with("alice: ")));
}

#[test]
fn every_size_is_drawn_without_a_panic() {
    let mut chat = Chat::with(80, 24, 40);
    chat.message(event(
        &dm("bob"),
        41,
        "bob",
        "蟾蜍🐸 and a longer line of words that has to be wrapped somewhere\n\nand more",
    ));
    chat.message(event(&dm("carol"), 42, "carol", "psst"));
    chat.input(UiInput::Paste("蟾蜍🐸\n several lines\nof text".into()));
    for panel in [false, true] {
        for list_first in [false, true] {
            for (width, height) in
                (0..=24).flat_map(|w| (0..=12).map(move |h| (w, h))).chain([(20, 5), (200, 60), (61, 3)])
            {
                chat.input(UiInput::Resize(width, height));
                if panel {
                    chat.key(crossterm::event::KeyCode::F(1));
                }
                chat.model.list_first = list_first;
                chat.key(crossterm::event::KeyCode::PageUp);
                assert_eq!(chat.screen().len(), usize::from(height));
                chat.key(crossterm::event::KeyCode::PageDown);
                chat.screen();
            }
        }
    }
}

#[test]
fn the_smallest_useful_screen() {
    let mut chat = Chat::with(20, 5, 3);
    assert_eq!(chat.screen(), ["  message 1", "  message 2", "  message 3", ">", "● ws://edge · me"]);
    chat.message(event(&dm("bob"), 4, "bob", "one two three four five"));
    assert_eq!(chat.screen()[..3], ["  message 3", "  one two three four", "  five"]);
}

#[test]
fn the_cursor_stands_behind_what_is_written() {
    let mut chat = Chat::with(20, 8, 3);
    chat.input(UiInput::Paste("蟾蜍".into()));
    let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(20, 8)).unwrap();
    terminal.draw(|frame| draw(&chat.model, frame, chat.now)).unwrap();
    terminal.backend_mut().assert_cursor_position((6, 6));
}

fn shown(state: PresenceState, last_seen: Option<u64>) -> ClientEvent {
    ClientEvent::Presence { users: vec![PresenceOf { user: user("bob"), state, last_seen }] }
}

#[test]
fn what_an_edge_does_not_know_for_a_moment_is_not_shown() {
    let mut chat = Chat::with(72, 8, 1);
    chat.sdk(shown(PresenceState::Unknown, None));
    chat.pass(Duration::from_secs(1));
    assert!(chat.screen()[0].starts_with(" bob") && !chat.sees("perhaps here"), "{:#?}", chat.screen());
    let wake = chat.model.wake(chat.now).expect("it is shown if it stays");
    chat.pass(wake - chat.now);
    assert!(chat.screen()[0].starts_with(" ? bob") && chat.sees("perhaps here"), "{:#?}", chat.screen());
    chat.connect();
    chat.sdk(shown(PresenceState::Unknown, None));
    assert!(!chat.sees("perhaps here"), "anew with each connection");
}

#[test]
fn who_took_over_stands_there_until_this_device_is_in_again() {
    let mut chat = Chat::with(90, 8, 1);
    let by = OtherDevice { device: user("d2"), name: Some("Laptop".into()), class: DeviceClass::Desktop };
    chat.sdk(ClientEvent::Displaced(Displaced { by, since: 1 }));
    chat.pass(Duration::from_secs(3_600));
    assert!(chat.sees("“Laptop”, another desktop of yours, has taken over: /here takes over again"));
    assert!(!chat.model.is_online());
    chat.connect();
    assert!(!chat.sees("has taken over"));
}

#[test]
fn a_dot_says_how_the_other_one_is_shown_and_goes_with_the_connection() {
    let mut chat = Chat::with(72, 8, 1);
    assert_eq!(chat.watched, [user("bob")]);
    chat.sdk(shown(PresenceState::Online, None));
    assert!(
        chat.screen()[0].starts_with(" ● bob") && chat.screen()[0].contains("│ bob · ● online"),
        "{:#?}",
        chat.screen()
    );
    chat.sdk(shown(PresenceState::Offline, Some(TS)));
    assert!(
        chat.screen()[0].contains("○ bob") && chat.screen()[0].contains("offline, last seen 21 Nov"),
        "{:#?}",
        chat.screen()
    );
    chat.sdk(ClientEvent::Reconnecting { wait: Duration::from_secs(1) });
    assert!(chat.screen()[0].starts_with(" bob") && !chat.screen()[0].contains("last seen"), "{:#?}", chat.screen());
}
