//! The mux among others: two independent implementations of yamux, and itself. Both roles, pipes that cut bytes anywhere, a gigabyte
//! each way. And WebSocket's frames, through the echo for conformance suites. `tests/run` installs Go and its library; without the
//! feature `yamux-crate` none of this is compiled.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]

mod bulk;
mod end;
mod go;
mod programs;
mod reference;
mod websocket;

#[path = "../peers/websocket-echo/src/client.rs"]
mod client;
#[path = "../peers/websocket-echo/src/echo.rs"]
mod echo;
#[path = "../peers/websocket-echo/src/server.rs"]
mod server;
#[path = "../peers/websocket-echo/src/upgrade.rs"]
mod upgrade;
