//! One question to one endpoint: does it prove an expected identity, and does it answer.

use std::{net::SocketAddr, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::Dialler;
use crate::{
    activity::Waiting, balance::Via, config::Tunnelling, services::Service, shared::Shared, tunnel::Tunnels,
};

/// Asks an endpoint; with a path, for an answer with a status of 2xx to a GET for it. Whoever asks limits the time.
pub(crate) async fn probe(
    shared: &Arc<Shared>,
    service: &Arc<Service>,
    address: SocketAddr,
    path: Option<&str>,
) -> bool {
    let dialler = Dialler {
        service: Arc::clone(service),
        tunnelling: Tunnelling::Never,
        tunnels: Arc::new(Tunnels::new(Arc::clone(shared))),
        shared: Arc::clone(shared),
    };
    let limits = (shared.limits.connect_timeout, Some(shared.limits.handshake_timeout));
    let reached = dialler.connect_to(address, Via::Connection, limits, (None, Waiting::Nothing)).await;
    let Ok(mut reached) = reached else { return false };
    let Some(path) = path else { return true };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", service.name());
    if reached.stream.write_all(request.as_bytes()).await.is_err() || reached.stream.flush().await.is_err() {
        return false;
    }
    let mut start = [0; STATUS_LINE.len() + 1];
    reached.stream.read_exact(&mut start).await.is_ok() && is_good(&start)
}

fn is_good(start: &[u8]) -> bool {
    matches!(start, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', b'2', first, second]
        if first.is_ascii_digit() && second.is_ascii_digit())
}

/// What the shortest status line begins with, up to its first two digits.
const STATUS_LINE: &[u8] = b"HTTP/1.1 20";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_2xx_is_good() {
        for good in ["HTTP/1.1 200", "HTTP/1.0 204", "HTTP/1.1 299"] {
            assert!(is_good(good.as_bytes()), "{good}");
        }
        for bad in
            ["HTTP/1.1 199", "HTTP/1.1 301", "HTTP/1.1 503", "HTTP/2.0 200", "HTTP/1.1 2x0", "SSH-2.0-Open"]
        {
            assert!(!is_good(bad.as_bytes()), "{bad}");
        }
    }
}
