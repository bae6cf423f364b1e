use policy::strict::Source;

use super::*;

fn config(section: &str) -> Result<Config, String> {
    let text = format!("vouchsafe: proxy/v1\npolicies: p\naudit: {{stdout: true}}\n{section}\n");
    Config::parse(&Source::new("proxy.yaml", text)).map_err(|problems| problems.to_string())
}

fn transparent(section: &str) -> Result<Transparent, String> {
    config(&format!("transparent: {section}")).map(|config| config.transparent.unwrap())
}

#[test]
fn both_directions_are_captured_whole_unless_told_otherwise() {
    let read = transparent("{inbound: {}, outbound: {}}").unwrap();

    let called = read.inbound.as_ref().unwrap();
    let calling = read.outbound.as_ref().unwrap();
    assert_eq!(called.listen.to_string(), "[::]:15006");
    assert_eq!(called.capture, Capture::All);
    assert_eq!(
        calling.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:15001", "[::1]:15001"]
    );
    assert_eq!((&calling.who, &calling.udp), (&Who::Everyone, &Udp::Drop));
    assert_eq!(
        (read.mode, read.own, read.outbound_unknown),
        (Mode::Redirect, Own::Mark(Mark::DEFAULT), Unknown::Deny)
    );
}

#[test]
fn everything_that_can_be_said_is_read() {
    let read = transparent(
        "\n  mode: tproxy\n  mark: 0x53a\n  outbound_unknown: danger_passthrough\n  inbound:\n    listen: \"[::]:16006\"\n    \
         capture: listed\n    ports: [{port: 8080, protocol: http}, {port: 5432, name: db, protocol: tcp}]\n    \
         danger_open_ports: [15021]\n    danger_open_udp_ports: [5353]\n  outbound:\n    \
         listen: [\"127.0.0.1:16001\", \"[::1]:16001\"]\n    capture: {cgroup: system.slice/api.service}\n    \
         ca: [\"192.0.2.1:8081\"]\n    danger_exempt_ports: [25]\n    danger_exempt_networks: [10.0.0.0/8, fd00::/8]\n    \
         danger_udp: [123, 443]",
    )
    .unwrap();

    let (called, calling) = (read.inbound.unwrap(), read.outbound.unwrap());
    assert_eq!((read.mode, read.outbound_unknown), (Mode::Tproxy, Unknown::DangerPassthrough));
    assert_eq!(read.own, Own::Mark("0x53a".parse().unwrap()));
    assert_eq!(called.ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["port-8080", "db"]);
    assert_eq!(called.capture, Capture::Listed);
    assert_eq!(calling.who, Who::Cgroup("system.slice/api.service".parse().unwrap()));
    assert_eq!(calling.udp, Udp::DangerPorts(BTreeSet::from([123, 443])));
    assert_eq!(calling.danger_exempt_networks.len(), 2);
}

#[test]
fn the_rules_follow_from_the_configuration() {
    let config = config(
        "inbound:\n  - {name: a, listen: \"0.0.0.0:8443\", protocol: tcp, application: \"127.0.0.1:1\"}\ntransparent:\n  \
         inbound: {capture: listed, ports: [{port: 8080, protocol: tcp}]}\n  outbound: {capture: {uids: [1000]}}",
    )
    .unwrap();

    let plan = config.transparent.as_ref().unwrap().plan(&config);

    let calls = plan.calls.unwrap();
    assert_eq!((calls.to, calls.ports), (15006, Ports::Only(BTreeSet::from([8080]))));
    assert_eq!(calls.own, BTreeSet::from([8443]), "the sidecar's own port speaks mutual TLS itself");
    let callers = plan.callers.unwrap();
    assert_eq!((callers.to, callers.who), (15001, Who::Users(BTreeSet::from([1000]))));
}

#[test]
fn what_is_more_than_one_value_or_leads_astray_is_refused() {
    for section in [
        "{}",
        "{mode: both, inbound: {}}",
        "{mark: 0, inbound: {}}",
        "{mark: 0x111, inbound: {}}",
        "{mark: \"0x539; flush ruleset\", inbound: {}}",
        "{mark: 1, owner: {uids: [1]}, inbound: {}}",
        "{owner: {}, inbound: {}}",
        "{mode: tproxy, owner: {uids: [1]}, inbound: {}}",
        "{mode: tproxy, outbound: {}}",
        "{outbound_unknown: passthrough, outbound: {}}",
        "{inbound: {listen: \"127.0.0.1:15006\"}}",
        "{inbound: {listen: \"0.0.0.0:15006\"}}",
        "{inbound: {listen: \"[::]:0\"}}",
        "{inbound: {capture: listed}}",
        "{inbound: {open_ports: [1]}}",
        "{inbound: {danger_open_ports: [0]}}",
        "{inbound: {danger_open_ports: [\"80; flush ruleset\"]}}",
        "{inbound: {danger_open_ports: [65536]}}",
        "{inbound: {ports: [{port: 1, protocol: tcp}, {port: 1, protocol: http}]}}",
        "{inbound: {ports: [{port: 1, protocol: udp}]}}",
        "{inbound: {ports: [{port: 1, name: \"a b\", protocol: tcp}]}}",
        "{inbound: {danger_open_ports: [80], capture: listed, ports: [{port: 80, protocol: tcp}]}}",
        "{inbound: {}, outbound: {listen: [\"127.0.0.1:15006\", \"[::1]:15006\"]}}",
        "{outbound: {listen: [\"127.0.0.1:15001\"]}}",
        "{outbound: {listen: [\"127.0.0.1:15001\", \"[::1]:15002\"]}}",
        "{outbound: {listen: [\"10.0.0.1:15001\", \"[::1]:15001\"]}}",
        "{outbound: {capture: some}}",
        "{outbound: {capture: {uids: [1], cgroup: a}}}",
        "{outbound: {capture: {uids: [-1]}}}",
        "{outbound: {capture: {cgroup: \"a\\\" accept #\"}}}",
        "{outbound: {danger_exempt_networks: [\"10.0.0.0/8 accept\"]}}",
        "{outbound: {exempt_ports: [1]}}",
        "{outbound: {danger_udp: some}}",
    ] {
        assert!(transparent(section).is_err(), "{section}");
    }
}

#[test]
fn probes_are_off_until_named_by_exact_path_port_and_source() {
    let inbound = "transparent: {inbound: {}}\n";
    let read = |probes: &str| config(&format!("{inbound}{probes}")).map(|config| config.probes);

    assert_eq!(read("").unwrap(), []);
    let probe = read("probes: [{path: /healthz, port: 8080, source: [192.0.2.7/32, fd00::7/128]}]")
        .unwrap()
        .remove(0);
    assert!(probe.may_come("192.0.2.7".parse().unwrap(), 8080));
    assert!(probe.may_come("::ffff:192.0.2.7".parse().unwrap(), 8080));
    assert!(probe.may_come("fd00::7".parse().unwrap(), 8080));
    assert!(!probe.may_come("192.0.2.8".parse().unwrap(), 8080));
    assert!(!probe.may_come("192.0.2.7".parse().unwrap(), 8081));
    for bad in [
        "{path: healthz, port: 1, source: [10.0.0.0/8]}",
        "{path: \"/a?b\", port: 1, source: [10.0.0.0/8]}",
        "{path: /a%2e, port: 1, source: [10.0.0.0/8]}",
        "{path: /a/../b, port: 1, source: [10.0.0.0/8]}",
        "{path: //a, port: 1, source: [10.0.0.0/8]}",
        "{path: /a, port: 0, source: [10.0.0.0/8]}",
        "{path: /a, port: 1, source: []}",
        "{path: /a, port: 1}",
        "{port: 1, source: [10.0.0.0/8]}",
    ] {
        assert!(read(&format!("probes: [{bad}]")).is_err(), "{bad}");
    }
}
