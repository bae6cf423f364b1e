//! Istio's files and what they are rewritten as decide alike, or the rewriting grants less.

use std::collections::BTreeSet;

use policy::pattern::IdPattern;
use policy::strict::Source;
use policy::{
    Assumption, ImportOptions, Imported, Mesh, Options, PolicySet, Target, Unselected, compile_with, import,
    import_with,
};

use crate::asking::{Asked, shown, source};
use crate::rows::ROWS;

fn targets() -> Vec<Target> {
    let target = |labels: &[(&str, &str)], id: &str| Target {
        namespace: "shop".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ids: vec![IdPattern::parse(id).unwrap()],
    };
    vec![
        target(&[("app", "api"), ("version", "v1")], "spiffe://cluster.local/ns/shop/sa/api"),
        target(&[("app", "api"), ("tier", "front")], "spiffe://cluster.local/ns/shop/sa/front"),
    ]
}

/// A file of the test data, and whose tokens count where it asks about them.
fn sources(file: &str) -> Vec<Source> {
    let asks = source(file);
    let about_tokens = ["equest", "jwt", "claims"].iter().any(|word| asks.text.contains(word));
    let declares = asks.text.contains("kind: RequestAuthentication");
    let login = (about_tokens && !declares).then(|| Source::new("login.yaml", LOGIN));
    std::iter::once(asks).chain(login).collect()
}

fn imported(file: &str) -> Imported {
    imported_as(file, &[])
}

fn imported_as(file: &str, assumed: &[Assumption]) -> Imported {
    let options = ImportOptions {
        mesh: Some(Mesh::default()),
        targets: targets(),
        assumed: assumed.iter().copied().collect(),
        exact: false,
    };
    import_with(&sources(file), &options).unwrap_or_else(|problems| panic!("{file}: {problems}"))
}

/// The set that the rewriting is.
fn rewritten(file: &str, imported: &Imported, mesh: &Mesh) -> PolicySet {
    let options = Options { mesh: mesh.clone(), ..Options::default() };
    compile_with(&imported.files, &options).unwrap_or_else(|problems| panic!("{file}: {problems}"))
}

/// The files of the table of which an access passes before and not after, and the accesses that pass after and not before.
fn changes(assumed: &[Assumption]) -> (BTreeSet<&'static str>, Vec<String>) {
    let mesh = Mesh::default();
    let mut wider = Vec::new();
    let mut narrower = BTreeSet::new();
    for row in ROWS {
        let imported = imported_as(row.file, assumed);
        let before = compile_with(&sources(row.file), &Options::default()).unwrap();
        let after = rewritten(row.file, &imported, &mesh);
        for (access, _) in row.accesses {
            let asked = Asked::parse(access);
            let (before, after) = (asked.put(&before, &mesh), asked.put(&after, &mesh));
            match (before.is_allowed(), after.is_allowed()) {
                (false, true) => {
                    wider.push(format!("{}: {access}: {} then {}", row.file, shown(&before), shown(&after)))
                }
                (true, false) => {
                    let told = !imported.surprises.is_empty() || !imported.kept.is_empty();
                    assert!(told, "{} is narrower, and nothing says so", row.file);
                    narrower.insert(row.file);
                }
                (true, true) | (false, false) => {}
            }
        }
    }
    (narrower, wider)
}

#[test]
fn a_rewriting_is_never_wider_and_narrower_only_where_it_is_known_to_be() {
    let (narrower, wider) = changes(&[]);

    assert_eq!(wider, Vec::<String>::new());
    assert_eq!(narrower.into_iter().collect::<Vec<_>>(), NARROWER.map(|(file, _)| file));
}

#[test]
fn an_exact_rewriting_decides_every_access_of_the_table_as_the_files_did() {
    let mesh = Mesh { unselected: Unselected::Deny, ..Mesh::default() };
    let (mut differ, mut native) = (Vec::new(), 0);
    for row in ROWS {
        let options = ImportOptions {
            mesh: Some(mesh.clone()),
            targets: targets(),
            exact: true,
            ..ImportOptions::default()
        };
        let imported = import_with(&sources(row.file), &options)
            .unwrap_or_else(|problems| panic!("{}: {problems}", row.file));
        let before =
            compile_with(&sources(row.file), &Options { mesh: mesh.clone(), ..Options::default() }).unwrap();
        let after = rewritten(row.file, &imported, &mesh);
        native += usize::from(imported.kept.iter().all(|kept| kept.kind != "AuthorizationPolicy"));
        for (access, _) in row.accesses {
            let asked = Asked::parse(access);
            let (before, after) = (asked.put(&before, &mesh), asked.put(&after, &mesh));
            if before.is_allowed() != after.is_allowed() {
                differ.push(format!("{}: {access}: {} then {}", row.file, shown(&before), shown(&after)));
            }
        }
    }

    assert_eq!(differ, Vec::<String>::new());
    assert!(native * 2 > ROWS.len(), "{native} of {} rows are native files", ROWS.len());
}

#[test]
fn what_is_assumed_says_more_of_the_files_and_wider_only_where_it_is_known_to_be() {
    let (narrower, wider) = changes(&EVERYTHING);

    let said: Vec<&str> =
        NARROWER.iter().map(|(file, _)| *file).filter(|file| !narrower.contains(file)).collect();
    assert_eq!(said, SAID_BY_ASSUMPTION);
    assert_eq!(wider, WIDER_BY_ASSUMPTION);
}

#[test]
fn a_selector_by_labels_needs_to_be_told_the_identities() {
    let problems = import(&[source("scope-selector")], &Mesh::default(), &[]).map(|_| ()).unwrap_err();

    assert!(problems.to_string().contains("nothing says which identities they have"), "{problems}");
}

#[test]
fn the_rewriting_is_shown_as_text_that_people_would_write() {
    let imported = imported("l4-deny-narrowed");

    assert_eq!(imported.files.len(), 1);
    assert_eq!(
        imported.files[0].text,
        "# Rewritten from l4-deny-narrowed.yaml:4.\n\
         vouchsafe: policy/v1\n\
         name: shop.l4-deny-narrowed\n\
         protects: spiffe://cluster.local/ns/shop/sa/*\n\
         allow:\n\
         \x20 - name: rest-tcp\n\
         \x20   from: [anyone, unauthenticated]\n\
         \x20   tcp: {port: any}\n\
         \x20 - name: rest-http\n\
         \x20   from: [anyone, unauthenticated]\n\
         \x20   http: {port: any}\n\
         deny:\n\
         \x20 # l4-deny-narrowed.yaml:9\n\
         \x20 - name: rule-0\n\
         \x20   from: [anyone]\n\
         \x20   http: {port: 8080, methods: [POST]}\n"
    );
}

/// The rules that Istio's rules in `spec` become, without the head of the file.
fn rules(spec: &str, assumed: &[Assumption]) -> (String, Vec<String>) {
    let head =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n";
    let files = [Source::new("p.yaml", format!("{head}spec:\n{spec}")), Source::new("login.yaml", LOGIN_ONE)];
    let options = ImportOptions {
        mesh: Some(Mesh::default()),
        targets: Vec::new(),
        assumed: assumed.iter().copied().collect(),
        exact: false,
    };
    let imported = import_with(&files, &options).unwrap_or_else(|problems| panic!("{spec}: {problems}"));
    let text = imported.files[0].text.split_once("sa/*\n").unwrap().1.to_owned();
    let surprises = imported.surprises.into_iter().map(|surprise| surprise.message).collect();
    (text, surprises)
}

#[test]
fn what_the_language_can_say_is_said_exactly() {
    let cases = [
        ("  rules: [{to: [{operation: {paths: [/x/*]}}]}]\n", "http: {port: any, paths: [/x/, /x/*/**]}"),
        ("  rules: [{to: [{operation: {paths: [/*]}}]}]\n", "http: {port: any, paths: [/**]}"),
        ("  rules: [{to: [{operation: {paths: ['/a/{*}/b']}}]}]\n", "http: {port: any, paths: [/a/*/b]}"),
        ("  rules: [{to: [{operation: {notPorts: ['80', '82']}}]}]\n", "ports: [1-79, 81, 83-65535]"),
        (
            "  rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], notIpBlocks: [10.128.0.0/9]}}]}]\n",
            "source_net: [10.0.0.0/9]",
        ),
        ("  rules: [{when: [{key: connection.sni, values: [a.example]}]}]\n", "sni: [a.example]"),
        (
            "  rules: [{when: [{key: 'request.headers[X-Stage]', values: [live, 'off']}]}]\n",
            "headers: {x-stage: [live, \"off\"]}",
        ),
        (
            "  rules: [{from: [{source: {principals: [cluster.local/ns/shop/*], notPrincipals: [cluster.local/ns/shop/sa/x]}}]}]\n",
            "from: [spiffe://cluster.local/ns/shop/*/**]\n    except: [spiffe://cluster.local/ns/shop/sa/x]",
        ),
        (
            "  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/a, cluster.local/ns/dev/sa/a], notNamespaces: [dev]}}]}]\n",
            "from: [spiffe://cluster.local/ns/shop/sa/a]\n    tcp",
        ),
        (
            "  rules: [{from: [{source: {requestPrincipals: [https://login.example/u-1]}}]}]\n",
            "jwt: {issuer: https://login.example, audience: any, claims: {sub: [u-1]}}",
        ),
        (
            "  rules: [{when: [{key: request.auth.audiences, values: [a, b]}, {key: 'request.auth.claims[realm][role]', values: [x]}]}]\n",
            "realm: {role: [x]}",
        ),
        ("  action: DENY\n  rules: [{to: [{operation: {paths: [/admin*]}}]}]\n", "paths: [/**]"),
    ];
    for (spec, expected) in cases {
        let (text, _) = rules(spec, &[]);
        assert!(text.contains(expected), "{spec}{text}");
    }
}

#[test]
fn an_issuer_is_declared_with_its_keys_beside_the_policy() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
                spec: {rules: [{from: [{source: {requestPrincipals: [https://keys.example/u]}}]}]}\n";
    let files = [Source::new("p.yaml", text), Source::new("login.yaml", LOGIN)];

    let imported = import(&files, &Mesh::default(), &[]).unwrap();

    let [policy, keys] = imported.files.as_slice() else { panic!("{:?}", imported.files) };
    assert!(keys.name.starts_with("keys.example-") && keys.name.ends_with(".jwks.json"), "{}", keys.name);
    let declared = format!("issuers:\n  - issuer: https://keys.example\n    keys: {{file: {}}}\n", keys.name);
    let short = format!("issuers:\n  - {{issuer: https://keys.example, keys: {{file: {}}}}}\n", keys.name);
    assert!(policy.text.contains(&declared) || policy.text.contains(&short), "{}", policy.text);
    assert!(keys.text.contains("Ed25519"));
}

#[test]
fn prefixes_are_read_as_whole_segments_when_asked_and_each_is_told() {
    let spec = "  action: DENY\n  rules: [{to: [{operation: {paths: [/books/admin*]}}]}]\n";

    let (exact, _) = rules(spec, &[]);
    let (meant, told) = rules(spec, &[Assumption::WholeSegments]);

    assert!(exact.contains("paths: [/books/**]"), "{exact}");
    assert!(meant.contains("paths: [/books/admin/**]"), "{meant}");
    assert!(told.iter().any(|told| told.contains("/books/adminx is no longer denied")), "{told:?}");
}

#[test]
fn a_denial_that_cannot_be_said_denies_more() {
    let cases = [
        "to: [{operation: {paths: ['*.png']}}]",
        "to: [{operation: {notPaths: [/health]}}]",
        "to: [{operation: {notMethods: [GET]}}]",
        "from: [{source: {namespaces: [dev]}}]",
        "from: [{source: {notRequestPrincipals: ['*']}}]",
        "when: [{key: 'request.headers[x-forwarded-for]', values: [a]}]",
        "when: [{key: 'request.headers[x-a]', notValues: [a]}]",
        "when: [{key: 'request.auth.claims[permission]', values: [a]}]",
    ];
    for rule in cases {
        let (text, told) = rules(&format!("  action: DENY\n  rules: [{{{rule}}}]\n"), &[]);
        let denial = text.split_once("deny:\n").unwrap().1;
        for limit in ["paths", "methods", "headers", "claims", "except", "spiffe"] {
            assert!(!denial.contains(limit), "{rule}: {text}");
        }
        assert!(
            told.iter().any(|told| told.contains("cannot") || told.contains("could not")),
            "{rule}: {told:?}"
        );
    }
}

#[test]
fn a_rule_is_named_after_the_one_it_comes_from() {
    let (text, _) = rules(
        "  rules:\n    - to: [{operation: {ports: ['80']}}]\n    - to: [{operation: {methods: [GET]}}, {operation: {methods: [PUT]}}]\n",
        &[],
    );

    let names: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- name: ")).collect();
    assert_eq!(names, ["rule-0-tcp", "rule-0-http", "rule-1-http", "rule-1-http-2"]);
    assert!(text.contains("  # p.yaml:6\n  - name: rule-0-tcp"), "{text}");
}

#[test]
fn the_trust_domain_is_that_of_every_caller_unless_somebody_says_which() {
    let policy = |principals: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{rules: [{{from: [{{source: {{principals: [{principals}]}}}}]}}]}}\n"
        );
        let imported = import_with(&[Source::new("p.yaml", text)], &ImportOptions::default()).unwrap();
        let told = imported.surprises.iter().any(|told| told.message.contains("taken for the trust domain"));
        (imported.files[0].text.contains("protects: spiffe://prod.example/"), told)
    };

    assert_eq!(policy("prod.example/ns/a/sa/b, prod.example/ns/c/*"), (true, true));
    assert_eq!(policy("prod.example/ns/a/sa/b, other.example/ns/c/sa/d"), (false, false));
    assert_eq!(policy("cluster.local/ns/a/sa/b"), (false, false));
    assert_eq!(policy("'*'"), (false, false));
}

#[test]
fn every_surprise_names_its_policy() {
    for row in ROWS {
        let unnamed: Vec<_> =
            imported(row.file).surprises.into_iter().filter(|told| told.policy.is_empty()).collect();
        assert_eq!(unnamed, [], "{}", row.file);
    }
}

#[test]
fn each_surprise_is_told_with_its_place() {
    let cases = [
        ("order-no-allow", 4, "Istio lets everything pass that no policy denies"),
        ("match-prefix", 8, "/info* ends within a segment"),
        ("namespaces", 8, "shop is in any trust domain"),
        ("omitted-from", 8, "callers that prove no identity are meant as well"),
        ("l4-deny-all", 9, "on ports served as opaque TCP the rule denies more"),
        ("scheme-deny", 10, "matches nobody"),
        ("hosts", 8, "Istio compares the port of the host as well"),
        ("dry-run-deny", 4, "a dry run is left out"),
        ("order-audit", 4, "a policy that only audits is left out"),
    ];
    for (file, line, expected) in cases {
        let imported = imported(file);
        let found =
            imported.surprises.iter().any(|told| told.line == line && told.message.contains(expected));
        assert!(found, "{file}: {:#?}", imported.surprises);
    }
}

#[test]
fn what_is_about_tokens_and_tls_is_kept() {
    let imported = imported("tokens-required");

    assert_eq!(imported.kept.len(), 1);
    assert_eq!(
        (imported.kept[0].kind, imported.kept[0].name.as_str(), imported.kept[0].line),
        ("RequestAuthentication", "shop/login", 3)
    );
}

const EVERYTHING: [Assumption; 5] = [
    Assumption::WholeSegments,
    Assumption::UsualIdentities,
    Assumption::AnyHostPort,
    Assumption::TokensHaveSubjects,
    Assumption::RegisteredMethods,
];

const LOGIN: &str = r#"apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: login, namespace: istio-system}
spec:
  jwtRules:
    - {issuer: i, jwksUri: https://login.example/keys}
    - {issuer: x, jwksUri: https://login.example/keys}
    - {issuer: https://login.example, jwksUri: https://login.example/keys}
    - {issuer: https://login.example/a, jwksUri: https://login.example/keys}
    - issuer: https://keys.example
      jwks: '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
"#;

const LOGIN_ONE: &str = r"apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: login, namespace: shop}
spec:
  jwtRules:
    - {issuer: https://login.example, jwksUri: https://login.example/keys}
";

/// Where less is granted than in Istio, and why; each is told in the list of surprises.
const NARROWER: [(&str, &str); 31] = [
    ("absent-not-claim", "a token that must not be so"),
    ("absent-not-header", "a header that must not be there"),
    ("absent-not-namespaces", "a namespace of any trust domain"),
    ("absent-not-request-principals", "a denial about the tokens of several issuers"),
    ("claims-nested", "values of a claim that begin alike"),
    ("dry-run-allow", "a shadow needs an end"),
    ("dry-run-deny", "a shadow needs an end"),
    ("headers-deny-not", "a header that must not be so"),
    ("hosts", "a host without a port only"),
    ("match-case", "a method in small letters"),
    ("match-prefix", "a prefix that ends within a segment"),
    ("match-suffix", "paths that end alike"),
    ("namespaces", "a namespace of any trust domain"),
    ("namespaces-star", "namespaces that begin and end alike"),
    ("not-hosts", "a host that must not be so"),
    ("order-audit", "where no policy is left everything is refused"),
    ("paths-rest-middle", "any number of segments in the middle"),
    ("principals-suffix", "an identity of any trust domain"),
    ("request-principals-issuer", "a token with some subject"),
    ("request-principals-star", "a token with some subject"),
    ("scope-namespace", "where no policy is left everything is refused"),
    ("scope-selector", "where no policy is left everything is refused"),
    ("service-accounts", "an identity of any trust domain"),
    ("structure-field-and-not", "a path that must not be so"),
    ("tokens-required", "a token with some subject"),
    ("trust-domains-star", "trust domains that end alike"),
    ("when-destination-ip", "the address that is called"),
    ("when-namespace", "a namespace of any trust domain"),
    ("when-not-sni", "a server name that must not be so"),
    ("when-service-account", "an identity of any trust domain"),
    ("when-sni", "server names that end alike"),
];

/// Those that are said whole when everything is assumed.
const SAID_BY_ASSUMPTION: [&str; 5] = [
    "absent-not-namespaces",
    "hosts",
    "request-principals-issuer",
    "request-principals-star",
    "tokens-required",
];

/// What passes that did not when everything is assumed.
const WIDER_BY_ASSUMPTION: [&str; 3] = [
    "request-principals-star: - GET 1 / jwt={\"iss\":\"x\"}: unauthenticated then allow",
    "request-principals-star: - GET 1 / jwt={\"iss\":\"x\",\"sub\":\"\"}: unauthenticated then allow",
    "hosts: - GET 1 / host=api.example:8080: unauthenticated then allow",
];
