//! What a test panicked with, kept to be said once more below the logs: who reads only the end of a long output sees
//! it.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on every panic is kept, beside what was done with it before.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LAST.with_borrow_mut(|last| *last = Some(info.to_string()));
            before(info);
        }));
    });
}

/// The last panic of this thread.
pub fn last() -> Option<String> {
    LAST.with_borrow(Clone::clone)
}
