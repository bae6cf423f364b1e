//! Handshakes over any stream, and what their failures mean.
//!
//! In TLS 1.3 a client is done before the server has looked at its certificate: a refusal then reaches the client as an error of
//! its first read, which [`HandshakeError::from`] turns into an alert as well.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{TlsError, danger_unverified_config, peer};
use crate::verify::{Flaw, Peer, VerifyError};

/// Does the server's part of a handshake. The peer is missing only where the configuration lets clients in unnamed.
///
/// Sets no time limit: whoever accepts strangers puts one around this.
pub async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
) -> Result<(Option<Peer>, server::TlsStream<S>), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let peer = peer(stream.get_ref().1)?;
    Ok((peer, stream))
}

/// Does the client's part of a handshake.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    stream: S,
) -> Result<(Peer, client::TlsStream<S>), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsConnector::from(config).connect(no_server_name(), stream).await?;
    let peer = peer(stream.get_ref().1)?.ok_or(VerifyError::from(Flaw::NoCertificate))?;
    Ok((peer, stream))
}

/// Connects to a server without asking who it is, which yields no [`Peer`].
///
/// This is only for fetching a trust bundle that is compared with a pinned hash before anything is believed or sent.
pub async fn connect_danger_unverified<S>(
    stream: S,
    alpn: &[&[u8]],
) -> Result<client::TlsStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = danger_unverified_config(alpn)?;
    Ok(TlsConnector::from(config).connect(no_server_name(), stream).await?)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side's certificates were refused here.
    #[error("certificate of the peer was refused")]
    Rejected(#[source] VerifyError),
    /// The other side refused; this is all it says.
    #[error("peer ended the handshake with the alert {}", alert_name(*.0))]
    Alert(AlertDescription),
    /// The client sent no certificate and has to.
    #[error("peer sent no certificate")]
    NoCertificate,
    /// What came is not TLS.
    #[error("peer does not speak TLS")]
    NotTls,
    /// What came is TLS, but the sides have nothing in common or the other side broke its rules.
    #[error("TLS handshake failed")]
    Protocol(#[source] Error),
    /// There is no TLS configuration.
    #[error("cannot configure TLS")]
    Configure(#[from] TlsError),
    /// The connection failed.
    #[error("connection failed during the handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// Returns the failure's name for audit records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(error) => error.reason(),
            Self::Alert(_) => "refused_by_peer",
            Self::NoCertificate => Flaw::NoCertificate.reason(),
            Self::NotTls => "not_tls",
            Self::Protocol(_) => "tls_protocol",
            Self::Configure(_) => "tls_configuration",
            Self::Io(_) => "connection_failed",
        }
    }
}

impl From<VerifyError> for HandshakeError {
    fn from(error: VerifyError) -> Self {
        Self::Rejected(error)
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => Self::from(tls.clone()),
            None => Self::Io(error),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<VerifyError>() {
                    Some(rejection) => Self::Rejected(rejection.clone()),
                    None => Self::Protocol(Error::InvalidCertificate(CertificateError::Other(other))),
                }
            }
            Error::AlertReceived(alert) => Self::Alert(alert),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            error => Self::Protocol(error),
        }
    }
}

fn alert_name(alert: AlertDescription) -> String {
    alert.as_str().map_or_else(|| u8::from(alert).to_string(), str::to_owned)
}

/// rustls wants a name. It is neither sent nor compared.
pub(super) fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}
