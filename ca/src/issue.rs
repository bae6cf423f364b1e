//! Certificate requests in, certificates out.
//!
//! Of a request nothing but the public key is used, and only after its signature proved that the
//! asker holds the private half: names, extensions and lifetimes are the CA's to decide.

use std::time::{Duration, SystemTime};

use identity::{SpiffeId, crypto};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey,
};

use crate::{
    authority::Authority,
    model::{MAX_DNS_NAMES, check_dns_name},
};

/// A public key that somebody proved to hold.
pub struct RequestedKey {
    spki: SubjectPublicKeyInfo,
    hash: [u8; 32],
}

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// More bytes than any honest request has.
    #[error("the certificate request has {found} bytes, at most {MAX_CSR_BYTES} are read")]
    TooLong {
        /// How many it has.
        found: usize,
    },
    /// Not a PKCS#10 request, or something follows it.
    #[error("the certificate request is not a DER PKCS#10 request")]
    Malformed,
    /// The signature is not by the key in the request.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// A kind of key that no certificate is issued for.
    #[error("keys must be P-256, P-384, Ed25519 or RSA of 2048 to {MAX_RSA_BITS} bits")]
    Key,
    /// The names in an operator's request.
    #[error("the certificate request must name one SPIFFE ID, and besides it only DNS names")]
    Names,
}

impl RequestedKey {
    /// Takes the key out of a DER PKCS#10 request.
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong { found: der.len() });
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &csr.certification_request_info.subject_pki;
        // An RSA key is measured before anything is computed with it.
        if let Ok(PublicKey::RSA(rsa)) = info.parsed()
            && !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size())
        {
            return Err(CsrError::Key);
        }
        let spki = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| CsrError::Key)?;
        if !ACCEPTED.iter().any(|accepted| *accepted == rcgen::PublicKeyData::algorithm(&spki)) {
            return Err(CsrError::Key);
        }
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Self { spki, hash: crypto::sha256(info.raw) })
    }

    /// SHA-256 of the public key.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// Reads the names in a request: one SPIFFE ID, and DNS names. Only what an operator sends is asked for them.
pub fn requested_names(der: &[u8]) -> Result<(SpiffeId, Vec<String>), CsrError> {
    let (_, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    let (mut ids, mut dns_names) = (Vec::new(), Vec::new());
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) => ids.push(SpiffeId::parse(uri).map_err(|_| CsrError::Names)?),
                GeneralName::DNSName(name) => {
                    check_dns_name(name).map_err(|_| CsrError::Names)?;
                    dns_names.push((*name).to_owned());
                }
                _ => return Err(CsrError::Names),
            }
        }
    }
    match (ids.pop(), ids.is_empty(), dns_names.len() <= MAX_DNS_NAMES) {
        (Some(id), true, true) => Ok((id, dns_names)),
        _ => Err(CsrError::Names),
    }
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whose it is.
    pub id: SpiffeId,
    /// Further names.
    pub dns_names: Vec<String>,
    /// How long it should last.
    pub ttl: Duration,
}

/// A certificate just made.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Whose it is.
    pub id: SpiffeId,
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// When it ends, in Unix seconds.
    pub expires_at: i64,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The clock is before the authority's certificate.
    #[error("the clock is before the signing authority's certificate begins")]
    ClockBehind,
    /// The authority's certificate ends before the new one would begin.
    #[error("the signing authority has expired")]
    AuthorityExpired,
    /// No randomness for a serial number.
    #[error("cannot make a serial number")]
    Random(#[from] crypto::CryptoError),
    /// The certificate could not be built or signed.
    #[error("cannot build the certificate")]
    Build(#[from] rcgen::Error),
}

impl Authority {
    /// Makes a certificate for `key`. It begins a little in the past and never outlives the authority.
    pub fn issue(
        &self,
        key: &RequestedKey,
        subject: &Subject,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        if now < self.not_before() {
            return Err(IssueError::ClockBehind);
        }
        let not_after = (now + subject.ttl).min(self.not_after());
        if not_after <= now {
            return Err(IssueError::AuthorityExpired);
        }
        let serial = random_serial()?;
        let mut params = leaf(subject)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = whole_seconds((now - BACKDATE).max(self.not_before()));
        params.not_after = whole_seconds(not_after);
        let certificate = params.signed_by(&key.spki, self.issuer())?;
        Ok(Issued {
            id: subject.id.clone(),
            chain: vec![certificate.der().to_vec()],
            serial: crypto::hex(&serial),
            expires_at: params.not_after.unix_timestamp(),
        })
    }
}

/// X509-SVID 4 and 5: one URI name, no CA, digitalSignature critical, both extended usages.
fn leaf(subject: &Subject) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANISATION);
    if let Some(name) = subject.dns_names.first().filter(|name| name.len() <= MAX_COMMON_NAME_BYTES) {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.subject_alt_names.push(SanType::URI(subject.id.as_str().try_into()?));
    for name in &subject.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits: positive, never zero, and of one length, so that its hexadecimal form is too.
pub(crate) fn random_serial() -> Result<[u8; 16], crypto::CryptoError> {
    let mut bytes = crypto::random::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(bytes)
}

/// Certificates know no fractions of a second.
pub(crate) fn whole_seconds(time: SystemTime) -> time::OffsetDateTime {
    let time = time::OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

static ACCEPTED: [&rcgen::SignatureAlgorithm; 4] = [
    &rcgen::PKCS_ECDSA_P256_SHA256,
    &rcgen::PKCS_ECDSA_P384_SHA384,
    &rcgen::PKCS_ED25519,
    &rcgen::PKCS_RSA_SHA256,
];

/// A clock that lags this much still finds a new certificate valid.
pub const BACKDATE: Duration = Duration::from_secs(10);
/// An RSA-4096 request has under 2 KiB; names in it do not interest us.
pub const MAX_CSR_BYTES: usize = 16 * 1024;
/// Shorter RSA keys can be broken.
pub const MIN_RSA_BITS: usize = 2048;
/// Longer RSA keys cost whoever verifies too much.
pub const MAX_RSA_BITS: usize = 8192;
/// X.520 allows no longer common name.
const MAX_COMMON_NAME_BYTES: usize = 64;
/// The subject of every certificate of ours.
pub(crate) const ORGANISATION: &str = "Vouchsafe";

#[cfg(test)]
mod tests;
