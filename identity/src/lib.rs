//! Who someone is and how that is proved: SPIFFE IDs, X.509-SVIDs, trust bundles, verification and TLS.
//!
//! Invariants: only [`verify()`] and handshakes it accepted yield a [`Peer`]; private keys have no `Debug`, no `Clone`
//! and are wiped; the crypto provider is chosen once per build and passed as a value.

pub mod bootstrap;
pub mod bundle;
pub mod credentials;
pub mod crypto;
pub mod durable;
pub mod jwt;
pub mod key;
pub mod manifest;
pub mod revocation;
pub mod rotation;
pub mod spiffe_id;
pub mod svid;
pub mod tls;
pub mod verify;

mod der;
mod jwk;
mod leaf;

#[cfg(test)]
mod testing;

pub use bootstrap::{JoinString, Secret};
pub use bundle::{BundleError, BundleSet, Succession, TrustBundle};
pub use credentials::{Credentials, CredentialsError};
pub use key::{KeyError, PrivateKey};
pub use revocation::{RevocationError, RevocationLists};
pub use spiffe_id::{ParseIdError, SpiffeId, TrustDomain};
pub use svid::{SvidError, X509Svid};
pub use verify::{Anchors, Flaw, Peer, Role, VerifyError, verify};
