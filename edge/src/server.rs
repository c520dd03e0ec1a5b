//! Before step 2: TCP, TLS and HTTP/1.1, up to the request that becomes a WebSocket.
//!
//! `accept` takes connections within `capacity`, `connection` reads their requests (`head`, `body`), hands them to
//! `http` and writes the answers (`answer`), until `upgrade` lets one become a session. `shutdown` says how far the
//! edge is on its way out.

pub mod accept;
pub mod answer;
pub mod body;
pub mod capacity;
pub mod connection;
pub mod head;
pub mod shutdown;
pub mod tls;
pub mod upgrade;
