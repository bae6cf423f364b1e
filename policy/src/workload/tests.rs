use std::time::{Duration, SystemTime};

use identity::SpiffeId;

use super::{AtConnect, WorkloadPolicies};
use crate::strict::Source;
use crate::{
    Allowed, CanonicalHost, CanonicalPath, Connection, Decision, DenyReason, PeerIdentity, PolicySet,
    Request, compile,
};

const WEB: &str = "spiffe://a.test/web";

fn policies(bodies: &[&str]) -> WorkloadPolicies {
    let files: Vec<Source> = bodies
        .iter()
        .enumerate()
        .map(|(number, body)| {
            let head = format!("vouchsafe: policy/v1\nname: p{number}\nprotects: {WEB}\n");
            Source::new(format!("p{number}.yaml"), format!("{head}{body}"))
        })
        .collect();
    let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
    set.for_workload(&SpiffeId::parse(WEB).unwrap())
}

fn day(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * number)
}

/// A caller, kept so that its ID can be lent.
struct Caller(Option<SpiffeId>);

impl Caller {
    fn new(name: &str) -> Self {
        Self(Some(SpiffeId::parse(&format!("spiffe://a.test/{name}")).unwrap()))
    }

    fn connection(&self, port: u16) -> Connection<'_> {
        let peer = self.0.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        Connection::new(peer, "10.0.0.7".parse().unwrap(), port, day(0))
    }
}

/// Sums a decision up as `allow RULE`, `deny REASON RULE`, and what shadow would say.
fn tcp(policies: &WorkloadPolicies, caller: &Caller, port: u16) -> String {
    summary(&policies.decide_tcp(&caller.connection(port)))
}

fn http(policies: &WorkloadPolicies, caller: &Caller, line: &str) -> String {
    http_at(policies, caller, line, None)
}

fn http_at(policies: &WorkloadPolicies, caller: &Caller, line: &str, host: Option<&str>) -> String {
    let mut parts = line.split(' ');
    let (method, port, path) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let host = host.map(|host| CanonicalHost::parse(host).unwrap());
    let path = CanonicalPath::parse(path).unwrap();
    let request = Request::new(method, host.as_ref(), &path);
    summary(&policies.decide_http(&caller.connection(port.parse().unwrap()), &request))
}

fn summary(decision: &Decision) -> String {
    match decision {
        Decision::Allow(Allowed { rule, shadow }) => {
            let rule = rule.as_ref().map_or("-", |rule| &rule.rule);
            let shadow = shadow.as_ref().map(|denial| {
                format!(", shadow {} {}", denial.reason, denial.rule.as_ref().map_or("-", |rule| &rule.rule))
            });
            format!("allow {rule}{}", shadow.unwrap_or_default())
        }
        Decision::Deny(denial) => {
            format!("deny {} {}", denial.reason, denial.rule.as_ref().map_or("-", |rule| &rule.rule))
        }
    }
}

const TCP_ANYONE: &str = "allow: [{name: all, from: [anyone], tcp: {port: any}}]\n";

#[test]
fn nothing_is_allowed_that_no_rule_allows() {
    let set = policies(&["allow: [{name: r, from: [spiffe://a.test/x], tcp: {port: 80}}]\n"]);

    assert_eq!(tcp(&set, &Caller::new("x"), 80), "allow r");
    assert_eq!(tcp(&set, &Caller::new("x"), 81), "deny no_allow_matched -");
    assert_eq!(tcp(&set, &Caller::new("y"), 80), "deny no_allow_matched -");
}

#[test]
fn a_policy_without_rules_lets_nothing_pass() {
    assert_eq!(tcp(&policies(&[""]), &Caller::new("x"), 80), "deny no_allow_matched -");
}

#[test]
fn a_workload_that_no_policy_protects_is_closed() {
    let other = SpiffeId::parse("spiffe://a.test/other").unwrap();
    for set in [PolicySet::empty(), compile(&[]).unwrap()] {
        let workload = set.for_workload(&other);
        assert!(workload.is_empty());
        assert_eq!(tcp(&workload, &Caller::new("x"), 80), "deny no_policy -");
        assert_eq!(http(&workload, &Caller::new("x"), "GET 80 /"), "deny no_policy -");
    }
}

#[test]
fn policies_that_could_not_be_loaded_close_every_workload() {
    let workload = PolicySet::unavailable().for_workload(&SpiffeId::parse(WEB).unwrap());

    assert_eq!(tcp(&workload, &Caller::new("x"), 80), "deny policy_unavailable -");
    let caller = Caller::new("x");
    let AtConnect::Deny(denial) = workload.at_connect(&caller.connection(80)) else { panic!("let in") };
    assert_eq!(denial.reason, DenyReason::PolicyUnavailable);
}

#[test]
fn deny_beats_allow_wherever_it_is_written() {
    let set = policies(&[TCP_ANYONE, "deny: [{name: stop, from: [spiffe://a.test/x], tcp: {port: 80}}]\n"]);

    assert_eq!(tcp(&set, &Caller::new("x"), 80), "deny explicit_deny stop");
    assert_eq!(tcp(&set, &Caller::new("x"), 81), "allow all");
}

#[test]
fn anyone_grants_nothing_to_the_unauthenticated_and_denies_them_too() {
    let allow = policies(&[TCP_ANYONE]);
    let named = policies(&["allow: [{name: open, from: [unauthenticated], tcp: {port: 80}}]\n"]);
    let deny = policies(&["allow: [{name: open, from: [unauthenticated], tcp: {port: 80}}]\n\
         deny: [{name: stop, from: [anyone], except: [spiffe://a.test/x], tcp: {port: 80}}]\n"]);

    assert_eq!(tcp(&allow, &Caller(None), 80), "deny unauthenticated -");
    assert_eq!(tcp(&named, &Caller(None), 80), "allow open");
    assert_eq!(tcp(&named, &Caller::new("x"), 80), "deny no_allow_matched -");
    assert_eq!(tcp(&deny, &Caller(None), 80), "deny explicit_deny stop");
}

#[test]
fn an_exception_spares_and_grants_nothing() {
    let deny =
        policies(&["deny: [{name: stop, from: [anyone], except: [spiffe://a.test/x], tcp: {port: 80}}]\n"]);
    let allow = policies(&[
        "allow: [{name: r, from: [\"spiffe://a.test/*\"], except: [spiffe://a.test/x], tcp: {port: 80}}]\n",
    ]);

    assert_eq!(tcp(&deny, &Caller::new("x"), 80), "deny no_allow_matched -");
    assert_eq!(tcp(&deny, &Caller::new("y"), 80), "deny explicit_deny stop");
    assert_eq!(tcp(&allow, &Caller::new("x"), 80), "deny no_allow_matched -");
    assert_eq!(tcp(&allow, &Caller::new("y"), 80), "allow r");
}

#[test]
fn an_http_deny_closes_its_port_to_opaque_connections() {
    let set = policies(&[
        TCP_ANYONE,
        "deny: [{name: admin, from: [anyone], http: {port: 80, paths: [/admin/**]}}]\n",
    ]);

    assert_eq!(tcp(&set, &Caller::new("x"), 80), "deny explicit_deny admin");
    assert_eq!(tcp(&set, &Caller::new("x"), 81), "allow all");
}

#[test]
fn a_rule_grants_only_the_kind_it_is_written_for() {
    let tcp_rule = policies(&[TCP_ANYONE]);
    let http_rule = policies(&["allow: [{name: r, from: [anyone], http: {port: 80}}]\n"]);

    assert_eq!(http(&tcp_rule, &Caller::new("x"), "GET 80 /"), "deny no_allow_matched -");
    assert_eq!(tcp(&http_rule, &Caller::new("x"), 80), "deny no_allow_matched -");
    assert_eq!(http(&http_rule, &Caller::new("x"), "GET 80 /"), "allow r");
}

#[test]
fn a_tcp_deny_closes_an_http_port_before_the_request() {
    let set = policies(&["allow: [{name: r, from: [anyone], http: {port: 80}}]\n\
         deny: [{name: stop, from: [spiffe://a.test/x], tcp: {port: any}}]\n"]);
    let caller = Caller::new("x");

    assert_eq!(http(&set, &caller, "GET 80 /"), "deny explicit_deny stop");
    let AtConnect::Deny(denial) = set.at_connect(&caller.connection(80)) else { panic!("let in") };
    assert_eq!(denial.reason, DenyReason::ExplicitDeny);
}

#[test]
fn a_connection_on_which_no_request_can_pass_is_closed_at_once() {
    let set = policies(&["allow: [{name: r, from: [spiffe://a.test/x], http: {port: 80, paths: [/a]}}]\n"]);
    let (x, y) = (Caller::new("x"), Caller::new("y"));

    assert!(matches!(set.at_connect(&x.connection(80)), AtConnect::Residual(_)));
    assert!(matches!(set.at_connect(&x.connection(81)), AtConnect::Deny(_)));
    assert!(matches!(set.at_connect(&y.connection(80)), AtConnect::Deny(_)));
}

#[test]
fn every_part_of_an_http_rule_must_match() {
    let set = policies(&[
        "allow: [{name: r, from: [anyone], http: {port: 80, methods: [GET], hosts: [\"*.example\"], paths: [/a/*]}}]\n",
    ]);
    let caller = Caller::new("x");
    let ask = |line: &str, host: Option<&str>| http_at(&set, &caller, line, host);

    assert_eq!(ask("GET 80 /a/b", Some("web.example")), "allow r");
    for (line, host) in [
        ("HEAD 80 /a/b", Some("web.example")),
        ("get 80 /a/b", Some("web.example")),
        ("GET 80 /a", Some("web.example")),
        ("GET 80 /a/b", Some("example")),
        ("GET 80 /a/b", None),
        ("GET 81 /a/b", Some("web.example")),
    ] {
        assert_eq!(ask(line, host), "deny no_allow_matched -", "{line} {host:?}");
    }
}

#[test]
fn a_missing_host_escapes_no_denial() {
    let set = policies(&["allow: [{name: r, from: [anyone], http: {port: 80}}]\n\
         deny: [{name: stop, from: [anyone], http: {port: 80, hosts: [internal.example]}}]\n"]);
    let caller = Caller::new("x");

    assert_eq!(http_at(&set, &caller, "GET 80 /", None), "deny explicit_deny stop");
    assert_eq!(http_at(&set, &caller, "GET 80 /", Some("INTERNAL.example.:80")), "deny explicit_deny stop");
    assert_eq!(http_at(&set, &caller, "GET 80 /", Some("public.example")), "allow r");
}

#[test]
fn a_tunnel_is_granted_by_no_rule_and_refused_by_those_that_fit() {
    let allow = "allow: [{name: r, from: [anyone], http: {port: 80}}]\n";
    let both = format!("{allow}deny: [{{name: stop, from: [anyone], http: {{port: 80}}}}]\n");

    assert_eq!(http(&policies(&[allow]), &Caller::new("x"), "CONNECT 80 /"), "deny no_allow_matched -");
    assert_eq!(http(&policies(&[&both]), &Caller::new("x"), "CONNECT 80 /"), "deny explicit_deny stop");
}

#[test]
fn a_path_trick_does_not_reach_past_a_deny_rule() {
    let set = policies(&["allow: [{name: r, from: [anyone], http: {port: 80}}]\n\
         deny: [{name: stop, from: [anyone], http: {port: 80, paths: [/admin/**]}}]\n"]);
    let caller = Caller::new("x");

    for path in [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin/y",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/admin/",
        "/admin?x",
    ] {
        assert_eq!(http(&set, &caller, &format!("GET 80 {path}")), "deny explicit_deny stop", "{path}");
    }
    assert_eq!(http(&set, &caller, "GET 80 /administrator"), "allow r");
}

#[test]
fn a_mapped_source_belongs_to_its_ipv4_network() {
    let set = policies(&["allow: [{name: r, from: [anyone], source_net: [10.0.0.0/8], tcp: {port: 80}}]\n"]);
    let caller = Caller::new("x");
    let from = |source: &str| {
        let connection = Connection { source: source.parse().unwrap(), ..caller.connection(80) };
        summary(&set.decide_tcp(&connection))
    };

    assert_eq!(from("::ffff:10.1.2.3"), "allow r");
    assert_eq!(from("10.1.2.3"), "allow r");
    assert_eq!(from("11.1.2.3"), "deny no_allow_matched -");
    assert_eq!(from("2001:db8::1"), "deny no_allow_matched -");
}

const SHADOW: &str = "mode: shadow\nuntil: 1970-01-11\n";

#[test]
fn a_workload_with_only_shadow_policies_stays_open_and_what_would_be_denied_is_said() {
    let body = format!(
        "{SHADOW}allow: [{{name: r, from: [spiffe://a.test/x], tcp: {{port: 80}}}}]\n\
         deny: [{{name: stop, from: [spiffe://a.test/z], tcp: {{port: any}}}}]\n"
    );
    let set = policies(&[&body]);

    assert_eq!(tcp(&set, &Caller::new("x"), 80), "allow r");
    assert_eq!(tcp(&set, &Caller::new("y"), 80), "allow -, shadow no_allow_matched -");
    assert_eq!(tcp(&set, &Caller::new("z"), 80), "allow -, shadow explicit_deny stop");
    assert_eq!(tcp(&set, &Caller(None), 80), "allow -, shadow unauthenticated -");
    assert_eq!(http(&set, &Caller::new("x"), "GET 80 /"), "allow -, shadow no_allow_matched -");
}

#[test]
fn a_shadow_policy_beside_an_enforcing_one_takes_nothing_away_and_grants_nothing() {
    let body = format!(
        "{SHADOW}allow: [{{name: more, from: [spiffe://a.test/y], tcp: {{port: 80}}}}]\n\
         deny: [{{name: stop, from: [spiffe://a.test/x], tcp: {{port: 80}}}}]\n"
    );
    let set = policies(&["allow: [{name: r, from: [spiffe://a.test/x], tcp: {port: any}}]\n", &body]);

    assert_eq!(tcp(&set, &Caller::new("x"), 80), "allow r, shadow explicit_deny stop");
    assert_eq!(tcp(&set, &Caller::new("x"), 81), "allow r");
    assert_eq!(tcp(&set, &Caller::new("y"), 80), "deny no_allow_matched -");
}

#[test]
fn a_shadow_policy_enforces_from_the_very_moment_it_names() {
    let set =
        policies(&[&format!("{SHADOW}allow: [{{name: r, from: [spiffe://a.test/x], tcp: {{port: 80}}}}]\n")]);
    let caller = Caller::new("y");
    let at = |now: SystemTime| summary(&set.decide_tcp(&Connection { now, ..caller.connection(80) }));

    assert_eq!(at(day(10) - Duration::from_nanos(1)), "allow -, shadow no_allow_matched -");
    assert_eq!(at(day(10)), "deny no_allow_matched -");
}

#[test]
fn a_residual_turns_to_denial_when_the_shadow_ends() {
    let set = policies(&[
        "allow: [{name: r, from: [anyone], http: {port: 80}}]\n",
        &format!("{SHADOW}deny: [{{name: stop, from: [anyone], tcp: {{port: 80}}}}]\n"),
    ]);
    let caller = Caller::new("x");
    let path = CanonicalPath::parse("/").unwrap();
    let request = Request::new("GET", None, &path);
    let AtConnect::Residual(residual) = set.at_connect(&caller.connection(80)) else { panic!("refused") };

    assert_eq!(summary(&residual.decide(&request, day(0))), "allow r, shadow explicit_deny stop");
    assert_eq!(summary(&residual.decide(&request, day(10))), "deny explicit_deny stop");
    assert_eq!(residual.generation(), set.generation());
}

#[test]
fn a_policy_protects_those_it_names_and_no_one_else() {
    let text = "vouchsafe: policy/v1\nname: p\nprotects: [spiffe://a.test/ns/*/web, spiffe://a.test/db/**]\n"
        .to_owned()
        + TCP_ANYONE;
    let set = compile(&[Source::new("p.yaml", text)]).unwrap();
    let protected = |id: &str| !set.for_workload(&SpiffeId::parse(id).unwrap()).is_empty();

    assert!(
        protected("spiffe://a.test/ns/x/web")
            && protected("spiffe://a.test/db")
            && protected("spiffe://a.test/db/x/y")
    );
    assert!(
        !protected("spiffe://a.test/ns/x/api")
            && !protected("spiffe://b.test/db")
            && !protected("spiffe://a.test/dbx")
    );
}
