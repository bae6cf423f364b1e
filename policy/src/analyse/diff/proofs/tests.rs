use crate::analyse::{Terms, diff};
use crate::load::compile;
use crate::set::PolicySet;
use crate::strict::Source;

const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const OTHER: &str = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo";

fn keys(of: &[&str]) -> String {
    let key = |x: &&str| format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{x}"}}"#);
    format!(r#"{{"keys": [{}]}}"#, of.iter().map(key).collect::<Vec<_>>().join(", "))
}

fn native(audiences: &str, of: &[&str], rule: &str) -> PolicySet {
    let text = format!(
        "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/api\n\
         issuers: [{{issuer: https://i.test, audiences: {audiences}, keys: {{file: k.json}}}}]\n\
         allow:\n  - {{name: all, from: [spiffe://a.test/**], {rule}http: {{port: 80}}}}\n\
         \x20 - {{name: own, from: [spiffe://a.test/own], jwt: {{issuer: https://i.test}}, http: {{port: 81}}}}\n"
    );
    compile(&[Source::new("p.yaml", text), Source::new("k.json", keys(of))]).unwrap()
}

fn istio(rules: &[(&str, &[&str])]) -> PolicySet {
    let rule = |(issuer, of): &(&str, &[&str])| format!("  - {{issuer: {issuer}, jwks: '{}'}}\n", keys(of));
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\n\
         spec:\n  rules:\n  - from: [{{source: {{requestPrincipals: ['*']}}}}]\n---\n\
         apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\n\
         spec:\n  jwtRules:\n{}",
        rules.iter().map(rule).collect::<String>()
    );
    compile(&[Source::new("a.yaml", text)]).unwrap()
}

fn narrows(old: &PolicySet, new: &PolicySet) -> bool {
    diff(old, new, Terms::default()).only_narrows()
}

const TOKEN: &str = "jwt: {issuer: https://i.test}, ";

#[test]
fn tokens_for_more_audiences_or_of_more_keys_are_no_narrowing() {
    let old = native("[a]", &[KEY], TOKEN);

    assert!(narrows(&old, &old));
    assert!(!narrows(&old, &native("[a, b]", &[KEY], TOKEN)));
    assert!(!narrows(&old, &native("[a]", &[KEY, OTHER], TOKEN)));
    assert!(!narrows(&old, &native("[a]", &[OTHER], TOKEN)));
    assert!(narrows(&native("[a, b]", &[KEY, OTHER], TOKEN), &old));
}

#[test]
fn a_rule_that_comes_to_ask_for_a_token_only_narrows() {
    let open = compile(&[Source::new(
        "p.yaml",
        "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/api\nallow:\n\
         \x20 - {name: all, from: [spiffe://a.test/**], http: {port: any}}\n",
    )])
    .unwrap();

    assert!(narrows(&open, &native("[a]", &[KEY], TOKEN)));
}

#[test]
fn an_issuer_more_in_istios_files_is_no_narrowing() {
    let (one, other) = (("https://i.test", &[KEY][..]), ("https://evil.test", &[OTHER][..]));

    assert!(narrows(&istio(&[one]), &istio(&[one])));
    assert!(!narrows(&istio(&[one]), &istio(&[one, other])));
    assert!(!narrows(&istio(&[one]), &istio(&[("https://i.test", &[OTHER])])));
    assert!(narrows(&istio(&[one, other]), &istio(&[one])));
}
