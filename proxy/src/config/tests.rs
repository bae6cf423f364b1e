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
    assert_eq!(config.outbound[0].endpoints[1].to_string(), "[2001:db8::1]:8443");
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
        (IdentitySource::Environment, None, Limits::default())
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
