use super::*;
use crate::testing::{Authority, DOMAIN, SHOP, WEB};

fn message(authority: &Authority, id: &str) -> X509svid {
    let svid = authority.svid(id);
    X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: svid.chain_der(),
        x509_svid_key: svid.key().pkcs8_der().to_vec(),
        bundle: authority.bundle(DOMAIN).authorities_der(),
        hint: String::new(),
    }
}

fn response(svids: Vec<X509svid>) -> X509svidResponse {
    X509svidResponse { svids, ..X509svidResponse::default() }
}

#[test]
fn a_whole_answer_is_read_with_its_federated_bundles() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let mut answer = response(vec![message(&authority, WEB), message(&authority, SHOP)]);
    answer
        .federated_bundles
        .insert("spiffe://other.test".into(), other.bundle("other.test").authorities_der());

    let update = update(answer).unwrap();

    assert_eq!(update.svids.len(), 2);
    assert!(update.bundles.get("prod.test").is_some() && update.bundles.get("other.test").is_some());
    assert_eq!(update.choose(Some(update.svids[1].id())).unwrap().id().as_str(), SHOP);
    let found = update.svids.iter().map(|svid| svid.id().clone()).collect();
    assert_eq!(update.choose(None).unwrap_err(), ChooseError::Ambiguous { found });
}

#[test]
fn of_two_svids_with_one_hint_the_first_counts() {
    let authority = Authority::new("a");
    let hinted = |id| X509svid { hint: "internal".into(), ..message(&authority, id) };

    let update = update(response(vec![hinted(WEB), hinted(SHOP)])).unwrap();

    assert_eq!(update.choose(None).unwrap().id().as_str(), WEB);
}

#[test]
fn an_answer_with_any_part_that_cannot_be_read_is_no_answer() {
    let authority = Authority::new("a");
    let good = || message(&authority, WEB);
    let flawed = [
        X509svid { spiffe_id: SHOP.into(), ..good() },
        X509svid { spiffe_id: "web".into(), ..good() },
        X509svid { x509_svid: vec![1, 2, 3], ..good() },
        X509svid { x509_svid_key: message(&authority, WEB).x509_svid_key, ..good() },
        X509svid { x509_svid_key: Vec::new(), ..good() },
        X509svid { bundle: vec![0x30], ..good() },
    ];

    assert!(matches!(update(response(Vec::new())), Err(WorkloadApiError::Empty)));
    for flawed in flawed {
        assert!(update(response(vec![good(), flawed.clone()])).is_err(), "{}", flawed.spiffe_id);
    }
    let mut foreign = response(vec![good()]);
    foreign.federated_bundles.insert("other.test".into(), Vec::new());
    assert!(matches!(update(foreign), Err(WorkloadApiError::Id { .. })));
}

#[test]
fn endpoints_are_read_as_the_standard_writes_them() {
    for (text, shown) in [
        ("unix:///run/agent.sock", "unix:///run/agent.sock"),
        ("unix:/run/agent.sock", "unix:///run/agent.sock"),
        ("tcp://127.0.0.1:8000", "tcp://127.0.0.1:8000"),
        ("tcp://[::1]:8000", "tcp://[::1]:8000"),
    ] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "/run/agent.sock",
        "unix://host/run",
        "unix://",
        "unix:///a?b",
        "unix:///a#b",
        "tcp://localhost:80",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:1/x",
        "http://127.0.0.1:1",
    ] {
        assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
    }
}

#[test]
fn only_permission_denied_withdraws() {
    for (status, withdraws) in [
        (Status::permission_denied("no identity issued"), true),
        (Status::unavailable(""), false),
        (Status::invalid_argument(""), false),
        (Status::cancelled(""), false),
    ] {
        assert_eq!(WorkloadApiError::from_status(status.clone()).withdraws(), withdraws, "{status}");
    }
}

#[tokio::test]
async fn a_socket_where_nobody_listens_is_unreachable_by_its_name() {
    let endpoint: Endpoint = "unix:///nowhere/agent.sock".parse().unwrap();

    let error = Client::connect(&endpoint).await.unwrap_err();

    assert_eq!(error.to_string(), "cannot reach the workload API at unix:///nowhere/agent.sock");
}
