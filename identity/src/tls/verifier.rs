//! The certificate verifiers that rustls calls: thin layers over [`crate::verify()`].
//!
//! Each refusal carries its [`VerifyError`] through rustls, so that it can be put on record; the peer sees an alert.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ClientAuth, ExpectedServer};
use crate::crypto;
use crate::verify::{Anchors, Flaw, Peer, Role, VerifyError, verify};

/// Verifies the other side of a handshake by what `policy` says about it.
#[derive(Debug)]
pub(super) struct PeerVerifier<P> {
    policy: P,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
pub(super) struct ClientPolicy {
    anchors: Arc<Anchors>,
    auth: ClientAuth,
}

#[derive(Debug)]
pub(super) enum ServerPolicy {
    Verified { anchors: Arc<Anchors>, expected: ExpectedServer },
    DangerUnverified,
}

impl PeerVerifier<ClientPolicy> {
    pub(super) fn of_clients(anchors: Arc<Anchors>, auth: ClientAuth) -> Self {
        Self::new(ClientPolicy { anchors, auth })
    }
}

impl PeerVerifier<ServerPolicy> {
    pub(super) fn of_servers(policy: ServerPolicy) -> Self {
        Self::new(policy)
    }
}

impl<P> PeerVerifier<P> {
    fn new(policy: P) -> Self {
        Self { policy, algorithms: crypto::provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for PeerVerifier<ClientPolicy> {
    fn client_auth_mandatory(&self) -> bool {
        match self.policy.auth {
            ClientAuth::Required => true,
            ClientAuth::Optional => false,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints would tell strangers whom this server trusts.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify(end_entity, intermediates, &self.policy.anchors, Role::Client, system_time(now))
            .map_err(rejection)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier<ServerPolicy> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.policy {
            ServerPolicy::Verified { anchors, expected } => {
                let peer = verify(end_entity, intermediates, anchors, Role::Server, system_time(now));
                peer.and_then(|peer| expected.check(&peer)).map_err(rejection)?;
            }
            ServerPolicy::DangerUnverified => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ExpectedServer {
    fn check(&self, peer: &Peer) -> Result<(), VerifyError> {
        match self {
            Self::AnyOf(ids) if ids.contains(peer.id()) => Ok(()),
            Self::AnyOf(_) => Err(Flaw::UnexpectedServer.claimed_by(peer.id())),
            Self::DangerAnyMember => Ok(()),
        }
    }
}

fn rejection(error: VerifyError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs())
}
