//! The channel service, step 4 of a message's life: reads the log in order, folds control entries, chains each thread,
//! publishes the client-ready frame on live subjects and answers heads.
//!
//! `role` is what the runner starts, `partition` the loop of one partition. A message passes through `thread_heads`
//! (its predecessor), `unconfirmed` (until it is known to have left), `frame` and `publisher`. Control entries wait for
//! `fold` and `kv_folder`, late ones for `late`. `idle_heads` repeats last ids, `heads` answers, `log_probe` asks the
//! log what beats say, `inherited` is handed to the next generation.

mod fold;
mod frame;
mod heads;
mod idle_heads;
mod in_flight;
mod inherited;
mod kv_folder;
mod late;
mod log_probe;
mod metrics;
mod partition;
mod publisher;
mod role;
mod start;
mod thread_heads;
mod unconfirmed;

pub use role::run;
