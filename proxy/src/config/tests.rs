use super::*;

const GOOD: &str = "vouchsafe: proxy/v1
identity: spiffe://prod.test/web
source: {workload_api: unix:///run/vouchsafe/agent.sock}
policies: /etc/vouchsafe/policies
inbound:
  - {name: api, listen: 0.0.0.0:8443, protocol: http, application: 127.0.0.1:8080}
outbound:
  - name: db
    listen: 127.0.0.1:5432
    protocol: tcp
    endpoints: [\"db.prod.test:8443\", \"[2001:db8::1]:8443\"]
    expect: [spiffe://prod.test/db]
admin: {listen: 127.0.0.1:15000}
audit: {file: /var/log/vouchsafe/audit.jsonl, rotate_size: 10MiB, rotate_age: 1h, keep: 3}
drain: 30s
limits: {connections: 100, header_size: 8KiB, header_timeout: 5s}
";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(&Text::new("proxy.yaml", text))
}

fn problem(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn a_whole_configuration_is_read_as_it_is_written() {
    let config = parse(GOOD).unwrap();

    assert_eq!(config.identity.unwrap().as_str(), "spiffe://prod.test/web");
    assert_eq!(
        config.source,
        IdentitySource::WorkloadApi(crate::workload_api::Endpoint::Unix("/run/vouchsafe/agent.sock".into()))
    );
    assert_eq!(config.inbound[0].application.to_string(), "127.0.0.1:8080");
    let Calls::Here(service) = &config.outbound[0].calls else { panic!("{:?}", config.outbound[0]) };
    assert_eq!(service.endpoints[1].address.to_string(), "[2001:db8::1]:8443");
    assert_eq!((config.audit.rotate_size, config.audit.keep), (10 * 1024 * 1024, 3));
    assert_eq!((config.limits.connections, config.limits.header_size), (100, 8192));
    assert_eq!(
        (config.limits.header_timeout, config.drain),
        (Duration::from_secs(5), Duration::from_secs(30))
    );
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = parse(
        "vouchsafe: proxy/v1\npolicies: p\ninbound:\n  - {name: a, listen: 0.0.0.0:1, protocol: tcp, application: 127.0.0.1:2}\n",
    )
    .unwrap();

    assert_eq!(
        (config.source, config.admin, config.limits),
        (IdentitySource::Environment, Admin::default(), Limits::default())
    );
    assert_eq!(config.audit.target, AuditTarget::Stdout);
}

#[test]
fn pem_files_and_federated_bundles_are_read() {
    let text = GOOD.replace(
        "source: {workload_api: unix:///run/vouchsafe/agent.sock}",
        "source: {pem: {certificate: a, key: b, bundle: c, federated: {other.test: d}}}",
    );

    let IdentitySource::Pem(files) = parse(&text).unwrap().source else { panic!() };

    assert_eq!((files.federated[0].0.as_str(), files.bundle), ("other.test", PathBuf::from("c")));
}

#[test]
fn each_mistake_is_named_at_its_place() {
    for (was, becomes, says) in [
        ("proxy/v1", "proxy/v2", "proxy.yaml:1:"),
        ("identity: ", "identiti: ", "identity"),
        ("spiffe://prod.test/web", "spiffe://PROD.test/web", "proxy.yaml:2:"),
        ("unix:///run", "unix://run", "absolute path"),
        ("{workload_api: unix:///run/vouchsafe/agent.sock}", "{}", "exactly one of"),
        ("0.0.0.0:8443", "8443", "0.0.0.0:8443"),
        ("protocol: http", "protocol: grpc", "proxy.yaml:6:"),
        ("application: 127.0.0.1:8080", "application: 10.0.0.1:8080", "not on loopback"),
        ("application: 127.0.0.1:8080", "application: 127.0.0.1:0", "needs a port"),
        ("application: 127.0.0.1:8080", "application: 127.0.0.1:5432", "is a listener of this proxy"),
        ("listen: 127.0.0.1:5432", "listen: 0.0.0.0:5432", "not on loopback"),
        ("db.prod.test:8443", "db.prod.test", "it has no port"),
        ("db.prod.test:8443", "d b:8443", "neither a name nor an address"),
        ("[spiffe://prod.test/db]", "[]", "the list is empty"),
        ("name: db", "name: api", "two listeners are named"),
        ("name: db", "name: \"d b\"", "a name has at most"),
        ("127.0.0.1:15000", "0.0.0.0:15000", "not on loopback"),
        ("127.0.0.1:15000", "127.0.0.1:5432", "and the admin interface listen on"),
        ("policies: /etc/vouchsafe/policies\n", "", "need \"policies\""),
        ("header_timeout: 5s", "header_timeout: 5", "proxy.yaml:"),
        ("header_timeout: 5s", "header_timeout: 0ms", "expected a time"),
        ("header_size: 8KiB", "header_size: 8MiB", "from 1KiB to 256KiB"),
        ("connections: 100", "connections: 0", "proxy.yaml:"),
        ("file: /var/log/vouchsafe/audit.jsonl,", "", "either \"file\" or"),
        ("{listen: 127.0.0.1:15000}", "{}", "expected \"listen\", \"socket\" or both"),
        ("/etc/vouchsafe/policies", "{local: /etc/p}", "from"),
        ("/etc/vouchsafe/policies", "{from: ca}", "agent"),
        ("/etc/vouchsafe/policies", "{from: agent, files: /etc/p}", "files"),
        ("drain: 30s", "istio: {namespace: Shop}", "lower-case"),
        ("drain: 30s", "istio: {labels: [app]}", "proxy.yaml:"),
        ("drain: 30s", "istio: {compat: waypoint}", "ambient"),
        ("drain: 30s", "istio: {path_normalization: BASE}", "merge_slashes"),
        ("drain: 30s", "istio: {allow_unselected: true}", "danger_allow_unselected"),
    ] {
        assert!(GOOD.contains(was), "{was}");
        let found = problem(&GOOD.replace(was, becomes));
        assert!(found.contains(says), "{becomes}: {found}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let found = problem(&GOOD.replace("protocol: http", "protocol: x").replace("drain: 30s", "drain: long"));

    assert!(found.contains("proxy.yaml:6:") && found.contains("long"), "{found}");
}

#[test]
fn a_configuration_without_listeners_is_refused() {
    assert!(problem("vouchsafe: proxy/v1\n").contains("neither an inbound nor an outbound"));
}

#[test]
fn an_empty_file_is_refused() {
    assert!(parse("").is_err());
}

#[test]
fn central_policies_come_from_an_agent_and_need_one() {
    let text = GOOD.replace("/etc/vouchsafe/policies", "{from: agent, local: /etc/p, state_dir: /var/lib/v}");

    let config = parse(&text).unwrap();

    let local = Some(PathBuf::from("/etc/p"));
    let state_dir = Some(PathBuf::from("/var/lib/v"));
    assert_eq!(config.policies, Some(PolicySource::Agent { local, state_dir }));
    let pem = text.replace(
        "{workload_api: unix:///run/vouchsafe/agent.sock}",
        "{pem: {certificate: a, key: b, bundle: c}}",
    );
    assert!(problem(&pem).contains("need an agent"));
}

#[test]
fn the_admin_interface_may_have_both_an_address_and_a_socket() {
    let config =
        parse(&GOOD.replace("{listen: 127.0.0.1:15000}", "{listen: 127.0.0.1:15000, socket: /run/a}"))
            .unwrap();

    assert_eq!(config.admin.listen.unwrap().port(), 15000);
    assert_eq!(config.admin.socket, Some(PathBuf::from("/run/a")));
}

#[test]
fn a_part_of_a_central_set_opens_no_workload_that_it_does_not_select() {
    let agent = GOOD.replace("/etc/vouchsafe/policies", "{from: agent}");

    let open = agent.replace("drain: 30s", "istio: {danger_allow_unselected: true}");

    assert!(parse(&agent).is_ok());
    assert!(problem(&open).contains("stand alone"));
}

#[test]
fn what_istio_files_presuppose_is_read_and_nothing_is_open_by_default() {
    let istio = "istio: {namespace: shop, labels: {app: web}, root_namespace: mesh, trust_domain: old.test, trust_domain_aliases: [older.test], path_normalization: merge_slashes, compat: ambient, danger_allow_unselected: true}";

    let default = parse(GOOD).unwrap().istio;
    let config = parse(&GOOD.replace("drain: 30s", istio)).unwrap().istio;

    let own = TrustDomain::parse("prod.test").unwrap();
    assert_eq!(default.mesh(&own).unselected, policy::Unselected::Deny);
    assert_eq!(default.mesh(&own).trust_domain, "prod.test");
    let mesh = config.mesh(&own);
    assert_eq!((mesh.trust_domain.as_str(), mesh.root_namespace.as_str()), ("old.test", "mesh"));
    assert_eq!(mesh.trust_domain_aliases, ["older.test"]);
    assert_eq!((mesh.compat, mesh.unselected), (policy::Compat::Ambient, policy::Unselected::Allow));
    assert_eq!(mesh.path_normalization, policy::PathNormalization::MergeSlashes);
}

#[test]
fn what_the_agent_vouches_for_counts_before_what_is_configured() {
    let text = GOOD.replace("drain: 30s", "istio: {namespace: shop, labels: {app: web, tier: front}}");
    let istio = parse(&text).unwrap().istio;
    let id = SpiffeId::parse("spiffe://prod.test/ns/a/sa/web").unwrap();
    let attested = policy::Workload {
        id: id.clone(),
        namespace: "real".to_owned(),
        labels: [("app".to_owned(), "api".to_owned())].into(),
    };
    let other =
        policy::Workload { id: SpiffeId::parse("spiffe://prod.test/other").unwrap(), ..attested.clone() };

    let workload = istio.workload(&id, Some(&attested));

    assert_eq!((workload.namespace.as_str(), workload.labels["app"].as_str()), ("real", "api"));
    assert_eq!(workload.labels["tier"], "front");
    assert_eq!(istio.workload(&id, Some(&other)).namespace, "shop");
    assert_eq!(Istio::default().workload(&id, None).namespace, "a");
}
