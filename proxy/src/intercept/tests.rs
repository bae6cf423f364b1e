use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{table::Table, *};

fn ports(ports: &[u16]) -> BTreeSet<u16> {
    ports.iter().copied().collect()
}

fn calls(captured: Ports) -> Calls {
    Calls {
        to: 15006,
        ports: captured,
        own: BTreeSet::new(),
        danger_open_ports: BTreeSet::new(),
        danger_open_udp_ports: BTreeSet::new(),
    }
}

fn callers(who: Who) -> Callers {
    Callers {
        to: 15001,
        who,
        ca: BTreeSet::new(),
        danger_exempt_ports: BTreeSet::new(),
        danger_exempt_networks: BTreeSet::new(),
        udp: Udp::Drop,
    }
}

fn plan(calls: Option<Calls>, callers: Option<Callers>) -> Plan {
    Plan { mode: Mode::Redirect, own: Own::Mark(Mark::DEFAULT), calls, callers }
}

fn everything() -> Plan {
    plan(Some(calls(Ports::All)), Some(callers(Who::Everyone)))
}

fn text(plan: &Plan) -> String {
    let cgroup = plan.cgroup().map(|cgroup| MountedCgroup { path: cgroup.to_string(), level: 2 });
    Table::of(plan, cgroup.as_ref()).text(TABLE)
}

fn refused(plan: &Plan, namespace: Namespace) -> PlanError {
    plan.check(namespace).expect_err("a plan that cannot be")
}

#[test]
fn a_namespace_of_its_own_has_everything_captured_and_a_wall_behind() {
    let text = text(&everything());

    for wanted in [
        "meta l4proto tcp redirect to :15006",
        "meta l4proto tcp redirect to :15001",
        "fib daddr type != local return",
        "meta mark 1337 return",
        "tcp dport 15006 ct direction original ct status dnat ct state new socket mark 1337 accept",
        "meta l4proto tcp counter reject with tcp reset\n\t\tcounter drop\n",
        "udp dport 53 accept\n\t\tcounter reject with icmpx admin-prohibited\n",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_shared_namespace_needs_names_and_keeps_ssh_and_the_ca() {
    let shared =
        plan(Some(calls(Ports::Only(ports(&[8080])))), Some(callers(Who::Users(BTreeSet::from([1000])))));

    assert!(matches!(
        Interception::new(everything(), Namespace::Shared, false),
        Err(InterceptError::SharedNamespace)
    ));
    assert!(Interception::new(everything(), Namespace::Shared, true).is_ok());
    assert!(Interception::new(everything(), Namespace::Own, false).is_ok());
    assert!(Interception::new(shared.clone(), Namespace::Shared, false).is_ok());
    let text = text(&shared);
    assert!(text.contains("tcp dport { 22, 53, 8081 } return"), "{text}");
    assert!(text.contains("meta skuid { 1000 } meta l4proto tcp redirect to :15001"), "{text}");
    assert!(!text.contains("\t\tcounter drop"), "traffic of others is dropped: {text}");
}

#[test]
fn plans_that_contradict_themselves_or_lock_people_out_are_refused() {
    let only = |only: &[u16]| Some(calls(Ports::Only(ports(only))));
    let users = |users: &[u32]| plan(None, Some(callers(Who::Users(users.iter().copied().collect()))));
    let owner = |uids: &[u32]| Own::Owner { uids: uids.iter().copied().collect(), gids: BTreeSet::new() };
    let open = Calls { danger_open_ports: ports(&[8080]), ..calls(Ports::Only(ports(&[8080]))) };
    let own = Calls { own: ports(&[15006]), ..calls(Ports::All) };
    let one = plan(Some(calls(Ports::All)), Some(Callers { to: 15006, ..callers(Who::Everyone) }));
    let (of_own, of_shared) = (Namespace::Own, Namespace::Shared);

    assert_eq!(refused(&plan(None, None), of_own), PlanError::Nothing);
    assert_eq!(refused(&plan(only(&[]), None), of_own), PlanError::Nothing);
    assert_eq!(refused(&users(&[]), of_own), PlanError::Nothing);
    assert_eq!(refused(&plan(only(&[22]), None), of_shared), PlanError::Ssh);
    assert_eq!(plan(only(&[22]), None).check(of_own), Ok(()));
    assert_eq!(refused(&users(&[0]), of_shared), PlanError::Root);
    assert_eq!(refused(&plan(Some(open), None), of_own), PlanError::CapturedAndOpen { port: 8080 });
    assert_eq!(refused(&plan(Some(own), None), of_own), PlanError::CapturedAndOpen { port: 15006 });
    assert_eq!(refused(&one, of_own), PlanError::OnePort { port: 15006 });
    assert_eq!(refused(&Plan { own: owner(&[]), ..everything() }, of_own), PlanError::NoOwner);
    assert_eq!(
        refused(&Plan { own: owner(&[7]), ..users(&[7]) }, of_own),
        PlanError::CapturedOwner { uid: 7 }
    );
    assert_eq!(
        refused(&Plan { own: owner(&[7]), mode: Mode::Tproxy, ..everything() }, of_own),
        PlanError::TproxyNeedsMark
    );
    assert_eq!(refused(&Plan { mode: Mode::Tproxy, ..users(&[7]) }, of_own), PlanError::TproxyNeedsCalls);
    let many = plan(Some(calls(Ports::Only((1..=1025).collect()))), None);
    assert_eq!(refused(&many, of_own), PlanError::TooMany { what: "ports", most: MAX_PORTS_EXPECTED });
}

const MAX_PORTS_EXPECTED: usize = 1_024;

#[test]
fn networks_within_others_are_left_out_and_host_bits_are_cut_off() {
    let networks = ["10.1.0.0/16", "10.0.0.7/8", "fd00::1/8", "192.0.2.1/32"];
    let callers = Callers {
        danger_exempt_networks: networks.iter().map(|net| net.parse::<IpNet>().unwrap()).collect(),
        ..callers(Who::Everyone)
    };

    let text = text(&plan(None, Some(callers)));

    assert!(text.contains("ip daddr { 10.0.0.0/8, 192.0.2.1/32 } return"), "{text}");
    assert!(text.contains("ip6 daddr { fd00::/8 } return"), "{text}");
}

#[test]
fn marks_are_numbers_and_not_that_of_the_routes() {
    assert_eq!("0x539".parse::<Mark>().unwrap(), Mark::DEFAULT);
    assert_eq!("1337".parse::<Mark>().unwrap(), Mark::DEFAULT);
    assert_eq!("0x111".parse::<Mark>(), Err(MarkError::Taken));
    for text in ["", "0", "0x0", "0x", "-1", "+1", "0x1ffffffff", "4294967296", "1 ", "1;", "0x+1", "x"] {
        assert_eq!(text.parse::<Mark>(), Err(MarkError::Number), "{text:?}");
    }
}

/// CVE-2026-23766: an annotation put arguments into a rule generator.
#[test]
fn what_is_more_than_a_port_a_network_or_a_path_is_refused_where_it_is_read() {
    for text in ["80; flush ruleset", "80 ", " 80", "80,81", "0x50", "65536", "-1", "80\n81", ""] {
        assert!(text.parse::<u16>().is_err(), "{text:?}");
    }
    for text in
        ["10.0.0.0/8 accept", "10.0.0.0/8; flush ruleset", "10.0.0.0/33", "10.0.0.0/8\n", "10.0.0.0 /8"]
    {
        assert!(text.parse::<IpNet>().is_err(), "{text:?}");
    }
    for text in [
        "",
        "/",
        "a//b",
        "../a",
        "a/..",
        "a/./b",
        "a\"b",
        "a b",
        "a\nb",
        "a;b",
        "a{b",
        "a}b",
        "a#b",
        "a$b",
        "a*",
        "é",
        &"a".repeat(201),
        &["a"; 17].join("/"),
    ] {
        assert_eq!(text.parse::<Cgroup>(), Err(CgroupError::Path), "{text:?}");
    }
    for text in ["system.slice/api.service", "/a", "user.slice/user-1000.slice/app@a\\x2db.service:x"] {
        assert!(text.parse::<Cgroup>().is_ok(), "{text:?}");
    }
}

#[test]
fn only_the_name_and_the_sleep_tell_a_table_from_its_twin() {
    let table = || Table::of(&everything(), None);

    let (own, twin) = (table().text(TABLE), table().dormant().text(TWIN));

    assert_ne!(own, twin);
    assert_eq!(chains(&own), chains(&twin));
    assert_ne!(chains(&own), chains(&text(&plan(Some(calls(Ports::All)), None))));
}

fn some_ports() -> impl Strategy<Value = BTreeSet<u16>> {
    prop::collection::btree_set(1..=u16::MAX, 0..4)
}

/// Anything at all, as somebody would write it, and what is accepted of it.
fn some_who() -> impl Strategy<Value = Who> {
    prop_oneof![
        Just(Who::Everyone),
        prop::collection::btree_set(any::<u32>(), 1..4).prop_map(Who::Users),
        "[a-z\"; {}\\n/#.\\\\$*@-]{1,12}|[a-z./@_:\\\\-]{1,12}"
            .prop_filter_map("no cgroup", |text| text.parse::<Cgroup>().ok())
            .prop_map(Who::Cgroup),
    ]
}

fn some_plan() -> impl Strategy<Value = Plan> {
    let networks = prop::collection::btree_set(
        "([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2}|[0-9a-f:]{2,12}/[0-9]{1,3}"
            .prop_filter_map("no network", |text| text.parse::<IpNet>().ok()),
        0..3,
    );
    let own = prop_oneof![
        (1..=u32::MAX).prop_filter_map("taken", |mark| mark.to_string().parse().ok()).prop_map(Own::Mark),
        prop::collection::btree_set(any::<u32>(), 1..3)
            .prop_map(|uids| Own::Owner { gids: uids.clone(), uids }),
    ];
    let sets = (some_ports(), some_ports(), some_ports(), some_ports(), some_ports());
    (any::<bool>(), own, sets, some_who(), networks).prop_map(|(tproxy, own, sets, who, networks)| Plan {
        mode: if tproxy { Mode::Tproxy } else { Mode::Redirect },
        own,
        calls: Some(Calls {
            ports: if sets.0.is_empty() { Ports::All } else { Ports::Only(sets.0) },
            own: sets.1,
            danger_open_ports: sets.2.clone(),
            danger_open_udp_ports: sets.2,
            to: 15006,
        }),
        callers: Some(Callers {
            danger_exempt_ports: sets.3,
            danger_exempt_networks: networks,
            udp: if sets.4.is_empty() { Udp::DangerLeave } else { Udp::DangerPorts(sets.4) },
            ca: BTreeSet::from(["192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap()]),
            ..callers(who)
        }),
    })
}

/// A rule without its one quoted text, its sets and its numbers: nothing of a user's is left.
fn skeleton(rule: &str) -> String {
    let mut parts = rule.split('"');
    let (before, quoted, after) = (parts.next().unwrap(), parts.next(), parts.next().unwrap_or_default());
    assert!(parts.next().is_none(), "more than one text: {rule}");
    assert!(quoted.is_none_or(|text| !text.contains(['\n', ';', '{', '}'])), "{rule}");
    format!("{before}{after}")
}

proptest! {
    #[test]
    fn no_plan_makes_a_second_statement(plan in some_plan()) {
        let text = text(&plan);

        let mut depth = 0;
        for line in text.lines() {
            let rule = skeleton(line);
            // A semicolon ends a statement: they stand in the headers of chains, and nowhere else.
            prop_assert_eq!(rule.matches(';').count(), if rule.contains("hook") { 2 } else { 0 }, "{}", line);
            prop_assert!(!rule.contains(['#', '$', '\\', '\'']), "{}", line);
            let opened = rule.matches('{').count() as i32 - rule.matches('}').count() as i32;
            // A rule closes what it opens; the headers open one block each.
            prop_assert!(opened == 0 || rule.starts_with("table ") || rule.starts_with("\tchain ") || rule.trim() == "}", "{}", line);
            depth += opened;
            let words = ["table", "chain", "add", "delete", "flush", "include", "define"];
            let first = rule.split_whitespace().next().unwrap_or_default();
            prop_assert!(!words.contains(&first) || opened == 1, "{}", line);
        }
        prop_assert_eq!(depth, 0);
        prop_assert_eq!(text.matches("table ").count(), 1);
    }
}
