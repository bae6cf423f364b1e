use crate::compile;
use crate::document::KeySource;
use crate::strict::Source;

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const ISSUERS: &str =
    "issuers:\n  - {issuer: https://i.example, audiences: [a], keys: {file: i.jwks.json}}\n";

fn policy(name: &str, rest: &str) -> Source {
    Source::new(
        format!("{name}.yaml"),
        format!("vouchsafe: policy/v1\nname: {name}\nprotects: spiffe://a.test/{name}\n{rest}"),
    )
}

fn relying(jwt: &str) -> String {
    format!("allow:\n  - {{name: r, from: [anyone], http: {{port: 80}}, jwt: {jwt}}}\n")
}

fn keys() -> Source {
    Source::new("i.jwks.json", KEYS)
}

fn refusal(files: &[Source]) -> String {
    compile(files).map(|_| ()).expect_err("a refusal").to_string()
}

#[test]
fn a_policy_has_the_issuers_that_its_rules_rely_on_wherever_they_are_declared() {
    let files = [policy("api", &relying("{issuer: https://i.example}")), policy("login", ISSUERS), keys()];

    let set = compile(&files).map_err(|problems| problems.to_string()).unwrap();

    let api = set.policies().find(|policy| policy.name() == "api").unwrap();
    let issuer = api.issuers().next().expect("the issuer");
    assert_eq!((&*issuer.issuer, &issuer.keys), ("https://i.example", &KeySource::Inline(KEYS.into())));
    assert!(issuer.forward && !issuer.refuses_invalid && !issuer.accepts_endless);
}

#[test]
fn an_issuer_that_nobody_declares_is_an_error_where_it_is_named() {
    let files = [
        policy("api", &relying("{issuer: https://j.example, audience: a}")),
        policy("login", ISSUERS),
        keys(),
    ];
    let bare = [policy("api", &relying("{issuer: other, audience: a}"))];

    assert_eq!(
        refusal(&files).lines().next(),
        Some("api.yaml:5:63: no file declares the issuer \"https://j.example\"")
    );
    assert!(refusal(&files).ends_with("= did you mean \"https://i.example\"?"));
    assert!(
        refusal(&bare).ends_with("= declare it with its keys under \"issuers\", here or in another file")
    );
}

#[test]
fn a_test_supposes_no_token_of_an_issuer_that_nobody_declares() {
    let tests = "tests: [{from: unauthenticated, http: GET 80 /, jwt: {iss: me}, expect: deny}]\n";

    assert!(
        refusal(&[policy("api", tests)]).starts_with("api.yaml:4:60: no file declares the issuer \"me\"")
    );
}

#[test]
fn somebody_says_for_whom_a_token_must_be_meant() {
    let anybody = ISSUERS.replace("audiences: [a], ", "");
    let with = |jwt: &str| [policy("api", &format!("{anybody}{}", relying(jwt))), keys()];

    let said = refusal(&with("{issuer: https://i.example}"));

    assert!(said.starts_with("api.yaml:7:63: nothing says for whom the token must be meant"), "{said}");
    assert!(compile(&with("{issuer: https://i.example, audience: a}")).is_ok());
    assert!(compile(&with("{issuer: https://i.example, audience: any}")).is_ok());
    let [allow, keys] = with("{issuer: https://i.example}");
    let deny = Source::new(allow.name, allow.text.replace("allow:", "deny:"));
    assert!(compile(&[deny, keys]).is_ok());
}

#[test]
fn an_issuer_is_declared_once() {
    let files = [policy("a", ISSUERS), policy("b", ISSUERS), keys()];

    let said = refusal(&files);

    assert!(
        said.starts_with("b.yaml:5:5: the issuer \"https://i.example\" is already declared in a.yaml"),
        "{said}"
    );
}

#[test]
fn a_key_set_is_public_keys_that_some_issuer_refers_to() {
    let login = policy("login", ISSUERS);
    let private = KEYS.replace("\"x\"", "\"d\": \"AA\", \"x\"");
    for (text, complaint) in [
        ("[]", "the file is no key set"),
        ("{}", "the file is no key set"),
        ("{\"keys\": []}", "the file is no key set"),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"AA\"}]}", "the file is no key set"),
        (&private, "the file is no key set"),
        ("not json", "the file is no key set"),
    ] {
        let said = refusal(&[login.clone(), Source::new("i.jwks.json", text)]);
        assert!(said.contains(complaint) && said.contains("i.jwks.json"), "{said}");
    }
    let said = refusal(&[policy("api", ""), keys()]);
    assert!(said.starts_with("i.jwks.json: no issuer refers to this key set"), "{said}");
    assert!(refusal(&[login.clone(), keys(), keys()]).contains("i.jwks.json: the file is given twice"));
}

#[test]
fn key_sets_stand_beside_the_policy() {
    let at = |folder: &str, source: Source| Source::new(format!("{folder}/{}", source.name), source.text);

    assert!(compile(&[at("x", policy("login", ISSUERS)), at("x", keys())]).is_ok());
    let said = refusal(&[at("x", policy("login", ISSUERS)), at("y", keys())]);
    assert!(said.contains("there is no key set \"i.jwks.json\""), "{said}");
}

#[test]
fn the_key_sets_are_part_of_the_generation() {
    let login = policy("login", ISSUERS);
    let other = KEYS.replace("\"k\"", "\"l\"");

    let one = compile(&[login.clone(), keys()]).unwrap();
    let two = compile(&[login, Source::new("i.jwks.json", other)]).unwrap();

    assert_ne!(one.generation(), two.generation());
}
