//! Istio's files and what they are rewritten as decide alike, or the rewriting grants less.

use std::collections::BTreeMap;

use policy::pattern::IdPattern;
use policy::strict::Source;
use policy::{Imported, Mesh, Options, PolicySet, Target, compile_with, import};

use crate::asking::{Asked, set, shown, source};
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

fn imported(file: &str) -> Imported {
    import(&[source(file)], &Mesh::default(), &targets())
        .unwrap_or_else(|problems| panic!("{file}: {problems}"))
}

/// The rewriting, with the documents that stay in Istio's form.
fn rewritten(file: &str, imported: &Imported) -> PolicySet {
    let mut files = imported.files.clone();
    if !imported.kept.is_empty() {
        let text = source(file).text;
        let documents =
            text.split("---\n").filter(|document| !document.contains("kind: AuthorizationPolicy"));
        files.push(Source::new("kept.yaml", documents.collect::<Vec<_>>().join("---\n")));
    }
    compile_with(&files, &Options::default()).unwrap_or_else(|problems| panic!("{file}: {problems}"))
}

#[test]
fn a_rewriting_is_never_wider_and_narrower_only_where_it_is_known_to_be() {
    let mesh = Mesh::default();
    let mut wider = Vec::new();
    let mut narrower: BTreeMap<&str, usize> = BTreeMap::new();
    for row in ROWS {
        let imported = imported(row.file);
        let (before, after) = (set(&[row.file], &mesh), rewritten(row.file, &imported));
        for (access, _) in row.accesses {
            let asked = Asked::parse(access);
            let (before, after) = (asked.put(&before, &mesh), asked.put(&after, &mesh));
            match (before.is_allowed(), after.is_allowed()) {
                (false, true) => {
                    wider.push(format!("{}: {access}: {} then {}", row.file, shown(&before), shown(&after)))
                }
                (true, false) => *narrower.entry(row.file).or_default() += 1,
                (true, true) | (false, false) => {}
            }
        }
        let told =
            narrower.contains_key(row.file) && imported.surprises.is_empty() && imported.kept.is_empty();
        assert!(!told, "{} is narrower, and nothing says so", row.file);
    }
    assert_eq!(wider, Vec::<String>::new());
    let narrower: Vec<&str> = narrower.into_keys().collect();
    assert_eq!(narrower, NARROWER);
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
         protects: [\"spiffe://cluster.local/ns/shop/sa/*\"]\n\
         deny:\n\
         \x20 - name: deny-0\n\
         \x20   from: [\"anyone\"]\n\
         \x20   http: {ports: [8080], methods: [\"POST\"]}\n\
         allow:\n\
         \x20 - name: rest-tcp\n\
         \x20   from: [\"anyone\", \"unauthenticated\"]\n\
         \x20   tcp: {port: any}\n\
         \x20 - name: rest-http\n\
         \x20   from: [\"anyone\", \"unauthenticated\"]\n\
         \x20   http: {port: any}\n"
    );
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

/// Where less is granted than in Istio, each told in the list of surprises.
const NARROWER: &[&str] = &[
    "absent-not-claim",
    "absent-not-header",
    "absent-not-namespaces",
    "absent-not-request-principals",
    "audiences",
    "claims",
    "claims-nested",
    "claims-plain-text",
    "claims-scope",
    "dry-run-allow",
    "dry-run-deny",
    "headers-deny-not",
    "hosts",
    "match-case",
    "match-prefix",
    "match-suffix",
    "methods",
    "namespaces",
    "namespaces-star",
    "not-hosts",
    "not-ip-blocks",
    "order-audit",
    "paths-rest-middle",
    "presenter",
    "principals-suffix",
    "request-principals",
    "request-principals-issuer",
    "request-principals-star",
    "request-principals-suffix",
    "scope-namespace",
    "scope-selector",
    "service-accounts",
    "structure-field-and-not",
    "tokens-required",
    "trust-domains-star",
    "when-destination-ip",
    "when-namespace",
    "when-not-sni",
    "when-request-principal",
    "when-service-account",
    "when-sni",
];
