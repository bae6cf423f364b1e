use super::{MAX_FILE_NAME, MAX_URL};
use crate::document::tests::{HEAD, accepted, problem, refusal};
use crate::document::{KeyFiles, MAX_ISSUERS, read};
use crate::strict::Source;

fn issuers(inner: &str) -> String {
    format!("{HEAD}issuers:\n  - {{{inner}}}\n")
}

#[test]
fn keys_come_from_an_address_over_tls() {
    for url in ["https://i.example/jwks.json", "https://i.example:8443/a?b=c", "https://i.example"] {
        accepted(&issuers(&format!("issuer: i, keys: {{url: \"{url}\"}}")));
    }
    for (url, message) in [
        ("http://i.example/", "\"http://i.example/\" does not begin with https://"),
        ("https://", "\"https://\" is not the address of a key set: host is empty"),
        (
            "https://u@i.example/",
            "\"https://u@i.example/\" is not the address of a key set: host contains user information",
        ),
        (
            "https://i.example/#a",
            "\"https://i.example/#a\" is not the address of a key set: it has a fragment",
        ),
        (
            "https://i.example/a b",
            "\"https://i.example/a b\" is not the address of a key set: it has a space or a letter outside ASCII",
        ),
    ] {
        let (found, _) = problem(&issuers(&format!("issuer: i, keys: {{url: \"{url}\"}}")));
        assert_eq!(found, format!("p.yaml:5:29: {message}"));
    }
    let long = |length: usize| {
        issuers(&format!("issuer: i, keys: {{url: https://i.example/{}}}", "a".repeat(length - 18)))
    };
    accepted(&long(MAX_URL));
    assert!(refusal(&long(MAX_URL + 1)).contains("it is longer than 2048 bytes"));
}

#[test]
fn what_is_declared_of_an_issuer_is_checked() {
    for (inner, message, cure) in [
        ("keys: {url: https://i.example}", "5: the key \"issuer\" is missing", ""),
        ("issuer: i", "5: the key \"keys\" is missing", ""),
        (
            "issuer: i, keys: {}",
            "23: the keys come from nowhere",
            "add \"file: NAME.json\" or \"url: https://…\"",
        ),
        (
            "issuer: i, keys: {file: a.json, url: https://i.example}",
            "43: \"file\" and \"url\" are both given",
            "keep one of the two",
        ),
        (
            "issuer: i, keys: {file: ../a.json}",
            "30: \"../a.json\" is not the name of a key set",
            "put the file beside the policy and write its name alone",
        ),
        (
            "issuer: i, keys: {file: .a.json}",
            "30: \".a.json\" is not the name of a key set",
            "put the file beside the policy and write its name alone",
        ),
        (
            "issuer: i, keys: {file: a.pem}",
            "30: \"a.pem\" is not the name of a key set",
            "the names of key sets end in .json",
        ),
        (
            "issuer: i, keys: {file: a.json}",
            "30: there is no key set \"a.json\"",
            "put the file beside the policy",
        ),
        (
            "issuer: i, audience: a, keys: {url: https://i.example}",
            "17: \"audience\" is a list here",
            "write audiences: […]",
        ),
        (
            "issuer: i, jwks: x, keys: {url: https://i.example}",
            "17: \"jwks\" is no key of ours",
            "write keys: {file: …} or keys: {url: …}",
        ),
    ] {
        let found = problem(&issuers(inner));
        assert_eq!(found, (format!("p.yaml:5:{message}"), cure.to_owned()), "{inner}");
    }
}

#[test]
fn the_name_of_a_key_set_that_is_nearly_right_is_suggested() {
    let set =
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let files = [Source::new("login.json", set)];
    let keys = KeyFiles::read(files.iter(), &mut crate::strict::Problems::default());

    let said =
        read(&Source::new("p.yaml", issuers("issuer: i, keys: {file: logn.json}")), &keys).unwrap_err();

    assert!(said.to_string().ends_with("= did you mean \"login.json\"?"), "{said}");
}

#[test]
fn issuers_and_names_of_key_sets_have_limits() {
    let text = |count: usize| {
        let one = |number: usize| format!("  - {{issuer: i{number}, keys: {{url: https://i.example}}}}\n");
        format!("{HEAD}issuers:\n{}", (0..count).map(one).collect::<String>())
    };
    let named =
        |length: usize| issuers(&format!("issuer: i, keys: {{file: {}.json}}", "a".repeat(length - 5)));

    accepted(&text(MAX_ISSUERS));
    assert!(refusal(&text(MAX_ISSUERS + 1)).contains("at most 16 are accepted"));
    assert!(refusal(&named(MAX_FILE_NAME)).contains("there is no key set"));
    assert!(refusal(&named(MAX_FILE_NAME + 1)).contains("is not the name of a key set"));
}
