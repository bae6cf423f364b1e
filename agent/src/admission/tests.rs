use std::io::Write;

use super::*;
use crate::fixtures::{Authority, config, domain};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn join(text: &str) -> Result<Admission, AdmissionError> {
    let file = file(text);
    let source = SecretSource::File(file.path().to_owned());
    Admission::read(&config(Path::new("/nowhere"), Bootstrap::JoinString(source)))
}

fn token(token: &str, bundle: &str) -> Result<Admission, AdmissionError> {
    let (token, bundle) = (file(token), file(bundle));
    let bootstrap = Bootstrap::Token {
        token: SecretSource::File(token.path().to_owned()),
        bundle: bundle.path().to_owned(),
    };
    let config = Config { ca: CaAddress::At("ca:1".to_owned()), ..config(Path::new("/nowhere"), bootstrap) };
    Admission::read(&config)
}

fn join_string() -> String {
    format!("vs1:ca.test:8081:secret:{}", "0f".repeat(32))
}

#[test]
fn a_join_string_names_ca_token_and_root() {
    let admission = join(&format!("\n{}\n", join_string())).unwrap();

    assert_eq!((admission.ca.as_str(), admission.token.expose()), ("ca.test:8081", "secret"));
    assert!(matches!(admission.trust, InitialTrust::RootHash(hash) if hash == [0x0f; 32]));
    assert_eq!(admission.token_hash(), sha256(b"secret"));
}

#[test]
fn the_address_of_the_configuration_goes_before_that_of_the_join_string() {
    let file = file(&join_string());
    let bootstrap = Bootstrap::JoinString(SecretSource::File(file.path().to_owned()));
    let config =
        Config { ca: CaAddress::At("other:1".to_owned()), ..config(Path::new("/nowhere"), bootstrap) };

    assert_eq!(Admission::read(&config).unwrap().ca, "other:1");
}

#[test]
fn a_credential_is_read_from_the_directory_of_the_service_manager() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("join"), join_string()).unwrap();
    let source = SecretSource::Credential("join".to_owned());
    let mut config = config(Path::new("/nowhere"), Bootstrap::JoinString(source));

    assert!(matches!(Admission::read(&config), Err(AdmissionError::NoCredentials { .. })));
    config.credentials_directory = Some(directory.path().to_owned());

    assert_eq!(Admission::read(&config).unwrap().token.expose(), "secret");
}

#[test]
fn a_token_comes_with_a_bundle_in_either_format() {
    let bundle = Authority::new("root").bundle(5);

    let pem = token("  secret\n", &bundle.to_pem()).unwrap();
    let jwks = token("secret", &bundle.to_jwks()).unwrap();

    assert_eq!((pem.token.expose(), pem.ca.as_str()), ("secret", "ca:1"));
    for admission in [pem, jwks] {
        assert!(
            matches!(admission.trust, InitialTrust::Bundle(read) if read.x509_authorities() == bundle.x509_authorities())
        );
    }
    assert_eq!(bundle.trust_domain(), &domain());
}

#[test]
fn flawed_secrets_are_refused() {
    assert!(matches!(join(""), Err(AdmissionError::JoinString(_))));
    assert!(matches!(join("vs1:ca.test:8081:secret"), Err(AdmissionError::JoinString(_))));
    assert!(matches!(join(&"x".repeat(100_000)), Err(AdmissionError::JoinString(JoinStringError::TooLong))));
    let bundle = Authority::new("root").bundle(5).to_pem();
    assert!(matches!(token(" \n", &bundle), Err(AdmissionError::EmptyToken)));
    assert!(matches!(token("secret", ""), Err(AdmissionError::Bundle { .. })));
    assert!(matches!(token("secret", "{}"), Err(AdmissionError::Bundle { .. })));
    let nothing = Admission::read(&config(Path::new("/nowhere"), Bootstrap::Nothing));
    assert!(matches!(nothing, Err(AdmissionError::Nothing)));
    let absent = Bootstrap::JoinString(SecretSource::File("/nowhere/join".into()));
    assert!(matches!(Admission::read(&config(Path::new("/"), absent)), Err(AdmissionError::Read { .. })));
}

#[test]
fn no_error_tells_the_token() {
    let Err(error) = join("vs1:ca.test:8081:topsecret:00") else { panic!("the flaw was accepted") };

    let told = format!("{error:?} {}", crate::health::chain(&error));

    assert!(!told.contains("topsecret"), "{told}");
}
