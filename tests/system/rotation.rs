//! Rotation: identities and authorities change under steady traffic, and nobody notices.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::audit::code;
use crate::support::cluster::Pair;
use crate::support::sidecar::Sidecar;
use crate::support::traffic::Traffic;
use crate::support::wait::polled;

/// Short enough for five rotations and a new authority within a test.
const SVID_TTL: &str = "10s";
const CA: &str = "ca_ttl: 40s\nsvid_ttl: 10s\n";
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn five_rotations_and_a_new_authority_cost_no_request_and_no_connection() {
    let pair = Pair::start(CA, SVID_TTL);
    let traffic = Traffic::new()
        .calls(pair.http.outbound, "/steady")
        .keep_alive(pair.http.outbound, "/steady")
        .long_lived(pair.tcp.outbound)
        .long_lived(pair.tcp.outbound);

    let first = pair.issuer();
    polled(Duration::from_secs(1), LIMIT, "five rotations of both sides and a new authority", || {
        let enough = certificates(&pair.api) > 5 && certificates(&pair.web) > 5;
        (enough && pair.issuer() != first).then_some(())
    });

    let exchanges = traffic.stop_unharmed();
    println!("{exchanges} exchanges");
    assert!(exchanges > 500, "only {exchanges} exchanges: the traffic was not steady");
    assert_eq!(pair.tcp.backend.connections(), 2, "a long-lived connection was made anew");
    let others = pair.api.audit.denials().into_iter().filter(|record| code(record) != "no_certificate");
    assert_eq!(others.count(), 0, "{:#?}", pair.api.audit.denials());
}

/// How many certificates of its peer a sidecar's log has seen.
fn certificates(sidecar: &Sidecar) -> usize {
    let records = sidecar.audit.records();
    let serials: BTreeSet<_> = records
        .iter()
        .filter_map(|record| record["tls"]["certificate"]["serial_number"].as_str().map(str::to_owned))
        .collect();
    serials.len()
}
