//! HBONE: connections carried as CONNECT streams of HTTP/2 connections over mutual TLS, as ztunnel and Istio's waypoints
//! speak it. A caller proves itself once for a tunnel; each stream in it is a connection of its own: registered, decided,
//! recorded and cut by itself.
//!
//! What a stream's headers say of the caller (`baggage`, `forwarded`, `x-istio-*`) is never looked at: the tunnel's handshake
//! has said it.

mod answer;
mod authority;
mod call;
mod carrier;
mod destination;
mod entrance;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listener;
mod opening;
mod pool;
mod pulse;
mod session;
mod stream;

pub(crate) use listener::Inbound;
pub(crate) use opening::{Call, OpenError};
pub(crate) use pool::{Carried, Tunnels};

/// The port of HBONE, the same everywhere.
pub(crate) const PORT: u16 = 15008;
/// Streams in one tunnel: a stall or a loss concerns no more connections than these.
pub(crate) const MAX_STREAMS: usize = 100;
/// Bytes of one stream that are on their way or wait for their reader.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of all streams of a tunnel that are on their way or wait for their readers: more than those of a stream, for one
/// that is not read must not stop the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// The longest frame taken.
const FRAME: u32 = 1024 * 1024;
/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 256 * 1024;
/// Bytes of the headers of one stream: an authority and what others add for one another.
const HEADER_LIST: u32 = 16 * 1024;
/// What frames of few bytes may cost while they wait for their readers, in the library's measure of 256 bytes each: a
/// conversation of single bytes whose reader pauses is no attack, and all of it stays within a few times this.
const SMALL_FRAMES: usize = 8 * 1024 * 1024;
