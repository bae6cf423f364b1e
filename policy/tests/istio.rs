//! Istio's semantics, row by row: the text of each policy is in `tests/istio`, and each row says what becomes of which access, for sidecars
//! and for ztunnel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a table is as long as it is, and a test stops at the first thing that is not as promised"
)]

#[path = "istio/asking.rs"]
mod asking;
#[path = "istio/importing.rs"]
mod importing;
#[path = "istio/mutations.rs"]
mod mutations;
#[path = "istio/refusals.rs"]
mod refusals;
#[path = "istio/rows.rs"]
mod rows;

use asking::{Asked, Mode, set, workload};
use policy::{Compat, Mesh, PathNormalization, Unselected};
use rows::{ROWS, Row};

fn mesh(compat: Compat) -> Mesh {
    Mesh { compat, ..Mesh::default() }
}

/// What is not as the table says.
fn wrong(row: &Row, compat: Compat, mesh: &Mesh) -> Vec<String> {
    let set = set(&[row.file], mesh);
    let mut wrong = Vec::new();
    for (access, expected) in row.accesses {
        let expected = match (expected, compat) {
            (Mode::Both(answer), _) | (Mode::Differs(answer, _), Compat::Sidecar) => answer,
            (Mode::Differs(_, answer), Compat::Ambient) => answer,
        };
        let asked = Asked::parse(access);
        let decision = asked.put(&set, mesh);
        if asking::shown(&decision) != *expected {
            wrong.push(format!("{}: {access}: {decision:?}, expected {expected}", row.file));
        }
    }
    wrong
}

#[test]
fn every_row_of_the_semantics_holds_for_sidecars() {
    let mesh = mesh(Compat::Sidecar);

    let wrong: Vec<String> = ROWS.iter().flat_map(|row| wrong(row, Compat::Sidecar, &mesh)).collect();

    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_row_of_the_semantics_holds_in_ambient_mode() {
    let mesh = mesh(Compat::Ambient);

    let rows = ROWS.iter().filter(|row| !row.sidecars_only);
    let wrong: Vec<String> = rows.flat_map(|row| wrong(row, Compat::Ambient, &mesh)).collect();

    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_policy_in_the_test_data_is_in_the_table() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/istio");
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".yaml") else { continue };
        let elsewhere = name.starts_with("aliases") || name == "normalization";
        if !elsewhere && !ROWS.iter().any(|row| row.file == name) {
            missing.push(name.to_owned());
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_principal_means_every_name_of_the_trust_domain() {
    let aliased = Mesh {
        trust_domain: "new.test".to_owned(),
        trust_domain_aliases: vec!["old.test".to_owned(), "very-old.test".to_owned()],
        ..Mesh::default()
    };
    let cases = [
        ("aliases", "old.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases", "new.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases", "very-old.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases", "other.test/ns/shop/sa/web tcp 8080", "no_allow_matched"),
        ("aliases-local", "new.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-local", "old.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-local", "cluster.local/ns/shop/sa/web tcp 8080", "no_allow_matched"),
        // Covered names keep the star, the others are written out.
        ("aliases-star", "old.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-star", "so-old.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-star", "new.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-other", "other.test/ns/shop/sa/web tcp 8080", "allow"),
        ("aliases-other", "new.test/ns/shop/sa/web tcp 8080", "no_allow_matched"),
        // Not of the usual five parts: no trust domain is seen in it.
        ("aliases-short", "old.test/web tcp 8080", "allow"),
        ("aliases-short", "new.test/web tcp 8080", "no_allow_matched"),
        ("aliases-trust-domain", "new.test/web tcp 8080", "allow"),
        ("aliases-trust-domain", "other.test/web tcp 8080", "no_allow_matched"),
    ];
    for (file, access, expected) in cases {
        let decision = Asked::parse(access).put(&set(&[file], &aliased), &aliased);
        assert_eq!(asking::shown(&decision), expected, "{file}: {access}");
    }
}

#[test]
fn each_way_of_normalizing_paths_sees_through_a_little_more() {
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    // The path, and whether the denial of /admin sees it by none, base, merging and decoding.
    let cases = [
        ("/admin", [true, true, true, true]),
        ("/admin?a=/b", [true, true, true, true]),
        ("/x/../admin", [false, true, true, true]),
        ("/%61dmin", [false, true, true, true]),
        ("\\admin", [false, true, true, true]),
        ("//admin", [false, false, true, true]),
        ("/x%2F..%2Fadmin", [false, false, false, true]),
        ("%5Cadmin", [false, false, false, true]),
        ("/%2Fadmin", [false, false, false, true]),
    ];
    for (path, expected) in cases {
        for (mode, denied) in [None, Base, MergeSlashes, DecodeAndMergeSlashes].into_iter().zip(expected) {
            let mesh = Mesh { path_normalization: mode, ..Mesh::default() };
            let asked = Asked::parse(&format!("- GET 8080 {path}"));
            let decision = asked.put(&set(&["normalization"], &mesh), &mesh);
            assert_eq!(!decision.is_allowed(), denied, "{path} {mode:?}");
        }
    }
}

#[test]
fn what_nothing_selects_passes_unless_it_is_to_be_refused() {
    let strict = Mesh { unselected: Unselected::Deny, ..Mesh::default() };
    let asked = Asked::parse("- tcp 8080");

    assert_eq!(asking::shown(&asked.put(&set(&["scope-namespace"], &Mesh::default()), &strict)), "allow");
    assert_eq!(asking::shown(&asked.put(&set(&["scope-namespace"], &strict), &strict)), "no_policy");
    // What changes no decision does not make a workload a protected one either.
    for file in ["order-audit", "dry-run-deny", "dry-run-allow", "peers-mesh-strict", "tokens"] {
        assert_eq!(asking::shown(&asked.put(&set(&[file], &strict), &strict)), "no_policy", "{file}");
    }
    assert_eq!(asking::shown(&asked.put(&set(&["order-no-allow"], &strict), &strict)), "allow");
}

#[test]
fn a_refusal_names_the_policy_its_rule_and_the_line() {
    let mesh = Mesh::default();
    let decision = Asked::parse("- tcp 9000").put(&set(&["scope-pool"], &mesh), &mesh);

    let rule = decision.denial().unwrap().rule.clone().unwrap();
    assert_eq!(rule.to_string(), "istio-system/mesh-deny/rule[0] (scope-pool.yaml:9)");

    let decision = Asked::parse("- tcp 9000").put(&set(&["peers-mesh-strict"], &mesh), &mesh);
    let rule = decision.denial().unwrap().rule.clone().unwrap();
    assert_eq!(rule.to_string(), "istio-system/default/PeerAuthentication (peers-mesh-strict.yaml:4)");
}

#[test]
fn a_workload_is_selected_by_its_namespace_whatever_its_identity_says() {
    let mesh = Mesh::default();
    let mut elsewhere = workload();
    elsewhere.namespace = "billing".to_owned();

    let decision = Asked::parse("- tcp 8080").put_to(&set(&["scope-namespace"], &mesh), &mesh, &elsewhere);

    assert_eq!(asking::shown(&decision), "explicit_deny");
}
