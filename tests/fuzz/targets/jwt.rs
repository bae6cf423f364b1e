//! Tokens and key sets: whatever is read is read in one way, and nothing that no key signed is accepted.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::jwt::{Expected, JwtError, KeySet, Lifetime, MAX_KEYS, MAX_TOKEN_BYTES, Unverified, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds_are_accepted(), |bytes: &[u8]| {
    check(bytes);
});

fn seeds_are_accepted() {
    fuzz::accepts(include_bytes!("../seeds/jwt/token"), &check);
    fuzz::accepts(include_bytes!("../seeds/jwt/keys"), &check);
}

/// Reads a token and a key set; says whether the bytes are one of them.
fn check(bytes: &[u8]) -> bool {
    let set = KeySet::parse(bytes);
    if let Ok(set) = &set {
        assert!((1..=MAX_KEYS).contains(&set.keys().len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return set.is_ok() };
    let token = Unverified::parse(text);
    if let Ok(token) = &token {
        assert!(text.len() <= MAX_TOKEN_BYTES && text.matches('.').count() == 2);
        assert!(!format!("{token:?}").contains(text));
        judged(text);
    }
    set.is_ok() || token.is_ok()
}

/// What this key has signed is the seed, and nothing else. The signature itself has two forms, as ECDSA has it.
fn judged(text: &str) {
    let keys = KeySet::parse(include_bytes!("../seeds/jwt/keys")).unwrap();
    let audiences: [Arc<str>; 0] = [];
    let expected = Expected { issuer: "joe", audiences: &audiences, lifetime: Lifetime::Limited };
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_819_379);
    match verify(text, &keys, &expected, then) {
        Ok(_) => assert_eq!(signed(text), signed(include_str!("../seeds/jwt/token"))),
        Err(error) => assert_ne!(error, JwtError::Clock),
    }
}

fn signed(token: &str) -> Option<&str> {
    token.rsplit_once('.').map(|(signed, _)| signed)
}
