//! What one connection may ask for, and how much of it is held.

use std::time::Duration;

use crate::http1::HeadLimits;

/// Prepares the side of a connection that answers.
pub(super) fn server(heads: HeadLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SERVER_WINDOW)
        .max_header_list_size(list_size(heads))
        .max_concurrent_reset_streams(MAX_RESET)
        .max_pending_accept_reset_streams(MAX_PENDING_RESET)
        .max_local_error_reset_streams(Some(MAX_OWN_RESETS))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// Prepares the side of a connection that asks.
pub(super) fn client(heads: HeadLimits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_WINDOW)
        .max_header_list_size(list_size(heads))
        .max_concurrent_reset_streams(MAX_RESET)
        .max_pending_accept_reset_streams(MAX_PENDING_RESET)
        .max_local_error_reset_streams(Some(MAX_OWN_RESETS))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// The library answers a longer head by itself, and nothing is on record of that: between the limit and twice the limit the
/// refusal is ours.
fn list_size(heads: HeadLimits) -> u32 {
    u32::try_from(heads.bytes.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// Requests that one connection carries at a time, in either role.
pub(crate) const MAX_STREAMS: u32 = 256;
/// What one request or response may send ahead of its reader.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// What all requests of one caller may send ahead: sixteen that nobody reads hold up the others, until they stall.
pub(super) const SERVER_WINDOW: u32 = 16 * STREAM_WINDOW;
/// What all responses of one upstream may send ahead. Several callers share the connection: none of them can hold up the
/// others by not reading, for all streams together find room.
pub(super) const CLIENT_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// What is kept of one message for a peer that does not take it.
pub(super) const SEND_BUFFER: usize = 128 * 1024;
/// Requests that were reset and are remembered for frames still on their way.
const MAX_RESET: usize = 64;
/// Requests that a peer opens and resets before they were looked at (CVE-2023-44487): more end the connection.
pub(super) const MAX_PENDING_RESET: usize = 32;
/// Requests that a peer has us reset by breaking the rules (CVE-2025-8671): more end the connection.
pub(super) const MAX_OWN_RESETS: usize = 256;
/// Frames that bring nothing forward, such as PING and SETTINGS, which a peer may send at once.
pub(super) const CONTROL_FRAMES: u32 = 1_000;
/// How many more it may send each second.
pub(super) const CONTROL_FRAMES_PER_SECOND: u32 = 20;
/// How many more it may send for each frame that brings something forward.
pub(super) const CONTROL_FRAMES_PER_USEFUL: u32 = 8;
/// A kept connection to an upstream without a request is closed after this.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// How often kept connections are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// An upstream that owes answers and has said nothing for so long is asked for a sign of life.
pub(super) const SILENT: Duration = Duration::from_secs(10);
/// How long it may take to give it.
pub(super) const SIGN: Duration = Duration::from_secs(10);
/// Connections to one upstream and thread. Each carries [`MAX_STREAMS`] requests, unless the upstream wants fewer.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// For requests that were on their way when their connection was told to take no more.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_unread_responses_takes_the_room_of_the_others() {
        const { assert!(CLIENT_WINDOW / STREAM_WINDOW >= MAX_STREAMS) }
    }

    #[test]
    fn one_unread_request_does_not_hold_up_the_others() {
        const { assert!(SERVER_WINDOW > STREAM_WINDOW) }
    }
}
