//! Promises of private keys.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::*;

#[test]
fn each_key_is_new() {
    assert_ne!(PrivateKey::generate().unwrap().pkcs8_der(), PrivateKey::generate().unwrap().pkcs8_der());
}

#[test]
fn a_key_reads_back_the_same_from_der_and_pem() {
    let key = PrivateKey::generate().unwrap();

    let from_der = PrivateKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
    let from_pem = PrivateKey::from_pem(&key.to_pem()).unwrap();

    assert!(key.to_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    for read in [from_der, from_pem] {
        assert_eq!(read.pkcs8_der(), key.pkcs8_der());
        assert_eq!(read.public_key_spki(), key.public_key_spki());
    }
}

#[test]
fn keys_of_other_kinds_are_taken() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let other = rcgen::KeyPair::generate_for(algorithm).unwrap();

        let key = PrivateKey::from_pkcs8_der(other.serialized_der()).unwrap();

        assert_eq!(key.public_key_spki(), rcgen::PublicKeyData::subject_public_key_info(&other));
    }
}

#[test]
fn a_key_is_found_beside_certificates() {
    let key = PrivateKey::generate().unwrap();
    let text = format!("{}{}", crate::testing::Authority::root("root").pem(), key.to_pem().as_str());

    assert_eq!(PrivateKey::from_pem(&text).unwrap().pkcs8_der(), key.pkcs8_der());
}

#[test]
fn what_is_no_single_pkcs8_key_is_refused() {
    let key = PrivateKey::generate().unwrap().to_pem();
    let twice = format!("{}{}", key.as_str(), key.as_str());
    let sec1 = key.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let broken = key.replace("-----END", "----END");

    assert!(matches!(refusal(""), KeyError::NoKey));
    assert!(matches!(refusal("hello"), KeyError::NoKey));
    assert!(matches!(refusal(&twice), KeyError::SeveralKeys));
    assert!(matches!(refusal(&sec1), KeyError::NotPkcs8));
    assert!(matches!(refusal(&encrypted), KeyError::NoKey));
    assert!(matches!(refusal(&broken), KeyError::Pem { .. }));
    let garbage = refusal("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(matches!(garbage, KeyError::Unusable { .. }));
}

#[test]
fn a_key_has_a_greatest_length() {
    let refused = PrivateKey::from_pkcs8_der(&vec![0; MAX_KEY_BYTES + 1]).err().unwrap();

    assert!(matches!(refused, KeyError::TooLarge { bytes } if bytes == MAX_KEY_BYTES + 1));
    assert!(matches!(PrivateKey::from_pkcs8_der(&[0; 8]).err().unwrap(), KeyError::Unusable { .. }));
}

#[test]
fn no_message_repeats_the_key() {
    let text = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";

    let error = refusal(text);

    assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
}

#[test]
fn a_request_names_the_id_and_proves_possession() {
    let key = PrivateKey::generate().unwrap();
    let id = SpiffeId::parse("spiffe://prod.test/web").unwrap();

    let request = key.csr(Some(&id)).unwrap();

    let (rest, parsed) = X509CertificationRequest::from_der(&request).unwrap();
    assert!(rest.is_empty());
    parsed.verify_signature().unwrap();
    let info = &parsed.certification_request_info;
    assert_eq!(info.subject_pki.raw, key.public_key_spki());
    assert_eq!(info.subject.iter().count(), 0);
    assert_eq!(names(&parsed), ["spiffe://prod.test/web"]);
}

#[test]
fn a_request_without_id_has_no_name() {
    let request = PrivateKey::generate().unwrap().csr(None).unwrap();

    let (_, parsed) = X509CertificationRequest::from_der(&request).unwrap();

    assert_eq!(names(&parsed), Vec::<String>::new());
}

fn names(request: &X509CertificationRequest<'_>) -> Vec<String> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let names = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names
        .flatten()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

fn refusal(text: &str) -> KeyError {
    PrivateKey::from_pem(text).err().unwrap()
}
