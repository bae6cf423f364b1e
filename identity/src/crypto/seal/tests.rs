//! Promises of sealing.

use proptest::prelude::*;

use super::*;

#[test]
fn sealing_twice_gives_different_bytes() {
    let key = SealKey::generate().unwrap();

    assert_ne!(key.seal(b"", b"secret").unwrap(), key.seal(b"", b"secret").unwrap());
}

#[test]
fn another_key_opens_nothing() {
    let sealed = SealKey::generate().unwrap().seal(b"a", b"secret").unwrap();

    assert_eq!(SealKey::generate().unwrap().open(b"a", &sealed).unwrap_err(), CryptoError::Open);
}

#[test]
fn a_key_kept_elsewhere_opens_what_it_sealed() {
    let key = SealKey::generate().unwrap();
    let sealed = key.seal(b"a", b"secret").unwrap();

    let kept = SealKey::from_bytes(*key.expose());

    assert_eq!(kept.open(b"a", &sealed).unwrap().as_slice(), b"secret");
}

#[test]
fn what_another_implementation_sealed_is_opened() {
    // Made with Python's `cryptography` (OpenSSL): files move between builds with either provider.
    let key = SealKey::from_bytes([7; KEY_BYTES]);
    let sealed = from_hex_bytes(SEALED_ELSEWHERE);

    assert_eq!(key.open(b"state v1", &sealed).unwrap().as_slice(), b"vouchsafe");
}

proptest! {
    #[test]
    fn what_is_sealed_opens_the_same(aad in bytes(), plain in bytes()) {
        let key = SealKey::generate().unwrap();

        let sealed = key.seal(&aad, &plain).unwrap();

        prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
        let opened = key.open(&aad, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plain.as_slice());
    }

    #[test]
    fn any_changed_bit_is_noticed(plain in bytes(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = SealKey::generate().unwrap();
        let mut sealed = key.seal(b"aad", &plain).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;

        prop_assert_eq!(key.open(b"aad", &sealed).unwrap_err(), CryptoError::Open);
    }

    #[test]
    fn any_cut_is_noticed(plain in bytes(), at in any::<prop::sample::Index>()) {
        let key = SealKey::generate().unwrap();
        let sealed = key.seal(b"aad", &plain).unwrap();

        prop_assert!(key.open(b"aad", &sealed[..at.index(sealed.len())]).is_err());
    }

    #[test]
    fn other_associated_data_are_noticed(aad in bytes(), other in bytes()) {
        prop_assume!(aad != other);
        let key = SealKey::generate().unwrap();
        let sealed = key.seal(&aad, b"secret").unwrap();

        prop_assert!(key.open(&other, &sealed).is_err());
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..100)
}

fn from_hex_bytes(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Nonce 00 to 0b, key 32 times 07.
const SEALED_ELSEWHERE: &str = "000102030405060708090a0b6eee9c13757ab82f12b0bdbb235d25cf6ab05c20fa5c238368";
