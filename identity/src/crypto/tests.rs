//! Promises of the crypto provider.

use proptest::prelude::*;

use super::*;

#[test]
fn sha256_is_that_of_the_standard() {
    // FIPS 180-4 examples.
    assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(hex(&sha256(b"")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn random_bytes_differ() {
    assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
}

#[test]
fn random_fractions_lie_from_zero_to_below_one_and_spread() {
    let fractions: Vec<f64> = (0..1000).map(|_| random_fraction().unwrap()).collect();

    assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
    assert!(
        fractions.iter().any(|fraction| *fraction < 0.1) && fractions.iter().any(|fraction| *fraction > 0.9)
    );
}

#[test]
fn the_provider_speaks_tls_13_only() {
    assert!(provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}

#[test]
fn a_second_installation_of_the_default_changes_nothing() {
    install_default();
    install_default();

    assert!(CryptoProvider::get_default().is_some());
}

#[test]
fn hexadecimal_is_read_only_in_lower_case_and_whole() {
    assert_eq!(from_hex::<2>("00ff"), Some([0, 255]));
    for text in ["00FF", "00f", "00ff0", "", "0x00", "00f ", "+1+1", "00é"] {
        assert_eq!(from_hex::<2>(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn pieces_hash_as_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..6)) {
        let mut hash = Sha256::new();
        pieces.iter().for_each(|piece| hash.update(piece));

        prop_assert_eq!(hash.finish(), sha256(&pieces.concat()));
    }

    #[test]
    fn hexadecimal_reads_back_the_same(bytes in any::<[u8; 16]>()) {
        prop_assert_eq!(from_hex::<16>(&hex(&bytes)), Some(bytes));
    }
}

#[test]
fn the_suite_that_hardware_does_whole_is_offered_first_and_none_is_left_out() {
    let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();

    assert_eq!(suites.first(), Some(&CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(suites.len(), build_provider().cipher_suites.len());
}
