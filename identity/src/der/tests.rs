//! Promises of the DER readers.

use proptest::prelude::*;

use super::*;
use crate::testing::Authority;

#[test]
fn certificates_in_a_row_are_split() {
    let (a, b) = (Authority::root("a").der, Authority::root("b").der);

    assert_eq!(split_certificates(&[a.as_ref(), &b].concat()).unwrap(), [a.clone(), b]);
    assert_eq!(split_certificates(&[]).unwrap(), []);
    assert_eq!(split_certificates(&[a.as_ref(), &[0]].concat()), None);
    assert_eq!(split_certificates(&a[..a.len() - 1]), None);
}

#[test]
fn only_minimal_lengths_are_der() {
    let malformed: [&[u8]; 9] = [
        &[],
        &[0x30],
        &[0x30, 1],
        &[0x30, 0x80, 0, 0],
        &[0x30, 0x81, 0x7f],
        &[0x30, 0x81, 0x01, 0],
        &[0x30, 0x82, 0x00, 0x80],
        &[0x30, 0x83, 0, 1, 0],
        &[0x3f, 0x01, 0],
    ];

    for bytes in malformed {
        assert_eq!(Reader::new(bytes).value(), None, "{bytes:?}");
    }
}

#[test]
fn long_values_are_read() {
    for length in [127, 128, 255, 256, 65535] {
        let content = vec![7; length];
        let bytes = [header(length), content.clone()].concat();

        assert_eq!(only(&bytes, SEQUENCE), Some(content.as_slice()), "{length}");
    }
}

#[test]
fn bytes_left_over_make_a_value_not_the_only_one() {
    assert_eq!(only(&[0x30, 0], SEQUENCE), Some([].as_slice()));
    assert_eq!(only(&[0x30, 0, 0], SEQUENCE), None);
    assert_eq!(only(&[0x31, 0], SEQUENCE), None);
}

#[test]
fn pem_has_lines_of_64_characters() {
    let text = pem("CERTIFICATE", &[0; 100]);

    let lines: Vec<_> = text.lines().map(str::len).collect();
    assert_eq!(lines, ["-----BEGIN CERTIFICATE-----".len(), 64, 64, 8, "-----END CERTIFICATE-----".len()]);
    assert!(text.ends_with("-----\n"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_stand_still(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut reader = Reader::new(&bytes);
        let mut values = 0;
        while reader.value().is_some() {
            values += 1;
        }
        prop_assert!(values <= bytes.len() / 2);
        let _ = split_certificates(&bytes);
    }

    #[test]
    fn what_pem_holds_reads_back_the_same(der in proptest::collection::vec(any::<u8>(), 1..300)) {
        use rustls_pki_types::pem::PemObject;

        let read = CertificateDer::from_pem_slice(pem("CERTIFICATE", &der).as_bytes()).unwrap();

        prop_assert_eq!(read.as_ref(), der.as_slice());
    }
}

fn header(length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    match length {
        0..=127 => vec![SEQUENCE, low],
        128..=255 => vec![SEQUENCE, 0x81, low],
        _ => vec![SEQUENCE, 0x82, high, low],
    }
}
