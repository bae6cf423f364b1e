//! The test data with pieces cut out, doubled and swapped: whatever is still accepted can be asked, and its rewriting is accepted and never
//! wider.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    CanonicalPath, Compat, Connection, Mesh, Options, PathNormalization, PeerIdentity, PolicySet, Request,
    Unselected, compile_with, import, istio_path,
};
use proptest::prelude::*;

use crate::asking::source;
use crate::rows::ROWS;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_refused_or_means_what_it_says(
        choice in any::<u8>(),
        one in 0..ROWS.len(),
        other in 0..ROWS.len(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let (text, other) = (source(ROWS[one].file).text, source(ROWS[other].file).text);
        let mut lines: Vec<&str> = text.lines().collect();
        let others: Vec<&str> = other.lines().collect();
        for (at, from) in &cuts {
            let at = at.index(lines.len());
            lines[at] = others[from.index(others.len())];
        }
        let mut bytes = vec![choice];
        bytes.extend_from_slice(lines.join("\n").as_bytes());
        check(&bytes);
    }
}

#[test]
fn every_file_of_the_test_data_stays_what_it_is() {
    for row in ROWS {
        let mut bytes = vec![0];
        bytes.extend_from_slice(source(row.file).text.as_bytes());
        assert!(check(&bytes), "{}", row.file);
    }
}

/// Compiles a file and rewrites it; says whether it became policies.
fn check(bytes: &[u8]) -> bool {
    let Some((choice, text)) = bytes.split_first() else { return false };
    let Ok(source) = Source::from_bytes("f.yaml", text.to_vec()) else { return false };
    let mesh = mesh(*choice);
    let options = Options { mesh: mesh.clone(), ..Options::default() };
    let set = match compile_with(std::slice::from_ref(&source), &options) {
        Ok(set) => set,
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.to_string().chars().all(|shown| shown == '\n' || !shown.is_control()));
            return false;
        }
    };
    let before = answers(&set, &mesh);
    let Ok(imported) = import(std::slice::from_ref(&source), &mesh, &[]) else { return true };
    if imported.kept.is_empty() {
        let after =
            compile_with(&imported.files, &Options::default()).expect("what is rewritten is acceptable");
        for (before, after) in before.into_iter().zip(answers(&after, &mesh)) {
            assert!(before || !after, "the rewriting is wider");
        }
    }
    true
}

fn mesh(choice: u8) -> Mesh {
    Mesh {
        compat: if choice & 1 == 0 { Compat::Sidecar } else { Compat::Ambient },
        unselected: if choice & 2 == 0 { Unselected::Allow } else { Unselected::Deny },
        path_normalization: match choice >> 2 & 3 {
            0 => PathNormalization::None,
            1 => PathNormalization::Base,
            2 => PathNormalization::MergeSlashes,
            _ => PathNormalization::DecodeAndMergeSlashes,
        },
        ..Mesh::default()
    }
}

/// Whether each of a few accesses passes.
fn answers(set: &PolicySet, mesh: &Mesh) -> Vec<bool> {
    let id = |text: &str| SpiffeId::parse(text).expect("an ID");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut answers = Vec::new();
    for to in ["spiffe://cluster.local/ns/shop/sa/api", "spiffe://cluster.local/ns/default/sa/api"] {
        let policies = set.for_workload(&id(to));
        for from in
            [None, Some("spiffe://cluster.local/ns/shop/sa/web"), Some("spiffe://other.test/ns/shop/sa/web")]
        {
            let from = from.map(id);
            let peer = from.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
            for port in [1, 8080] {
                let connection = Connection::new(peer, IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), port, now);
                answers.push(policies.decide_tcp(&connection).is_allowed());
                for raw in ["/", "/info", "/v1/a"] {
                    let path = CanonicalPath::parse(raw).expect("a path");
                    let text = istio_path(mesh.path_normalization, raw);
                    let request = Request { text: &text, ..Request::new("GET", None, &path) };
                    answers.push(policies.decide_http(&connection, &request).is_allowed());
                }
            }
        }
    }
    answers
}
