//! The connection to the CA: TCP, TLS with SPIFFE identities, HTTP/2.

use std::error::Error;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::tls::{self, HandshakeError};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::Trust;

/// How long connecting may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After how long of silence the kernel asks whether the CA is still there, how often, and how many times in vain.
/// HTTP/2 pings would do the same, but servers in Go end connections that send them this often.
pub(super) const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

pub(super) async fn channel(address: &str, trust: Trust) -> Result<Channel, ConnectError> {
    let malformed = |source| ConnectError::Address { address: address.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(malformed)?;
    let to = address.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (to, trust) = (to.clone(), trust.clone());
        async move {
            tokio::time::timeout(CONNECT_TIMEOUT, dial(&to, trust)).await.unwrap_or(Err(DialError::Timeout))
        }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|source| ConnectError::Connect { address: address.to_owned(), source })
}

async fn dial(address: &str, trust: Trust) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
    let tcp = TcpStream::connect(address).await.map_err(DialError::Tcp)?;
    tcp.set_nodelay(true).map_err(DialError::Tcp)?;
    keep_alive(&tcp).map_err(|errno| DialError::Tcp(errno.into()))?;
    let stream = match trust {
        Trust::Verified(config) => tls::connect(config, tcp).await?.1,
        Trust::DangerUnverified => tls::connect_danger_unverified(tcp, &[tls::ALPN_H2]).await?,
    };
    Ok(TokioIo::new(stream))
}

fn keep_alive(tcp: &TcpStream) -> rustix::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, idle)?;
    sockopt::set_tcp_keepintvl(tcp, interval)?;
    sockopt::set_tcp_keepcnt(tcp, count)?;
    let patience = idle + interval * count;
    sockopt::set_tcp_user_timeout(tcp, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("TCP connection failed")]
    Tcp(#[source] std::io::Error),
    #[error("TLS connection failed")]
    Tls(#[from] HandshakeError),
    #[error("connecting took longer than {CONNECT_TIMEOUT:?}")]
    Timeout,
}

/// Why there is no connection to the CA.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none.
    #[error("malformed address {address}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
    /// Connecting failed.
    #[error("cannot reach the CA at {address}")]
    Connect {
        /// The address.
        address: String,
        /// What failed.
        source: tonic::transport::Error,
    },
}

impl ConnectError {
    /// Returns what the TLS handshake ended with, if it came so far.
    pub fn handshake(&self) -> Option<&HandshakeError> {
        let mut cause: Option<&(dyn Error + 'static)> = self.source();
        while let Some(error) = cause {
            if let Some(DialError::Tls(handshake)) = error.downcast_ref() {
                return Some(handshake);
            }
            cause = error.source();
        }
        None
    }
}
