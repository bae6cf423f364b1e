//! What an X509-SVID leaf must look like before anybody asks who signed it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::Oid;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::crypto;
use crate::der::{self, Reader};
use crate::spiffe_id::SpiffeId;
use crate::verify::{Flaw, VerifyError};

/// The longest certificate that is looked at, in bytes.
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// What the rules for leaves let through.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) serial: String,
    pub(crate) spki: Vec<u8>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    /// Parses `der` and applies every rule that needs no trust anchor.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, VerifyError> {
        let certificate = certificate(der)?;
        let id = spiffe_id(&certificate)?;
        check(&certificate).map_err(|flaw| flaw.claimed_by(&id))?;
        Ok(Self {
            serial: serial(&certificate),
            spki: certificate.public_key().raw.to_vec(),
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
            id,
        })
    }
}

/// Parses one certificate that has nothing behind it.
pub(crate) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, Flaw> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(Flaw::TooLarge { bytes: der.len() });
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Flaw::Malformed)?;
    if !rest.is_empty() {
        return Err(Flaw::TrailingBytes);
    }
    Ok(certificate)
}

/// What the key usage extension of a certificate lets its key do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyUsage {
    pub(crate) critical: bool,
    pub(crate) digital_signature: bool,
    pub(crate) key_cert_sign: bool,
    pub(crate) crl_sign: bool,
}

impl KeyUsage {
    /// Reads the extension; `None` where the certificate has none.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Option<Self>, Flaw> {
        let Some((value, critical)) = extension(certificate, &KEY_USAGE, "key usage")? else {
            return Ok(None);
        };
        let malformed = Flaw::MalformedExtension { name: "key usage" };
        let (unused, bits) = match der::only(value, der::BIT_STRING).and_then(<[u8]>::split_first) {
            Some((unused @ 0..=7, bits @ ([_] | [_, _]))) => (*unused, bits),
            _ => return Err(malformed),
        };
        let last = bits.last().copied().unwrap_or_default();
        if u32::from(unused) > last.trailing_zeros() {
            return Err(malformed);
        }
        let first = bits.first().copied().unwrap_or_default();
        Ok(Some(Self {
            critical,
            digital_signature: first & 0x80 != 0,
            key_cert_sign: first & 0x04 != 0,
            crl_sign: first & 0x02 != 0,
        }))
    }
}

/// Reads whether the basic constraints make the certificate a CA; `None` where it has none.
pub(crate) fn is_ca(certificate: &X509Certificate<'_>) -> Result<Option<bool>, Flaw> {
    let Some((value, _)) = extension(certificate, &BASIC_CONSTRAINTS, "basic constraints")? else {
        return Ok(None);
    };
    let read = || {
        let mut fields = Reader::new(der::only(value, der::SEQUENCE)?);
        let ca = match fields.optional(der::BOOLEAN)? {
            Some([0xff]) => true,
            None => false,
            Some([0x00]) => false,
            Some(_) => return None,
        };
        fields.optional(der::INTEGER)?;
        fields.is_at_end().then_some(ca)
    };
    read().map(Some).ok_or(Flaw::MalformedExtension { name: "basic constraints" })
}

/// Converts a certificate's time. What lies before 1970 counts as 1970.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

/// Writes the serial number in hexadecimal, without the zero byte that DER puts before a number whose first bit is set.
fn serial(certificate: &X509Certificate<'_>) -> String {
    match certificate.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => crypto::hex(rest),
        bytes => crypto::hex(bytes),
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Flaw> {
    let uri = sole_uri(certificate)?;
    let text = std::str::from_utf8(uri).ok().filter(|text| text.is_ascii()).ok_or(Flaw::UriNotAscii)?;
    let id = SpiffeId::parse(text).map_err(|source| Flaw::SpiffeId { source })?;
    if id.path().is_empty() {
        return Err(Flaw::NoPath);
    }
    Ok(id)
}

/// Counts the URI names before looking into any of them, so that an unreadable one counts too.
fn sole_uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a [u8], Flaw> {
    let name = "subject alternative name";
    let Some((value, _)) = extension(certificate, &SUBJECT_ALT_NAME, name)? else {
        return Err(Flaw::UriNames { found: 0 });
    };
    let malformed = Flaw::MalformedExtension { name };
    let mut names = Reader::new(der::only(value, der::SEQUENCE).ok_or(malformed.clone())?);
    let mut uris = Vec::new();
    while !names.is_at_end() {
        let (tag, content) = names.value().ok_or(malformed.clone())?;
        if tag == URI_NAME {
            uris.push(content);
        }
    }
    match uris.as_slice() {
        [uri] => Ok(uri),
        _ => Err(Flaw::UriNames { found: uris.len() }),
    }
}

fn check(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    // X509-SVID 5.2: a signing certificate is not a leaf.
    match is_ca(certificate)? {
        None => return Err(Flaw::NoBasicConstraints),
        Some(true) => return Err(Flaw::LeafIsCa),
        Some(false) => {}
    }
    check_key_usage(certificate)?;
    check_extended_key_usage(certificate)
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    // X509-SVID 4.3: key usage must exist, be critical, and never allow signing certificates or CRLs.
    let usage = KeyUsage::of(certificate)?.ok_or(Flaw::NoKeyUsage)?;
    if usage.key_cert_sign {
        return Err(Flaw::KeyCertSign);
    }
    if usage.crl_sign {
        return Err(Flaw::CrlSign);
    }
    if !usage.digital_signature {
        return Err(Flaw::NoDigitalSignature);
    }
    if !usage.critical {
        return Err(Flaw::KeyUsageNotCritical);
    }
    Ok(())
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    // X509-SVID 4.4: where the extension is present, it names both roles.
    let name = "extended key usage";
    let Some((value, _)) = extension(certificate, &EXTENDED_KEY_USAGE, name)? else { return Ok(()) };
    let malformed = Flaw::MalformedExtension { name };
    let mut purposes = Reader::new(der::only(value, der::SEQUENCE).ok_or(malformed.clone())?);
    let (mut server, mut client) = (false, false);
    while !purposes.is_at_end() {
        let purpose = purposes.expect(der::OBJECT_ID).ok_or(malformed.clone())?;
        server |= purpose == SERVER_AUTH;
        client |= purpose == CLIENT_AUTH;
    }
    if server && client { Ok(()) } else { Err(Flaw::ExtendedKeyUsage) }
}

/// Returns the value of an extension and whether it is critical; an extension that occurs twice is refused.
fn extension<'a>(
    certificate: &X509Certificate<'a>,
    oid: &Oid<'_>,
    name: &'static str,
) -> Result<Option<(&'a [u8], bool)>, Flaw> {
    let found = certificate.get_extension_unique(oid).map_err(|_| Flaw::MalformedExtension { name })?;
    Ok(found.map(|extension| (extension.value, extension.critical)))
}

const SUBJECT_ALT_NAME: Oid<'static> = oid!(2.5.29.17);
const BASIC_CONSTRAINTS: Oid<'static> = oid!(2.5.29.19);
const KEY_USAGE: Oid<'static> = oid!(2.5.29.15);
const EXTENDED_KEY_USAGE: Oid<'static> = oid!(2.5.29.37);

/// The content of the object identifier 1.3.6.1.5.5.7.3.1.
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// The content of the object identifier 1.3.6.1.5.5.7.3.2.
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// `[6] IA5String` of GeneralName.
const URI_NAME: u8 = 0x86;
