//! The channel service, step 4 of a message's life: reads the log in order, folds control entries, chains each thread, publishes the
//! client-ready frame on live subjects and answers heads.
//!
//! A message passes through `partition` (the loop), `last` (its predecessor), `window` (until it is known to have left), `frame` and
//! `outlet`. Control entries wait for `fold` and `folder`. `quiet` repeats last ids, `heads` answers, `watch` feeds the beats.

mod error;
mod fold;
mod folder;
mod frame;
mod heads;
mod last;
mod late;
mod metrics;
mod outlet;
mod partition;
mod quiet;
mod service;
mod start;
mod watch;
mod window;

pub use error::Error;
pub use service::{Config, run};
