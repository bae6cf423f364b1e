//! TLS between SPIFFE identities: configurations made from one snapshot of credentials, and handshakes that end in a [`Peer`].
//!
//! TLS 1.3 only; no resumption, no tickets and no early data, for a resumed session would skip the verifier; no server name is
//! sent and none is looked at. A configuration never changes: after a rotation a new one is made for new handshakes, and
//! connections made with an old one live on.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ServerConfig};

use crate::credentials::Credentials;
use crate::crypto;
use crate::leaf::Leaf;
use crate::spiffe_id::SpiffeId;
use crate::verify::{Anchors, Peer, VerifyError};

mod exchange;
mod handshake;
mod verifier;

pub use exchange::{Acceptor, Connector, Established, Handshake, Keys, MAX_HANDSHAKE_BYTES, Progress};
pub use handshake::{HandshakeError, accept, connect, connect_danger_unverified};

use verifier::{PeerVerifier, ServerPolicy};

/// The ALPN name of HTTP/2, which gRPC needs.
pub const ALPN_H2: &[u8] = b"h2";

/// The ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Whether a client has to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate is refused.
    Required,
    /// A client without a certificate is let in unnamed: agents have none before attestation. A bad certificate is refused.
    Optional,
}

/// Which identities a server may prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedServer {
    /// One of these. With none in the list every server is refused.
    AnyOf(Vec<SpiffeId>),
    /// Anybody a bundle vouches for: whoever calls has to look at the peer.
    DangerAnyMember,
}

/// Makes the configuration of a server that proves `credentials`. `alpn` lists protocols by preference; empty means none.
pub fn server_config(
    credentials: &Credentials,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    build_server(credentials, client_auth, alpn).map(Arc::new)
}

fn build_server(
    credentials: &Credentials,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let verifier = PeerVerifier::of_clients(credentials.anchors().clone(), client_auth);
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError { source })?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certified_key(credentials)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// Makes the configuration of a client that proves `credentials` to a server that has to be `expected`.
pub fn client_config(
    credentials: &Credentials,
    expected: ExpectedServer,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    build_client(credentials, expected, alpn).map(Arc::new)
}

fn build_client(
    credentials: &Credentials,
    expected: ExpectedServer,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let policy = ServerPolicy::Verified { anchors: credentials.anchors().clone(), expected };
    let config = client_builder(policy)?.with_client_cert_resolver(Arc::new(certified_key(credentials)));
    Ok(finish_client(config, alpn))
}

/// Makes the configuration of a client that has no SVID: an agent before attestation. The server is verified as ever.
pub fn client_config_without_svid(
    anchors: Arc<Anchors>,
    expected: ExpectedServer,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = client_builder(ServerPolicy::Verified { anchors, expected })?.with_no_client_auth();
    Ok(Arc::new(finish_client(config, alpn)))
}

/// Returns the verified peer of a connection whose handshake was done with a configuration of this module; `None` where the
/// client proved nothing and did not have to. Private, for on any other connection it would turn a claim into a proof.
fn peer(connection: &CommonState) -> Result<Option<Peer>, VerifyError> {
    match connection.peer_certificates() {
        None | Some([]) => Ok(None),
        Some([leaf, ..]) => Ok(Some(Peer::new(Leaf::parse(leaf)?, leaf))),
    }
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[error("crypto provider does not offer TLS 1.3")]
pub struct TlsError {
    source: rustls::Error,
}

fn danger_unverified_config(alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let config = client_builder(ServerPolicy::DangerUnverified)?.with_no_client_auth();
    Ok(Arc::new(finish_client(config, alpn)))
}

fn client_builder(
    policy: ServerPolicy,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::of_servers(policy)));
    Ok(builder)
}

fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // A server name is not an identity, and in the clear it tells a listener who is called.
    config.enable_sni = false;
    config.alpn_protocols = owned(alpn);
    config
}

fn certified_key(credentials: &Credentials) -> SingleCertAndKey {
    let svid = credentials.svid();
    SingleCertAndKey::from(CertifiedKey::new(svid.chain().to_vec(), svid.key().signing_key()))
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

#[cfg(test)]
mod tests;
