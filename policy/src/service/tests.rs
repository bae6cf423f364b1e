//! What services files may say, where each flaw is found, and that the canonical form says the same.

use identity::SpiffeId;
use proptest::prelude::*;

use super::*;

const FILE: &str = r#"vouchsafe: services/v1
services:
  - name: shop
    hosts: [Shop.internal, 10.96.0.10]
    ports: [80, 8080]
    protocol: http
    expect: [spiffe://prod.test/shop]
    endpoints:
      - {address: "10.0.0.1:8443", weight: 3, locality: eu/a, tunnel: true}
      - {address: "[2001:db8::1]:8443"}
    balance: {method: ring_hash, header: X-User}
    timeouts: {connect: 250ms, request: 15s}
    retries: {attempts: 3, on_unavailable: true, ratio: 20, per_second: 5, base: 10ms, longest: 1s}
    ejection: {failures: 3, success_rate: 60, calls: 10, base: 5s, longest: 60s, share: 30}
    breakers: {connections: 100, pending: 10, requests: 1000}
    health: {probe: http, path: /healthz, every: 5s, timeout: 1s, unhealthy: 2, healthy: 1}
    visible_to: [spiffe://prod.test/web/**]
sidecars:
  - name: shop
    applies_to: [spiffe://prod.test/shop]
    inbound: [{port: 8443, protocol: http}, {port: 5432, protocol: tcp}]
"#;

#[test]
fn a_file_says_everything_about_a_service_and_its_sidecar() {
    let entries = read(FILE).unwrap();

    let [Entry::Service(shop), Entry::Sidecar(sidecar)] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(
        (shop.hosts.as_slice(), shop.ports.as_slice()),
        (&["shop.internal".to_owned(), "10.96.0.10".to_owned()][..], &[80, 8080][..])
    );
    assert_eq!((shop.endpoints[0].weight, shop.endpoints[0].tunnel), (3, true));
    assert_eq!((shop.endpoints[1].weight, shop.endpoints[1].tunnel), (1, false));
    assert_eq!((shop.endpoints[1].address.host(), shop.endpoints[1].address.port()), ("2001:db8::1", 8443));
    assert_eq!(shop.balance.header.as_deref(), Some("x-user"));
    assert_eq!(shop.timeouts.connect, Some(Duration::from_millis(250)));
    assert_eq!(sidecar.inbound[1], Inbound { port: 5432, protocol: Protocol::Tcp });
}

#[test]
fn the_canonical_form_and_the_printed_file_say_the_same() {
    for entry in read(FILE).unwrap() {
        assert_eq!(super::entry(&Source::new("entry", entry.document())).unwrap(), entry);
        assert_eq!(read(&print(&entry)).unwrap(), vec![entry]);
    }
}

#[test]
fn the_file_in_the_manual_is_one() {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, file) = manual.split_once("```yaml\nvouchsafe: services/v1\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let domain = TrustDomain::parse("prod.example").unwrap();

    let entries =
        parse(&[Source::new("manual", format!("vouchsafe: services/v1\n{file}"))], &domain).unwrap();

    assert_eq!(entries.len(), 2);
}

#[test]
fn a_service_that_names_nobody_is_for_the_whole_trust_domain_and_for_nobody_outside() {
    let entries = read(&FILE.replace("    visible_to: [spiffe://prod.test/web/**]\n", "")).unwrap();

    let audience = audience(&Source::new("entry", entries[0].document()));

    assert!(audience.includes(&id("spiffe://prod.test/anybody/at/all")));
    assert!(!audience.includes(&id("spiffe://partner.test/web")));
}

#[test]
fn an_entry_is_for_those_it_names_and_a_broken_one_for_nobody() {
    let entries = read(FILE).unwrap();
    let shop = audience(&Source::new("entry", entries[0].document()));
    let sidecar = audience(&Source::new("entry", entries[1].document()));
    let broken = audience(&Source::new("entry", "vouchsafe: services/v1\nservices: 7\n"));

    assert!(
        shop.includes(&id("spiffe://prod.test/web/front")) && !shop.includes(&id("spiffe://prod.test/shop"))
    );
    assert!(
        sidecar.includes(&id("spiffe://prod.test/shop"))
            && !sidecar.includes(&id("spiffe://prod.test/web/front"))
    );
    assert!(!broken.includes(&id("spiffe://prod.test/shop")));
}

#[test]
fn an_ipv6_address_is_one_host_however_it_is_written() {
    let hosts = |written: &str| match read(&FILE.replace("10.96.0.10", written)).unwrap().remove(0) {
        Entry::Service(shop) => shop.hosts,
        Entry::Sidecar(_) => Vec::new(),
    };

    for written in ["'2001:db8::7'", "'[2001:db8::7]'", "'2001:0DB8:0::7'"] {
        assert_eq!(hosts(written)[1], "[2001:db8::7]", "{written}");
    }
    assert_eq!(hosts("'::ffff:10.96.0.10'")[1], "10.96.0.10");
}

#[test]
fn each_flaw_is_found_at_its_place() {
    for (from, to, place, said) in [
        ("name: shop\n    hosts", "name: Shop!\n    hosts", "3:11", "expected a name"),
        ("[Shop.internal, 10.96.0.10]", "[\"shop:80\"]", "4:13", "a host has no port"),
        ("[Shop.internal, 10.96.0.10]", "[a, a]", "3:5", "the host a stands here twice"),
        ("[80, 8080]", "[0]", "5:13", "a whole number from 1 to 65535"),
        ("[80, 8080]", "[]", "5:12", "the list is empty"),
        (
            "protocol: http\n    expect",
            "protocol: http2\n    expect",
            "6:15",
            "expected one of tcp, http, auto",
        ),
        ("[spiffe://prod.test/shop]\n    endpoints", "[prod.test/shop]\n    endpoints", "7:14", "SPIFFE ID"),
        ("\"10.0.0.1:8443\", weight", "\"10.0.0.1\", weight", "9:19", "no port"),
        ("weight: 3", "weight: 0", "9:44", "a whole number from 1 to 1000"),
        ("eu/a", "eu//a", "9:57", "no place"),
        ("tunnel: true", "tunnel: yes", "9:71", "expected true or false"),
        ("[2001:db8::1]:8443", "10.0.0.1:8443", "9:7", "the address 10.0.0.1:8443 stands here twice"),
        ("method: ring_hash", "method: round_robin", "11:44", "only ring_hash looks at a header"),
        ("connect: 250ms", "connect: 0s", "12:25", "expected a time"),
        ("longest: 1s", "longest: 5ms", "13:14", "longer than"),
        ("success_rate: 60", "success_rate: 101", "14:43", "from 0 to 100"),
        ("requests: 1000", "request: 1000", "15:47", "did you mean \"requests\"?"),
        ("path: /healthz", "path: healthz", "16:33", "it is not a path"),
        ("spiffe://prod.test/web/**", "spiffe://partner.test/**", "17:18", "handed nothing"),
        (
            "{port: 5432, protocol: tcp}",
            "{port: 8443, protocol: tcp}",
            "19:5",
            "the port 8443 stands here twice",
        ),
    ] {
        assert!(FILE.contains(from), "{from}");
        let flawed = FILE.replacen(from, to, 1);

        let problems = read(&flawed).unwrap_err().to_string();

        assert!(problems.contains(&format!("shop.yaml:{place}:")), "{to}: {problems}");
        assert!(problems.contains(said), "{to}: {problems}");
    }
}

#[test]
fn all_flaws_of_all_files_are_told_at_once() {
    let one = Source::new(
        "a.yaml",
        FILE.replace("protocol: tcp", "protocol: udp").replace("weight: 3", "weight: x"),
    );
    let two = Source::new("b.yaml", "vouchsafe: services/v2\nservices: []\n");

    let problems = parse(&[one, two], &domain()).unwrap_err();

    assert_eq!(problems.count(), 4, "{problems}");
}

#[test]
fn a_file_without_entries_and_one_of_another_kind_are_refused() {
    for text in
        ["vouchsafe: services/v1\n", "vouchsafe: policy/v1\nservices: []\n", "services: []\n", "[]", ""]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn what_does_not_go_together_is_found_at_the_later_place() {
    let shop = |name: &str, host: &str, port: u16, seen: &str| {
        format!(
            "  - {{name: {name}, hosts: [{host}], ports: [{port}], protocol: tcp, expect: [spiffe://prod.test/x], visible_to: [{seen}]}}\n"
        )
    };
    let all = "spiffe://prod.test/**";
    for (a, b, fits) in [
        (shop("a", "db", 1, all), shop("a", "other", 2, all), false),
        (shop("a", "db", 1, all), shop("b", "db", 1, all), false),
        (shop("a", "db", 1, all), shop("b", "DB.", 1, "spiffe://prod.test/b"), false),
        (shop("a", "db", 1, "spiffe://prod.test/*/x"), shop("b", "db", 1, "spiffe://prod.test/b/*"), false),
        (shop("a", "db", 1, all), shop("b", "db", 2, all), true),
        (shop("a", "db", 1, "spiffe://prod.test/a"), shop("b", "db", 1, "spiffe://prod.test/b"), true),
        (shop("a", "db", 1, "spiffe://prod.test/a/*"), shop("b", "db", 1, "spiffe://prod.test/a"), true),
    ] {
        let text = format!("vouchsafe: services/v1\nservices:\n{a}{b}");

        let outcome = read(&text);

        assert_eq!(outcome.is_ok(), fits, "{text}{outcome:?}");
        if let Err(problems) = outcome {
            assert!(problems.to_string().contains("shop.yaml:4:5:"), "{problems}");
        }
    }
}

#[test]
fn a_port_of_one_workload_is_served_in_one_way() {
    let text = FILE.replace(
        "sidecars:\n",
        "sidecars:\n  - {name: all, applies_to: [spiffe://prod.test/*], inbound: [{port: 5432, protocol: auto}]}\n",
    );

    let problems = read(&text).unwrap_err().to_string();

    assert!(problems.contains("port 5432 is served as the sidecar \"all\" says"), "{problems}");
}

#[test]
fn the_limits_hold() {
    let many = |count: usize| {
        let (before, rest) = FILE.split_once("endpoints:\n").unwrap();
        let (_, after) = rest.split_once("    balance").unwrap();
        let endpoint = |at| format!("{{address: \"10.0.{}.{}:1\"}}", at / 250, at % 250);
        let endpoints: Vec<String> = (0..count).map(endpoint).collect();
        format!("{before}endpoints: [{}]\n    balance{after}", endpoints.join(", "))
    };
    let long =
        FILE.replace("name: shop\n    hosts", &format!("name: {}\n    hosts", "a".repeat(MAX_NAME + 1)));

    assert!(read(&many(MAX_ENDPOINTS)).is_ok());
    assert!(read(&many(MAX_ENDPOINTS + 1)).unwrap_err().to_string().contains("at most 1000"));
    assert!(read(&long).unwrap_err().to_string().contains("1 to 128"));
}

#[test]
fn the_canonical_form_holds_one_entry_that_says_who_may_see_it() {
    let hidden = FILE.replace("    visible_to: [spiffe://prod.test/web/**]\n", "");
    for text in [FILE, &hidden[..hidden.find("sidecars").unwrap()]] {
        assert!(super::entry(&Source::new("entry", text)).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_is_read_in_two_ways(text in "\\PC{0,80}") {
        if let Ok(entry) = super::entry(&Source::new("entry", text)) {
            prop_assert_eq!(super::entry(&Source::new("entry", entry.document())).unwrap(), entry);
        }
    }

    #[test]
    fn times_and_numbers_survive_the_canonical_form(time in 1u64..86_400_000, number in 1u64..1_000_000, weight in 1u32..=MAX_WEIGHT) {
        let text = FILE
            .replace("connect: 250ms", &format!("connect: {time}ms"))
            .replace("connections: 100", &format!("connections: {number}"))
            .replace("weight: 3", &format!("weight: {weight}"));

        let entry = read(&text).unwrap().remove(0);

        prop_assert_eq!(super::entry(&Source::new("entry", entry.document())).unwrap(), entry);
    }
}

fn read(text: &str) -> Result<Vec<Entry>, Problems> {
    parse(&[Source::new("shop.yaml", text)], &domain())
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}
