//! What a decision costs by the number of policies that protect the workload. `cargo bench -p policy` tells more.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use anyhow::bail;
use identity::SpiffeId;
use policy::strict::Source;
use policy::{AtConnect, CanonicalPath, Connection, PeerIdentity, Request, compile};

use crate::report::Row;

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in [10, 1_000, 10_000] {
        let (connect, request) = decide(count)?;
        let measured = format!("{connect} ns a TCP connection, {request} ns an HTTP request");
        rows.push(Row::new(format!("policy decision, {count} policies"), "", measured));
    }
    Ok(rows)
}

/// The median time of a decision on a connection and on a request, in nanoseconds; both are allowed.
fn decide(count: usize) -> anyhow::Result<(u128, u128)> {
    let files: Vec<Source> = (0..count).map(policy).collect();
    let policies = compile(&files)?.for_workload(&SpiffeId::parse(API)?);
    let peer = SpiffeId::parse(&caller(count / 2))?;
    let now = SystemTime::UNIX_EPOCH;
    let source = IpAddr::from([10, 1, 2, 3]);
    let connection = |port| Connection::new(PeerIdentity::Authenticated(&peer), source, port, now);
    let AtConnect::Residual(residual) = policies.at_connect(&connection(8443)) else {
        bail!("the policies refuse the connection");
    };
    let path = CanonicalPath::parse(&format!("/v1/tenant-{}/x", count / 2))?;
    let request = Request::new("GET", None, &path);
    let connect = median(|| drop(black_box(policies.decide_tcp(black_box(&connection(9090))))));
    let request = median(|| drop(black_box(residual.decide(black_box(&request), now))));
    Ok((connect, request))
}

/// The median of many rounds of many calls, in nanoseconds a call.
fn median(call: impl Fn()) -> u128 {
    let round = || {
        let began = Instant::now();
        (0..CALLS).for_each(|_| call());
        began.elapsed().as_nanos() / u128::from(CALLS)
    };
    let mut rounds: Vec<u128> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_unstable();
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

/// Two rules a policy, for a caller of its own.
fn policy(number: usize) -> Source {
    let caller = caller(number);
    let text = format!(
        "vouchsafe: policy/v1\nname: p{number}\nprotects: {API}\nallow:\n\
         - {{name: tcp, from: [{caller}], tcp: {{port: 9090}}}}\n\
         - {{name: http, from: [{caller}], http: {{port: 8443, methods: [GET], paths: [/v1/tenant-{number}/**]}}}}\n"
    );
    Source::new(format!("p{number}.yaml"), text)
}

fn caller(number: usize) -> String {
    format!("spiffe://prod.example/ns/shop/sa/client-{number}")
}

const API: &str = "spiffe://prod.example/ns/payments/sa/api";
const CALLS: u32 = 2_000;
const ROUNDS: usize = 101;
