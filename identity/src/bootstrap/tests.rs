//! Promises of join strings.

use proptest::prelude::*;

use super::*;

#[test]
fn a_join_string_is_taken_apart() {
    let join = JoinString::parse(&format!(" vs1:ca.prod.test:8081:to-k_e.n:{HASH}\n")).unwrap();

    assert_eq!((join.ca(), join.token().expose()), ("ca.prod.test:8081", "to-k_e.n"));
    assert_eq!(crypto::hex(join.root_hash()), HASH);
}

#[test]
fn addresses_of_ipv6_keep_their_colons() {
    let join = JoinString::parse(&format!("vs1:[2001:db8::1]:8081:token:{HASH}")).unwrap();

    assert_eq!(join.ca(), "[2001:db8::1]:8081");
}

#[test]
fn each_flaw_is_named() {
    use JoinStringError::*;
    let upper = HASH.to_uppercase();
    let cases = [
        (String::new(), Version),
        (format!("vs2:ca:1:token:{HASH}"), Version),
        (format!("VS1:ca:1:token:{HASH}"), Version),
        ("vs1:ca".into(), Parts),
        (format!("vs1:token:{HASH}"), Parts),
        (format!("vs1:ca:token:{HASH}"), Address),
        (format!("vs1::1:token:{HASH}"), Address),
        (format!("vs1:ca:0:token:{HASH}"), Address),
        (format!("vs1:ca:65536:token:{HASH}"), Address),
        (format!("vs1:ca:+1:token:{HASH}"), Address),
        (format!("vs1:c a:1:token:{HASH}"), Address),
        (format!("vs1:https://ca:1:token:{HASH}"), Address),
        (format!("vs1:::1:8081:token:{HASH}"), Address),
        (format!("vs1:ca:1::{HASH}"), Token),
        (format!("vs1:ca:1:to ken:{HASH}"), Token),
        (format!("vs1:ca:1:{}:{HASH}", "a".repeat(MAX_TOKEN_BYTES + 1)), Token),
        (format!("vs1:ca:1:token:{upper}"), RootHash),
        (format!("vs1:ca:1:token:{}", &HASH[1..]), RootHash),
        ("vs1:ca:1:token:".into(), RootHash),
        ("a".repeat(MAX_JOIN_STRING_BYTES + 1), TooLong),
    ];

    for (text, flaw) in cases {
        assert_eq!(JoinString::parse(&text).err(), Some(flaw), "{text:?}");
    }
}

#[test]
fn no_message_repeats_the_token() {
    let error = JoinString::parse(&format!("vs1:ca:x:hush:{HASH}")).err().unwrap();

    assert!(!format!("{error} {error:?}").contains("hush"));
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(
        host in "[a-z0-9.-]{1,20}|\\[::[0-9a-f]{1,4}\\]", port in 1u16.., token in "[a-zA-Z0-9._-]{1,64}", hash in any::<[u8; 32]>(),
    ) {
        let written = JoinString::new(&format!("{host}:{port}"), Secret::new(token.as_str()), hash).unwrap().to_secret();

        let read = JoinString::parse(written.expose()).unwrap();

        prop_assert_eq!(read.ca(), format!("{host}:{port}"));
        prop_assert_eq!(read.token().expose(), token);
        prop_assert_eq!(read.root_hash(), &hash);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(vs1:)?.{0,80}") {
        let _ = JoinString::parse(&text);
    }
}

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
