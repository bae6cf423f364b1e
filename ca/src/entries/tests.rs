//! Entry files: what is read, what is refused, and what has to change.

use super::*;
use crate::model::{Entry, EntryId, Origin};

#[test]
fn every_key_is_read() {
    let entries = parse_text(
        "vouchsafe: entries/v1\nentries:\n  - spiffe_id: spiffe://prod.test/web\n    parent_id: spiffe://prod.test/rack\n    \
         selectors: [unix:uid:1000, unix:gid:7]\n    x509_svid_ttl: 20m\n    jwt_svid_ttl: 5m\n    \
         dns_names: [web.prod.test]\n    hint: internal\n    federates_with: [other.test]\n    admin: true\n    \
         downstream: true\n    store_svid: true\n    on_demand: true\n",
    )
    .unwrap();

    let entry = &entries[0];
    assert_eq!(entry.parent_id.path(), "/rack");
    let selectors: Vec<_> = entry.selectors.iter().map(ToString::to_string).collect();
    assert_eq!(selectors, ["unix:gid:7", "unix:uid:1000"]);
    assert_eq!((entry.x509_svid_ttl, entry.jwt_svid_ttl), (1200, 300));
    assert_eq!(entry.dns_names, ["web.prod.test"]);
    assert_eq!(entry.hint, "internal");
    assert_eq!(entry.federates_with[0].as_str(), "other.test");
    assert!(entry.admin && entry.downstream && entry.store_svid && entry.on_demand);
}

#[test]
fn a_node_name_stands_for_its_alias() {
    let entries = parse_text(&file("    node: rack-1\n    selectors: [unix:uid:1]\n")).unwrap();

    assert_eq!(entries[0].parent_id.as_str(), "spiffe://prod.test/node/rack-1");
}

#[test]
fn an_empty_list_is_no_entries() {
    assert_eq!(parse_text("vouchsafe: entries/v1\nentries: []\n").unwrap(), []);
}

#[test]
fn each_flaw_is_refused_at_its_line() {
    let flaws = [
        ("vouchsafe: entries/v2\nentries: []\n".to_owned(), "e.yaml:1:"),
        ("vouchsafe: entries/v1\n".to_owned(), "entries"),
        (file("    selectors: [unix:uid:1]\n"), "parent_id"),
        (file("    node: a\n    parent_id: spiffe://prod.test/b\n    selectors: [unix:uid:1]\n"), "either"),
        (file("    node: a/b\n    selectors: [unix:uid:1]\n"), "e.yaml:4:"),
        (file("    node: a\n"), "selectors"),
        (file("    node: a\n    selectors: []\n"), "e.yaml:5:"),
        (file("    node: a\n    selectors: [unix]\n"), "e.yaml:5:"),
        (file("    node: a\n    selectors: [unix:uesr:x]\n"), "did you mean \"unix:user:\"?"),
        (file("    node: a\n    selectors: [unix:label:x]\n"), "the keys are uid, user"),
        (file("    node: a\n    selectors: [unix:uid:1]\n    hnit: x\n"), "hint"),
        (file("    node: a\n    selectors: [unix:uid:1]\n    admin: \"true\"\n"), "e.yaml:6:"),
        (file("    node: a\n    selectors: [unix:uid:1]\n    x509_svid_ttl: 3600\n"), "e.yaml:6:"),
        (file("    node: a\n    selectors: [unix:uid:1]\n    dns_names: [a..b]\n"), "DNS name"),
        (file("    parent_id: spiffe://other.test/a\n    selectors: [unix:uid:1]\n"), "other.test"),
    ];
    for (text, wanted) in flaws {
        let problems = parse_text(&text).unwrap_err().to_string();
        assert!(problems.contains(wanted), "{text}\n{problems}");
    }
}

#[test]
fn the_same_entry_in_two_files_is_refused_with_both_places() {
    let one = Source::new("a.yaml", file("    node: a\n    selectors: [unix:uid:1, unix:gid:2]\n"));
    let two = Source::new("b.yaml", file("    node: a\n    selectors: [unix:gid:2, unix:uid:1]\n"));

    let problems = parse_all(&[one, two], &domain()).unwrap_err().to_string();

    assert!(problems.contains("a.yaml:3") && problems.contains("b.yaml:3"), "{problems}");
}

#[test]
fn one_bad_file_spoils_all() {
    let good = Source::new("a.yaml", file("    node: a\n    selectors: [unix:uid:1]\n"));
    let bad = Source::new("b.yaml", "vouchsafe: entries/v1\nentries: 7\n");

    assert!(parse_all(&[good, bad], &domain()).is_err());
}

#[test]
fn a_directory_is_read_by_name_without_hidden_and_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), file("    node: a\n    selectors: [unix:uid:1]\n")).unwrap();
    std::fs::write(dir.path().join(".b.yaml"), "nonsense").unwrap();
    std::fs::write(dir.path().join("README.md"), "nonsense").unwrap();

    assert_eq!(directory::load(dir.path(), &domain()).unwrap().len(), 1);
    std::fs::write(dir.path().join("c.yml"), b"\xff").unwrap();
    assert!(directory::load(dir.path(), &domain()).unwrap_err().to_string().contains("c.yml"));
    let missing = directory::load(&dir.path().join("none"), &domain()).unwrap_err().to_string();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn a_plan_names_every_difference_once() {
    let spec = |path: &str, hint: &str| {
        let mut spec = EntrySpec::new(
            id(&format!("spiffe://prod.test{path}")),
            id("spiffe://prod.test/node/a"),
            vec![Selector::parse("unix:uid:1").unwrap()],
        );
        spec.hint = hint.into();
        spec
    };
    let present = |name: &str, path: &str, origin| Entry {
        id: EntryId::parse(name).unwrap(),
        spec: spec(path, ""),
        revision: 0,
        created_at: 0,
        origin,
    };
    let mut alias = present("alias", "/node/a", Origin::Api);
    alias.spec.parent_id = id("spiffe://prod.test/spire/agent/join_token/x");
    alias.spec.selectors = EntrySpec::alias_selectors(&alias.spec.parent_id);
    let there = [
        alias,
        present("same", "/same", Origin::Api),
        present("old", "/old", Origin::Api),
        present("extra", "/extra", Origin::Api),
        present("file", "/file", Origin::Files),
    ];
    let wanted = [spec("/same", ""), spec("/old", "new"), spec("/missing", "")];

    let kept = plan(&wanted, &there, Prune::Keep);
    let pruned = plan(&wanted, &there, Prune::Delete);

    assert_eq!(kept.create, [spec("/missing", "")]);
    assert_eq!(kept.update, [(EntryId::parse("old").unwrap(), spec("/old", "new"))]);
    assert_eq!(kept.unchanged, [EntryId::parse("same").unwrap()]);
    assert!(kept.delete.is_empty());
    assert_eq!(pruned.delete, [EntryId::parse("extra").unwrap()]);
}

fn file(rest: &str) -> String {
    format!("vouchsafe: entries/v1\nentries:\n  - spiffe_id: spiffe://prod.test/web\n{rest}")
}

fn parse_text(text: &str) -> Result<Vec<EntrySpec>, Problems> {
    parse(&Source::new("e.yaml", text), &domain())
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}
