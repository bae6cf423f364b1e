use std::time::SystemTime;

use identity::SpiffeId;

use super::compile;
use crate::strict::Source;
use crate::{Connection, PeerIdentity};

const SAMPLE: &str = r#"
vouchsafe: policy/v1
name: payments-api
owner: team-payments@example.com
protects: spiffe://prod.example/ns/payments/sa/api
mode: enforce
allow:
  - name: checkout-reads
    from: [spiffe://prod.example/ns/shop/sa/checkout]
    http: {port: 8443, methods: [GET, HEAD], paths: [/v1/accounts/*, /v1/rates/**]}
  - name: batch-settles
    from: [spiffe://prod.example/ns/batch/sa/*]
    except: [spiffe://prod.example/ns/batch/sa/sandbox]
    http: {port: 9443, methods: [POST], paths: [/payments.v1.Settlement/Submit]}
    source_net: [10.20.0.0/16]
  - name: metrics
    from: [spiffe://prod.example/ns/monitoring/sa/prometheus]
    tcp: {port: 9090}
deny:
  - name: admin-is-breakglass-only
    from: [anyone]
    except: [spiffe://prod.example/ns/ops/sa/breakglass]
    http: {port: 8443, paths: [/admin/**]}
tests:
  - {from: spiffe://prod.example/ns/shop/sa/checkout, http: GET 8443 /v1/rates/eur, expect: allow, by: checkout-reads}
  - {from: spiffe://prod.example/ns/shop/sa/checkout, http: POST 8443 /v1/rates/eur, expect: deny}
  - {from: unauthenticated, tcp: 9090, expect: deny}
"#;

#[test]
fn the_sample_of_the_manual_loads_and_passes_its_tests() {
    let set = compile(&[Source::new("payments.yaml", SAMPLE)]).map_err(|p| p.to_string()).unwrap();

    assert!(set.run_tests().passed());
    let api = SpiffeId::parse("spiffe://prod.example/ns/payments/sa/api").unwrap();
    let prometheus = SpiffeId::parse("spiffe://prod.example/ns/monitoring/sa/prometheus").unwrap();
    let connection = Connection {
        peer: PeerIdentity::Authenticated(&prometheus),
        source: "10.0.0.1".parse().unwrap(),
        port: 9090,
        now: SystemTime::now(),
    };
    assert!(set.for_workload(&api).decide_tcp(&connection).is_allowed());
}
