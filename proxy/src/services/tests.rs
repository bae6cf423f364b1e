//! Who is called where, as services come and go.

mod dns;
mod files;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::SpiffeId;
use policy::strict::Source;

use super::*;
use crate::{
    activity::Waiting,
    balance::NoEndpoint,
    live::{Entry, Key, Live, Registered, Registry, Role},
};

/// The services of a configuration, with an outbound listener so that it is one.
fn services(text: &str) -> Services {
    Services::new(&config(text).unwrap_or_else(|problems| panic!("{problems}")))
}

fn config(text: &str) -> Result<Config, policy::strict::Problems> {
    let text = format!(
        "vouchsafe: proxy/v1\noutbound:\n  - {{name: door, listen: 127.0.0.1:1, protocol: tcp, \
         endpoints: [192.0.2.1:1], expect: [spiffe://prod.test/door]}}\n{text}"
    );
    Config::parse(&Source::new("proxy.yaml", text))
}

fn service(name: &str, rest: &str) -> String {
    format!("  - {{name: {name}, protocol: tcp, expect: [spiffe://prod.test/{name}], {rest}}}\n")
}

/// What a directory or an agent names.
fn set(services: &Services, origin: Origin, text: &str) -> Set {
    let text = format!("vouchsafe: services/v1\nservices:\n{text}");
    let domain = identity::TrustDomain::parse("prod.test").unwrap();
    let entries = policy::service::parse(&[Source::new("a.yaml", text)], &domain).unwrap();
    let described: Vec<Described> = entries
        .into_iter()
        .filter_map(|entry| match entry {
            policy::service::Entry::Service(service) => Some(*service),
            policy::service::Entry::Sidecar(_) => None,
        })
        .collect();
    services.set(origin, &described.iter().collect::<Vec<_>>())
}

fn endpoints(services: &Services, name: &str) -> Vec<String> {
    let service = services.named(name).unwrap();
    service.views(Instant::now()).iter().map(|view| view.member.address.to_string()).collect()
}

fn found(services: &Services, address: &str) -> Option<String> {
    services.find(address.parse().unwrap()).map(|service| service.name().to_string())
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A connection to an endpoint, as the dialler registers it.
fn connect(
    service: &Arc<Service>,
    registry: &Registry,
    address: &str,
    peer: &str,
) -> (Arc<Live>, Listed, Registered) {
    let key = Key::new(Role::Outbound, Some(SpiffeId::parse(peer).unwrap()), None, 1);
    let entry = Entry { key, proof: None, opened: SystemTime::now(), waiting: Waiting::Relay };
    let registered = registry.register(entry);
    let listed = service.list(address.parse().unwrap(), registered.live());
    (Arc::clone(registered.live()), listed, registered)
}

#[test]
fn a_service_is_found_by_its_addresses_on_its_ports() {
    let services = services(&format!(
        "services:\n{}{}",
        service(
            "shop",
            "hosts: [shop.test, 10.0.0.7, '2001:db8::7'], ports: [80, 8080], endpoints: [{address: '10.1.0.1:8443'}]"
        ),
        service("db", "hosts: [db.test], ports: [5432], endpoints: [{address: '10.1.0.2:8443'}]"),
    ));

    for address in ["10.0.0.7:80", "10.0.0.7:8080", "[2001:db8::7]:80", "[::ffff:10.0.0.7]:80"] {
        assert_eq!(found(&services, address).as_deref(), Some("shop"), "{address}");
    }
    for address in ["10.0.0.7:81", "10.0.0.8:80", "10.1.0.1:8443"] {
        assert_eq!(found(&services, address), None, "{address}");
    }
}

#[test]
fn the_file_counts_before_the_directory_and_that_before_the_agent() {
    let services =
        services(&format!("services:\n{}", service("a", "ports: [1], endpoints: [{address: '10.0.0.1:1'}]")));
    let one = |name, address| service(name, &format!("ports: [1], endpoints: [{{address: '{address}'}}]"));
    let now = Instant::now();

    let agent = set(
        &services,
        Origin::Agent,
        &(one("a", "10.0.0.3:1") + &one("b", "10.0.0.3:2") + &one("c", "10.0.0.3:3")),
    );
    services.put(Origin::Agent, agent, now);
    let directory = set(&services, Origin::Directory, &(one("a", "10.0.0.2:1") + &one("b", "10.0.0.2:2")));
    services.put(Origin::Directory, directory, now);

    assert_eq!(endpoints(&services, "a"), ["10.0.0.1:1"]);
    assert_eq!(endpoints(&services, "b"), ["10.0.0.2:2"]);
    assert_eq!(endpoints(&services, "c"), ["10.0.0.3:3"]);
    assert_eq!(endpoints(&services, "door"), ["192.0.2.1:1"]);
    services.put(Origin::Directory, Set::default(), now);
    assert_eq!(endpoints(&services, "b"), ["10.0.0.3:2"]);
}

#[test]
fn contradictions_of_one_file_are_refused() {
    let twice = service("a", "ports: [1]") + &service("a", "ports: [2]");
    let door = service("door", "ports: [1]");
    let claimed =
        service("a", "hosts: [10.0.0.1], ports: [1, 2]") + &service("b", "hosts: [10.0.0.1], ports: [2, 3]");

    for (text, flaw) in [(twice, "two services"), (door, "two services are named"), (claimed, "10.0.0.1:2")] {
        let problems = config(&format!("services:\n{text}")).unwrap_err().to_string();
        assert!(problems.contains(flaw), "{problems}");
    }
    for (more, flaw) in [
        ("services_from: spire\n", "agent"),
        ("locality: eu//a\n", "locality"),
        ("dns: {servers: []}\n", "empty"),
        (
            "services:\n  - {name: a, ports: [1], protocol: tcp, expect: [spiffe://a/b], visible_to: [spiffe://a/b]}\n",
            "visible_to",
        ),
    ] {
        let problems = config(more).unwrap_err().to_string();
        assert!(problems.contains(flaw), "{problems}");
    }
}

#[test]
fn a_listener_for_a_service_that_nobody_can_name_is_refused() {
    let listener = "  - {name: other, listen: 127.0.0.1:2, service: shop}\n";
    let at = |more: &str| {
        let text = format!("vouchsafe: proxy/v1\noutbound:\n{listener}{more}");
        Config::parse(&Source::new("proxy.yaml", text))
    };

    assert!(at("").unwrap_err().to_string().contains("there is no service \"shop\""));
    assert!(at("services_dir: /etc/services\n").is_ok());
    assert!(at("services_from: agent\n").is_ok());
    assert!(at(&format!("services:\n{}", service("shop", "ports: [1]"))).is_ok());
}

#[test]
fn names_become_endpoints_once_they_are_resolved_and_the_last_answer_stays() {
    let rest = "hosts: [shop.test], ports: [80], endpoints: [{address: 'a.test:8443', weight: 3}, {address: '10.9.9.9:1'}]";
    let services = services(&format!("services:\n{}", service("shop", rest)));
    let (now, name): (_, Arc<str>) = (Instant::now(), Arc::from("a.test"));
    assert_eq!(services.names(), [Arc::clone(&name)]);
    assert_eq!(endpoints(&services, "shop"), ["10.9.9.9:1"]);

    services.resolved(&name, addresses(&["10.0.0.1", "2001:db8::1"]), now);

    assert_eq!(endpoints(&services, "shop"), ["10.0.0.1:8443", "[2001:db8::1]:8443", "10.9.9.9:1"]);
    // Another set of services keeps what is known of names.
    services.put(Origin::Agent, Set::default(), now);
    assert_eq!(endpoints(&services, "shop").len(), 3);
}

#[test]
fn intercepted_calls_are_known_by_the_addresses_of_hosts() {
    let one = |name: &str| service(name, &format!("hosts: [{name}.test], ports: [80]"));
    let three = service("three", "hosts: [10.0.0.3], ports: [80]");
    let services = services(&format!("services:\n{}{}{three}", one("one"), one("two")));
    assert_eq!(services.names(), []);
    services.look_up_hosts();
    assert_eq!(services.names().len(), 2);
    let now = Instant::now();

    services.resolved(&Arc::from("one.test"), addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), now);
    services.resolved(&Arc::from("two.test"), addresses(&["10.0.0.2"]), now);

    assert_eq!(found(&services, "10.0.0.1:80").as_deref(), Some("one"));
    // Two claim it by DNS: it leads to neither. What is written counts before what DNS says.
    assert_eq!(found(&services, "10.0.0.2:80"), None);
    assert_eq!(found(&services, "10.0.0.3:80").as_deref(), Some("three"));
}

#[test]
fn a_change_ends_only_connections_that_lead_to_nobody_the_service_names() {
    let services = services("services_from: agent\n");
    let (now, registry) = (Instant::now(), Registry::default());
    let text = |expect: &str, endpoints: &str| {
        format!(
            "  - {{name: shop, ports: [80], protocol: tcp, expect: [{expect}], endpoints: [{endpoints}]}}\n"
        )
    };
    let (a, b) = ("{address: '10.0.0.1:1'}", "{address: '10.0.0.2:1'}");
    let (blue, green) = ("spiffe://prod.test/blue", "spiffe://prod.test/green");
    let put = |expect: &str, endpoints: &str| {
        services.put(Origin::Agent, set(&services, Origin::Agent, &text(expect, endpoints)), now);
    };
    put(&format!("{blue}, {green}"), &format!("{a}, {b}"));
    let service = services.named("shop").unwrap();
    let [stays, leaves, other] = [("10.0.0.1:1", blue), ("10.0.0.2:1", blue), ("10.0.0.1:1", green)]
        .map(|(address, peer)| connect(&service, &registry, address, peer));
    let state = |(live, ..): &(Arc<Live>, Listed, Registered)| (live.is_retired(), live.is_cut());

    put(&format!("{blue}, {green}"), a);
    assert_eq!([&stays, &leaves, &other].map(state), [(false, false), (true, false), (false, false)]);
    put(blue, a);
    assert_eq!([&stays, &other].map(state), [(false, false), (false, true)]);
    // A connection that was being made meanwhile meets the same.
    assert_eq!(state(&connect(&service, &registry, "10.0.0.1:1", green)), (false, true));
    assert_eq!(state(&connect(&service, &registry, "10.0.0.2:1", blue)), (true, false));
    assert!(Arc::ptr_eq(&service, &services.named("shop").unwrap()));

    services.put(Origin::Agent, Set::default(), now);
    assert_eq!(state(&stays), (true, false));
    assert!(services.named("shop").is_none());
}

#[test]
fn a_service_without_endpoints_has_nobody_to_call() {
    let services = services(&format!("services:\n{}", service("shop", "ports: [80]")));

    let mut call = Call::connection(&services.named("shop").unwrap(), None);

    assert_eq!(call.next().unwrap_err(), CallError::NoEndpoint(NoEndpoint::None));
}

#[test]
fn breakers_count_what_is_under_way_and_let_go_of_what_ended() {
    let rest = "ports: [80], endpoints: [{address: '10.0.0.1:1'}], breakers: {requests: 2, connections: 1}";
    let services = services(&format!("services:\n{}", service("shop", rest)));
    let shop = services.named("shop").unwrap();
    let request = || Call::request(&shop, None, |_| None);

    let (first, second) = (request().unwrap(), request().unwrap());
    assert_eq!(request().unwrap_err(), CallError::Overloaded(crate::balance::Load::Request));
    drop(first);
    let third = request();

    assert!(third.is_ok());
    let room = Room::take(&shop, crate::balance::Load::Connection);
    assert!(room.is_ok() && Room::take(&shop, crate::balance::Load::Connection).is_err());
    drop(room);
    assert!(Room::take(&shop, crate::balance::Load::Connection).is_ok());
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_tried_again_elsewhere_as_often_and_as_long_as_it_may() {
    let all: Vec<String> = (1..=9).map(|number| format!("{{address: '10.0.0.{number}:1'}}")).collect();
    let rest = |more: &str| format!("ports: [80], endpoints: [{}], {more}", all.join(", "));
    let text = service("often", &rest("retries: {attempts: 3}"))
        + &service("never", &rest("retries: {attempts: 0}"))
        + &service("poor", &rest("retries: {attempts: 5, ratio: 0, per_second: 0}"));
    let services = services(&format!("services:\n{text}"));
    let tries = async |name: &str| {
        let mut call = Call::connection(&services.named(name).unwrap(), None);
        let mut tried = vec![call.next().unwrap().address()];
        while call.retry().await {
            tried.push(call.next().unwrap().address());
        }
        tried.sort_unstable();
        tried.dedup();
        tried.len()
    };

    assert_eq!((tries("often").await, tries("never").await, tries("poor").await), (4, 1, 1));
}

#[test]
fn each_try_leaves_time_for_those_after_it() {
    let all =
        "{address: '10.0.0.1:1'}, {address: '10.0.0.2:1'}, {address: '10.0.0.3:1'}, {address: '10.0.0.4:1'}";
    let text = service("shared", &format!("ports: [80], endpoints: [{all}]"))
        + &service("each", &format!("ports: [80], endpoints: [{all}], timeouts: {{connect: 300ms}}"))
        + &service("single", "ports: [80], endpoints: [{address: '10.0.0.1:1'}]");
    let services = services(&format!("services:\n{text}"));
    let limits = |name: &str| {
        let mut call = Call::connection(&services.named(name).unwrap(), None);
        let _held = call.next();
        call.connect_limits(Duration::from_secs(10))
    };

    // Five seconds, for this try and two further ones.
    let (first, handshake) = limits("shared");
    assert!(first > Duration::from_millis(1_500) && first < Duration::from_millis(1_700), "{first:?}");
    assert_eq!(handshake, Some(Duration::from_secs(10)));
    assert_eq!(limits("each"), (Duration::from_millis(300), None));
    assert!(limits("single").0 > Duration::from_millis(4_500));
}

#[test]
fn calls_with_the_same_header_go_to_the_same_endpoint() {
    let all: Vec<String> = (1..=9).map(|number| format!("{{address: '10.0.0.{number}:1'}}")).collect();
    let rest = format!(
        "ports: [80], endpoints: [{}], balance: {{method: ring_hash, header: X-User}}",
        all.join(", ")
    );
    let services = services(&format!("services:\n{}", service("shop", &rest)));
    let shop = services.named("shop").unwrap();
    let called = |user: &'static str, from: &str| {
        let header = |name: &str| (name == "x-user" && !user.is_empty()).then_some(user.as_bytes());
        let mut call = Call::request(&shop, Some(from.parse().unwrap()), header).unwrap();
        call.next().unwrap().address()
    };

    let users = ["alice", "bob", "carol", "dave", "erin", "frank"];
    let spread: std::collections::BTreeSet<SocketAddr> =
        users.iter().map(|user| called(user, "127.0.0.1")).collect();
    assert!(spread.len() > 2, "{spread:?}");
    for user in users {
        assert_eq!(called(user, "127.0.0.1"), called(user, "127.0.0.2"));
    }
    // Without the header the source counts.
    assert_eq!(called("", "127.0.0.1"), called("", "127.0.0.1"));
}

#[test]
fn what_happens_is_counted_by_service_and_cause() {
    let rest =
        "ports: [80], endpoints: [{address: '10.0.0.1:1'}, {address: '10.0.0.2:1'}], breakers: {requests: 1}";
    let services = Arc::new(services(&format!("services:\n{}", service("shop", rest))));
    let shop = services.named("shop").unwrap();
    let mut call = Call::request(&shop, None, |_| None).unwrap();
    let held = call.next().unwrap();
    let _refused = Call::request(&shop, None, |_| None);
    for _ in 0..5 {
        held.failed();
    }

    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(Counted(Arc::clone(&services))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();

    for line in [
        "service_events_total{service=\"shop\",event=\"ejection\",cause=\"failures\"} 1",
        "service_events_total{service=\"shop\",event=\"overload\",cause=\"requests\"} 1",
        "service_endpoints{service=\"shop\",state=\"ejected\"} 1",
        "service_endpoints{service=\"shop\",state=\"in\"} 1",
        "service_under_way{service=\"shop\",load=\"requests\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}
