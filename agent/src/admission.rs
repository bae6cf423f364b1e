//! How a node that is not attested is let in: where token and trust come from, and in which order they are used.
//!
//! The CA is known before the token is sent, and the key that the token is spent on is on disk before that.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use identity::bootstrap::{JoinString, JoinStringError, MAX_JOIN_STRING_BYTES};
use identity::crypto::sha256;
use identity::{Anchors, BundleError, BundleSet, Secret, TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;

use crate::config::{Bootstrap, CaAddress, Config, SecretSource};
use crate::upstream::{CallError, ConnectError, Trust, Upstream};

/// The largest trust bundle file.
pub(crate) const MAX_BUNDLE_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A token, and what the CA is recognised by.
pub(crate) struct Admission {
    /// Where the CA is.
    pub ca: String,
    /// What lets the node in, once.
    pub token: Secret,
    trust: InitialTrust,
}

/// What the CA is recognised by before the node has its bundle.
enum InitialTrust {
    /// The SHA-256 of its root certificate.
    RootHash([u8; 32]),
    /// A bundle that was brought here by other means.
    Bundle(TrustBundle),
}

impl Admission {
    /// Reads token and trust from where `config` says. Standard input is read to its end.
    pub(crate) fn read(config: &Config) -> Result<Self, AdmissionError> {
        match &config.bootstrap {
            Bootstrap::Nothing => Err(AdmissionError::Nothing),
            Bootstrap::JoinString(source) => {
                let join = JoinString::parse(read_secret(source, config)?.expose())?;
                let ca = match &config.ca {
                    CaAddress::At(address) => address.clone(),
                    CaAddress::FromJoinString => join.ca().to_owned(),
                };
                let token = Secret::new(join.token().expose());
                Ok(Self { ca, token, trust: InitialTrust::RootHash(*join.root_hash()) })
            }
            Bootstrap::Token { token, bundle } => {
                let CaAddress::At(ca) = &config.ca else { return Err(AdmissionError::NoAddress) };
                let token = read_secret(token, config)?;
                let token = Secret::new(token.expose().trim_ascii());
                if token.expose().is_empty() {
                    return Err(AdmissionError::EmptyToken);
                }
                let bundle = read_bundle(bundle, &config.trust_domain)?;
                Ok(Self { ca: ca.clone(), token, trust: InitialTrust::Bundle(bundle) })
            }
        }
    }

    /// Returns what remembers the token without telling it.
    pub(crate) fn token_hash(&self) -> [u8; 32] {
        sha256(self.token.expose().as_bytes())
    }

    /// Connects to the CA, having recognised it.
    pub(crate) async fn connect(&self, trust_domain: &TrustDomain) -> Result<Upstream, AdmitError> {
        let bundle = match &self.trust {
            InitialTrust::Bundle(bundle) => bundle.clone(),
            InitialTrust::RootHash(hash) => pinned_bundle(&self.ca, trust_domain, hash).await?,
        };
        let bundles: BundleSet = [bundle].into_iter().collect();
        let trust = Trust::server_only(Arc::new(Anchors::new(&bundles)), trust_domain)?;
        Ok(Upstream::connect(&self.ca, trust).await?)
    }
}

/// Fetches the bundle from a server that is not recognised yet, and keeps of it what has the pinned hash.
async fn pinned_bundle(
    ca: &str,
    trust_domain: &TrustDomain,
    hash: &[u8; 32],
) -> Result<TrustBundle, AdmitError> {
    let upstream = Upstream::connect(ca, Trust::DangerUnverified).await?;
    let bundle = upstream.bundle(trust_domain).await?.bundle;
    let pinned: Vec<CertificateDer<'static>> =
        bundle.x509_authorities().iter().filter(|root| sha256(root) == *hash).cloned().collect();
    if pinned.is_empty() {
        return Err(AdmitError::RootHash { ca: ca.to_owned() });
    }
    Ok(TrustBundle::new(trust_domain.clone(), pinned)?)
}

fn read_secret(source: &SecretSource, config: &Config) -> Result<Secret, AdmissionError> {
    match source {
        SecretSource::File(path) => read_secret_file(path),
        SecretSource::Credential(name) => {
            let directory = config.credentials_directory.as_ref();
            read_secret_file(
                &directory.ok_or_else(|| AdmissionError::NoCredentials { name: name.clone() })?.join(name),
            )
        }
        SecretSource::StandardInput => {
            take_secret(io::stdin().lock()).map_err(|source| AdmissionError::StandardInput { source })
        }
    }
}

fn read_secret_file(path: &Path) -> Result<Secret, AdmissionError> {
    let read = fs::File::open(path).and_then(take_secret);
    read.map_err(|source| AdmissionError::Read { path: path.to_owned(), source })
}

fn take_secret(from: impl Read) -> io::Result<Secret> {
    let mut text = String::new();
    from.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text))
}

fn read_bundle(path: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, AdmissionError> {
    let failed = |source| AdmissionError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_BUNDLE_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    let bundle = if text.trim_start().starts_with('{') {
        TrustBundle::from_jwks(trust_domain.clone(), text.as_bytes())
    } else {
        TrustBundle::from_pem(trust_domain.clone(), &text)
    };
    bundle.map_err(|source| AdmissionError::Bundle { path: path.to_owned(), source })
}

/// A join string, the white space around it, and one byte more, so that an over-long one is noticed.
const MAX_SECRET_BYTES: u64 = MAX_JOIN_STRING_BYTES as u64 + 64;

/// Why there is nothing to be let in with.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The configuration names no way.
    #[error("the configuration has no bootstrap section")]
    Nothing,
    /// The address of the CA is missing.
    #[error("the configuration does not say where the CA is")]
    NoAddress,
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard input cannot be read.
    #[error("cannot read standard input")]
    StandardInput {
        /// What the system said.
        source: io::Error,
    },
    /// There is no service manager that hands out credentials.
    #[error("no credential {name}: CREDENTIALS_DIRECTORY is not set")]
    NoCredentials {
        /// The name of the credential.
        name: String,
    },
    /// The join string is none.
    #[error("malformed join string")]
    JoinString(#[from] JoinStringError),
    /// The token is empty.
    #[error("the join token is empty")]
    EmptyToken,
    /// The trust bundle cannot be read.
    #[error("malformed trust bundle {}", path.display())]
    Bundle {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
}

/// Why the node was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The CA cannot be reached, or is not the one meant.
    #[error("cannot connect to the CA")]
    Connect(#[from] ConnectError),
    /// A call failed.
    #[error("the CA did not let the node in")]
    Call(#[from] CallError),
    /// No root of the CA has the pinned hash.
    #[error(
        "no root of the CA at {ca} has the hash in the join string: it is another CA, or the string is old"
    )]
    RootHash {
        /// Where it is.
        ca: String,
    },
    /// The root cannot be used.
    #[error("the pinned root cannot be used")]
    Bundle(#[from] BundleError),
    /// TLS cannot be configured.
    #[error("cannot configure TLS")]
    Tls(#[from] identity::tls::TlsError),
}

impl AdmitError {
    /// Tells whether trying again with the same token is useless.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Call(error) => error.is_refusal(),
            Self::RootHash { .. } | Self::Bundle(_) | Self::Tls(_) => true,
            Self::Connect(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
