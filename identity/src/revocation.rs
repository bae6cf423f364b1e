//! Certificate revocation lists (RFC 5280 5): serial numbers that an authority has taken back before they expired.
//!
//! A list counts for the certificates that carry its issuer's name and whose issuer's key has signed it; two authorities of
//! one name do not mix. One that is out of date goes on counting: what it takes back stays taken back.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The most lists in one answer of an identity source.
pub const MAX_LISTS: usize = 64;

/// The most serial numbers in one list.
pub const MAX_REVOKED: usize = 100_000;

/// Revocation lists that were read. Cloning is cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RevocationLists(Arc<[List]>);

#[derive(PartialEq, Eq)]
struct List {
    der: Vec<u8>,
    /// The issuer's name in DER.
    issuer: Vec<u8>,
    serials: HashSet<Vec<u8>>,
}

/// A certificate and who signed it, as far as revocation goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued<'a> {
    /// The content octets of the serial number.
    pub(crate) serial: &'a [u8],
    /// The issuer's name: the content of the DER sequence.
    pub(crate) issuer: &'a [u8],
    /// The issuer's public key as DER.
    pub(crate) key: &'a [u8],
}

impl RevocationLists {
    /// Reads lists in DER. One that cannot be read fails all: a withdrawn right must not live on because of a typo.
    pub fn from_der<T: AsRef<[u8]>>(lists: &[T]) -> Result<Self, RevocationError> {
        if lists.len() > MAX_LISTS {
            return Err(RevocationError::TooMany { found: lists.len() });
        }
        let read = |(index, der): (usize, &T)| List::read(der.as_ref(), index);
        Ok(Self(lists.iter().enumerate().map(read).collect::<Result<_, _>>()?))
    }

    /// Says whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many serial numbers are on the lists.
    pub fn revoked(&self) -> usize {
        self.0.iter().map(|list| list.serials.len()).sum()
    }

    /// Says whether a certificate is on a list that its own issuer has signed.
    pub(crate) fn revoke(&self, issued: Issued<'_>) -> bool {
        let serial = trimmed(issued.serial);
        self.0.iter().any(|list| {
            content(&list.issuer) == issued.issuer
                && list.serials.contains(serial)
                && list.is_signed_by(issued.key)
        })
    }
}

impl fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationLists({} lists, {} serials)", self.0.len(), self.revoked())
    }
}

impl List {
    fn read(der: &[u8], index: usize) -> Result<Self, RevocationError> {
        let malformed = || RevocationError::Malformed { index };
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        // RFC 5280 5.2.4: a delta says nothing without its base.
        if list.extensions().iter().any(|extension| extension.critical) {
            return Err(RevocationError::Unsupported { index });
        }
        let mut serials = HashSet::new();
        for revoked in list.iter_revoked_certificates() {
            if serials.len() >= MAX_REVOKED {
                return Err(RevocationError::TooLong { index });
            }
            serials.insert(trimmed(revoked.raw_serial()).to_vec());
        }
        Ok(Self { der: der.to_vec(), issuer: list.issuer().as_raw().to_vec(), serials })
    }

    /// The signature is looked at only where the list would take something back.
    fn is_signed_by(&self, key: &[u8]) -> bool {
        let list = CertificateRevocationList::from_der(&self.der);
        let key = SubjectPublicKeyInfo::from_der(key);
        match (list, key) {
            (Ok((_, list)), Ok((_, key))) => list.verify_signature(&key).is_ok(),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

/// Serial numbers are integers: leading noughts say nothing.
fn trimmed(serial: &[u8]) -> &[u8] {
    let leading = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(leading..).unwrap_or_default()
}

/// Returns the content of a DER sequence; webpki names issuers so.
fn content(sequence: &[u8]) -> &[u8] {
    let header = match sequence.get(1) {
        Some(length) if *length < 0x80 => 2,
        Some(length) => 2 + usize::from(length & 0x7f),
        None => 0,
    };
    sequence.get(header..).unwrap_or_default()
}

/// Why revocation lists cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// There are too many.
    #[error("{found} revocation lists, more than {MAX_LISTS}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// One is no revocation list.
    #[error("revocation list {index} cannot be read")]
    Malformed {
        /// Which one, from nought.
        index: usize,
    },
    /// One has a critical extension: it is a delta, or speaks of some certificates only.
    #[error("revocation list {index} has a critical extension: deltas and partial lists are not supported")]
    Unsupported {
        /// Which one, from nought.
        index: usize,
    },
    /// One has too many entries.
    #[error("revocation list {index} has more than {MAX_REVOKED} entries")]
    TooLong {
        /// Which one, from nought.
        index: usize,
    },
}

#[cfg(test)]
mod tests;
