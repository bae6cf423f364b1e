//! The known ways past an authorization policy, one by one: what each would open stays closed.
//!
//! The numbers are those of the list of bypasses that docs/testing.md maps to tests. Those that need a socket or a parsed
//! request are kept by tests of the whole system.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as promised"
)]

use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    CanonicalHost, CanonicalPath, Connection, DenyReason, Mesh, Options, PeerIdentity, PolicySet, Request,
    RequestKind, Token, Workload, WorkloadPolicies, compile, compile_with, import,
};

const API: &str = "spiffe://a.test/ns/shop/sa/api";
const WEB: &str = "spiffe://a.test/ns/shop/sa/web";

/// A caller, a port and a moment; what is not said is as plain as possible.
#[derive(Clone, Copy)]
struct From<'a> {
    peer: Option<&'a str>,
    port: u16,
    source: &'a str,
    sni: Option<&'a str>,
    day: u64,
}

const fn web() -> From<'static> {
    From { peer: Some(WEB), port: 8443, source: "10.0.0.7", sni: None, day: 0 }
}

const fn nobody() -> From<'static> {
    From { peer: None, ..web() }
}

const fn caller(peer: &str) -> From<'_> {
    From { peer: Some(peer), port: 8443, source: "10.0.0.7", sni: None, day: 0 }
}

impl From<'_> {
    fn ask<T>(self, ask: impl FnOnce(&Connection<'_>) -> T) -> T {
        let id = self.peer.map(|peer| SpiffeId::parse(peer).unwrap());
        let peer = id.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * self.day);
        let connection = Connection::new(peer, self.source.parse().unwrap(), self.port, now);
        ask(&Connection { sni: self.sni, ..connection })
    }

    /// Whether bytes that are not read pass.
    fn tcp(self, policies: &WorkloadPolicies) -> bool {
        self.ask(|connection| policies.decide_tcp(connection).is_allowed())
    }

    /// Whether `GET /x` passes.
    fn get(self, policies: &WorkloadPolicies) -> bool {
        self.sends(policies, "GET", Some("svc"), "/x", &[])
    }

    fn sends(
        self,
        policies: &WorkloadPolicies,
        method: &str,
        host: Option<&str>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> bool {
        let host = host.map(|host| CanonicalHost::parse(host).unwrap());
        let path = CanonicalPath::parse(path).unwrap();
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request { headers: &headers, ..Request::new(method, host.as_ref(), &path) };
        self.ask(|connection| policies.decide_http(connection, &request).is_allowed())
    }
}

/// The policy of the API with these rules.
fn text(rules: &str) -> String {
    format!("vouchsafe: policy/v1\nname: api\nprotects: {API}\n{rules}")
}

fn set(files: &[(&str, &str)]) -> Result<PolicySet, String> {
    let files: Vec<Source> = files.iter().map(|(name, text)| Source::new(*name, *text)).collect();
    compile(&files).map_err(|problems| problems.to_string())
}

fn api(rules: &str) -> WorkloadPolicies {
    let set = set(&[("api.yaml", &text(rules))]).unwrap_or_else(|problems| panic!("{problems}"));
    set.for_workload(&SpiffeId::parse(API).unwrap())
}

/// What is wrong with these rules.
#[track_caller]
fn refused(rules: &str, wanted: &str) {
    let problems = set(&[("api.yaml", &text(rules))]).err();
    let problems = problems.unwrap_or_else(|| panic!("accepted:\n{rules}"));
    assert!(problems.contains(wanted), "{wanted:?} is not in:\n{problems}");
}

/// Row 4, and 17 of the attacks on a data plane: a negation that plaintext satisfies.
#[test]
fn an_exception_stands_only_beside_those_it_is_taken_from_and_plaintext_is_no_exception() {
    refused("allow: [{name: r, except: [spiffe://a.test/x], tcp: {port: 8443}}]\n", "from");
    refused("allow: [{name: r, from: [], except: [spiffe://a.test/x], tcp: {port: 8443}}]\n", "from");
    let all_but_one = "[{name: r, from: [anyone], except: [spiffe://a.test/x], tcp: {port: 8443}}]\n";

    let allowed = api(&format!("allow: {all_but_one}"));
    let denied = api(&format!(
        "allow: [{{name: open, from: [unauthenticated], tcp: {{port: any}}}}]\ndeny: {all_but_one}"
    ));

    assert!(web().tcp(&allowed));
    assert!(!nobody().tcp(&allowed), "who shows no identity is nobody's exception");
    assert!(!caller("spiffe://a.test/x").tcp(&allowed));
    assert!(!nobody().tcp(&denied), "a denial of all but one spared those without an identity");
}

/// The same in Istio's files, where it means what Istio means: whoever writes it is told when it is imported.
#[test]
fn a_negation_in_istios_files_is_pointed_out_when_it_is_imported() {
    let file = Source::new(
        "a.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\nspec:\n  \
         rules:\n  - from: [{source: {notPrincipals: [a.test/ns/x/sa/y]}}]\n",
    );

    let imported = import(&[file], &Mesh::default(), &[]).unwrap();

    let said: Vec<&str> = imported.surprises.iter().map(|surprise| surprise.message.as_str()).collect();
    assert!(said.iter().any(|said| said.contains("identity")), "{said:?}");
}

/// Row 5: an empty list, a missing one or a star that means anyone, the unauthenticated among them.
#[test]
fn who_may_call_is_said_by_a_word_and_nothing_else_means_anyone() {
    for from in
        ["from: [], ", "from: [\"*\"], ", "from: [\"**\"], ", "from: [\"\"], ", "from: [spiffe://*/**], ", ""]
    {
        refused(&format!("allow: [{{name: r, {from}tcp: {{port: 8443}}}}]\n"), "from");
    }
    let anyone = api("allow: [{name: r, from: [anyone], tcp: {port: 8443}}]\n");
    let domain = api("allow: [{name: r, from: [\"spiffe://a.test/**\"], tcp: {port: 8443}}]\n");

    for policies in [&anyone, &domain] {
        assert!(web().tcp(policies));
        assert!(!nobody().tcp(policies));
    }
}

/// Row 6, and the second half of 17: a rule about requests on traffic that has none.
#[test]
fn a_denial_of_requests_closes_its_port_to_what_is_not_read_and_no_grant_of_requests_opens_it() {
    let denied = api("allow: [{name: open, from: [anyone], tcp: {port: any}}]\n\
         deny: [{name: stop, from: [\"spiffe://a.test/**\"], http: {port: 8443, methods: [DELETE], paths: [/admin/**]}}]\n");
    let granted = api("allow: [{name: r, from: [anyone], http: {port: 8443}}]\n");

    assert!(!web().tcp(&denied), "the deny rule is off where requests are not read");
    assert!(From { port: 9000, ..web() }.tcp(&denied));
    assert!(granted_only_as_http(&granted));
    refused("allow: [{name: r, from: [anyone], tcp: {port: 8443, paths: [/x]}}]\n", "paths");
    refused("allow: [{name: r, from: [anyone], tcp: {port: 8443}, http: {port: 8443}}]\n", "http");
}

fn granted_only_as_http(policies: &WorkloadPolicies) -> bool {
    web().get(policies) && !web().tcp(policies)
}

/// Row 7: a bad element that is dropped leaves an empty list, and an empty list matches everything.
#[test]
fn a_bad_element_refuses_the_load_and_is_never_dropped_from_its_list() {
    for bad in [
        "from: [spiffe://a.test/x, not-an-id], tcp: {port: 8443}",
        "from: [anyone], source_net: [10.0.0.0/8, 10.0.0.0/33], tcp: {port: 8443}",
        "from: [anyone], source_net: [10.0.0.1/8], tcp: {port: 8443}",
        "from: [anyone], source_net: [\"10.0.0.0/8; flush ruleset\"], tcp: {port: 8443}",
        "from: [anyone], tcp: {ports: [8443, 65536]}",
        "from: [anyone], tcp: {ports: [8443, 0]}",
        "from: [anyone], tcp: {ports: [8443, -1]}",
        "from: [anyone], tcp: {ports: [\"80; flush ruleset\"]}",
        "from: [anyone], tcp: {ports: []}",
        "from: [anyone], http: {port: 8443, methods: [GET, \"\"]}",
        "from: [anyone], http: {port: 8443, paths: [/ok, no-slash]}",
        "from: [anyone], http: {port: 8443, hosts: [ok, \"a b\"]}",
        "from: [anyone], http: {port: 8443, headers: {x-a: [ok, \"\"]}}",
        "from: [anyone], except: [spiffe://a.test/x, \"\"], tcp: {port: 8443}",
        "from: [anyone], sni: [ok, \"a b\"], tcp: {port: 8443}",
    ] {
        for effect in ["allow", "deny"] {
            let rules = format!("{effect}: [{{name: r, {bad}}}]\n");
            assert!(set(&[("api.yaml", &text(&rules))]).is_err(), "accepted:\n{rules}");
        }
    }
}

/// Row 7 in Istio's files: the same elements that its data planes drop.
#[test]
fn a_bad_element_of_an_istio_file_refuses_the_load() {
    for rule in [
        "from: [{source: {ipBlocks: [10.0.0.0/33]}}]",
        "from: [{source: {ipBlocks: [10.0.0.0/8, nonsense]}}]",
        "from: [{source: {principals: []}}]",
        "to: [{operation: {ports: [\"65536\"]}}]",
        "to: [{operation: {ports: [\"80\", http]}}]",
        "when: [{key: source.port, values: [\"1\"]}]",
    ] {
        let file = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec: {{action: DENY, rules: [{{{rule}}}]}}\n"
        );
        assert!(set(&[("a.yaml", &file)]).is_err(), "accepted:\n{file}");
    }
}

/// Row 8, and 44 of the attacks on a data plane: a field that is not understood, or stands in the wrong place.
#[test]
fn a_field_that_is_not_understood_or_misplaced_refuses_the_whole_set() {
    let good = text("allow: [{name: r, from: [anyone], tcp: {port: 8443}}]\n");
    let flawed = [
        good.replace("policy/v1", "policy/v2"),
        good.replace("vouchsafe: policy/v1\n", ""),
        good.replace("name: r,", "name: r, new_limit: [x],"),
        good.replace("{port: 8443}", "{port: 8443, new_limit: [x]}"),
        format!("{good}new_limit: x\n"),
        // The dash that is one too many makes two rules of one.
        text("allow:\n  - name: r\n    from: [anyone]\n  - http: {port: 8443, paths: [/x]}\n"),
        // What belongs to a rule stands beside it.
        text("allow:\n  - name: r\n    from: [anyone]\n    tcp: {port: 8443}\nexcept: [spiffe://a.test/x]\n"),
        format!("{good}allow: [{{name: s, from: [unauthenticated], tcp: {{port: any}}}}]\n"),
        good.replace("[anyone]", "&a [anyone]"),
        good.replace("name: r,", "name: yes,"),
        good.replace("{port: 8443}", "{port: 0x20fb}"),
        good.replace("{port: 8443}", "{port: 8_443}"),
        good.replace("[anyone]", "anyone"),
    ];
    let other = good.replace("name: api", "name: other");
    assert!(set(&[("api.yaml", &good), ("other.yaml", &other)]).is_ok());

    for flawed in flawed {
        let problems = set(&[("flawed.yaml", &flawed), ("other.yaml", &other)]).err();

        let problems = problems.unwrap_or_else(|| panic!("accepted:\n{flawed}"));
        assert!(problems.contains("flawed.yaml:"), "{problems}");
    }
}

/// Row 9: the same path in another trust domain.
#[test]
fn an_identity_of_another_trust_domain_is_let_in_only_where_its_domain_is_written() {
    let shop = api("allow: [{name: r, from: [\"spiffe://a.test/ns/shop/**\"], tcp: {port: 8443}}]\n");
    let both = api(
        "allow: [{name: r, from: [\"spiffe://a.test/ns/shop/**\", spiffe://b.test/ns/shop/sa/web], tcp: {port: 8443}}]\n",
    );

    for foreign in [
        "spiffe://b.test/ns/shop/sa/web",
        "spiffe://a.test.b.test/ns/shop/sa/web",
        "spiffe://aatest/ns/shop/sa/web",
    ] {
        assert!(!caller(foreign).tcp(&shop), "{foreign}");
    }
    assert!(caller("spiffe://b.test/ns/shop/sa/web").tcp(&both));
    assert!(!caller("spiffe://b.test/ns/shop/sa/other").tcp(&both));
    for domain in ["spiffe://*/ns/shop/**", "spiffe://*.test/ns/shop/**", "/ns/shop/**", "ns/shop/**"] {
        refused(&format!("allow: [{{name: r, from: [\"{domain}\"], tcp: {{port: 8443}}}}]\n"), "from");
    }
}

/// Row 10: identities as text.
#[test]
fn identities_are_compared_segment_by_segment_and_never_as_text() {
    let foo = api("allow: [{name: r, from: [\"spiffe://a.test/ns/foo/**\"], tcp: {port: 8443}}]\n");
    let dotted = api("allow: [{name: r, from: [spiffe://a.test/ns/f.o], tcp: {port: 8443}}]\n");

    assert!(caller("spiffe://a.test/ns/foo/sa/x").tcp(&foo));
    for other in ["ns/foo-bar/sa/x", "ns/fo/sa/x", "x/ns/foo/sa/x", "ns/FOO/sa/x", "ns/foo.bar/sa/x"] {
        assert!(!caller(&format!("spiffe://a.test/{other}")).tcp(&foo), "{other}");
    }
    assert!(!caller("spiffe://a.test/ns/foo").tcp(&dotted));
    for pattern in [
        "spiffe://a.test/ns/foo*",
        "spiffe://a.test/ns/*foo",
        "spiffe://a.test/**/sa/x",
        "spiffe://a.test/ns/.*",
        "spiffe://a.test/ns/[a-z]+",
    ] {
        refused(&format!("allow: [{{name: r, from: [\"{pattern}\"], tcp: {{port: 8443}}}}]\n"), "from");
    }
}

/// Row 11: an identity that is not one. Which certificates prove one is for the tests of `identity` and of the system.
#[test]
fn a_peer_without_exactly_one_identity_is_nobody_to_every_rule() {
    let policies = api(
        "allow: [{name: r, from: [anyone], tcp: {port: 8443}}, {name: s, from: [\"spiffe://a.test/**\"], http: {port: 8443}}]\n",
    );

    let reason =
        nobody().ask(|connection| policies.decide_tcp(connection).denial().map(|denial| denial.reason));

    assert_eq!(reason, Some(DenyReason::Unauthenticated));
    assert!(!nobody().get(&policies));
}

/// Row 12, and 40 of the attacks on a data plane: one address in two forms.
#[test]
fn a_network_is_one_set_of_addresses_in_either_form() {
    let inner = api("allow: [{name: r, from: [anyone], source_net: [10.0.0.0/8], tcp: {port: 8443}}]\n");
    let but_inner = api(
        "allow: [{name: open, from: [anyone], tcp: {port: 8443}}]\ndeny: [{name: r, from: [anyone], source_net: [10.0.0.0/8], tcp: {port: 8443}}]\n",
    );
    let v4 = api("allow: [{name: r, from: [anyone], source_net: [0.0.0.0/0], tcp: {port: 8443}}]\n");

    for source in ["10.0.0.7", "::ffff:10.0.0.7"] {
        assert!(From { source, ..web() }.tcp(&inner), "{source}");
        assert!(!From { source, ..web() }.tcp(&but_inner), "{source}");
    }
    for source in ["11.0.0.7", "::ffff:11.0.0.7", "::10.0.0.7", "a00:7::"] {
        assert!(!From { source, ..web() }.tcp(&inner), "{source}");
    }
    assert!(!From { source: "2001:db8::1", ..web() }.tcp(&v4), "all of IPv4 is nothing of IPv6");
    refused(
        "allow: [{name: r, from: [anyone], source_net: [10.0.0.7/8], tcp: {port: 8443}}]\n",
        "10.0.0.0/8",
    );
}

/// Row 13: the port that a peer names, or that a service has elsewhere.
#[test]
fn a_rule_is_about_the_port_that_was_accepted_and_not_the_one_in_the_host() {
    let policies = api("allow: [{name: r, from: [anyone], http: {port: 8443, hosts: [svc]}}]\n");

    for host in ["svc", "svc:8443", "svc:9000"] {
        assert!(web().sends(&policies, "GET", Some(host), "/", &[]), "{host}");
        assert!(!From { port: 9000, ..web() }.sends(&policies, "GET", Some(host), "/", &[]), "{host}");
    }
}

/// Row 14: a denial that cannot be decided is skipped. Nothing here can fail, and what is absent escapes no denial.
#[test]
fn what_is_absent_satisfies_no_grant_and_escapes_no_denial() {
    let open = "allow: [{name: open, from: [anyone], http: {port: any}}]\n";
    for limits in [
        "http: {port: any, hosts: [svc]}",
        "sni: [svc], http: {port: any}",
        "jwt: {issuer: \"https://i.test\", audience: any}, http: {port: any}",
    ] {
        let issuers = "issuers: [{issuer: \"https://i.test\", keys: {url: \"https://i.test/keys\"}}]\n";
        let rule = format!("[{{name: r, from: [anyone], {limits}}}]\n");
        let granted = api(&format!("{issuers}allow: {rule}"));
        let denied = api(&format!("{issuers}{open}deny: {rule}"));

        for policies in [&granted, &denied] {
            assert!(!web().sends(policies, "GET", None, "/x", &[]), "{limits}");
        }
    }
}

/// Row 15, and 15 of the attacks on a data plane: half of a change, or a reference to nothing.
#[test]
fn a_set_is_whole_or_refused_and_a_decision_goes_by_one_set() {
    let allow = text("allow: [{name: r, from: [anyone], tcp: {port: 8443}}]\n");
    let deny =
        text("deny: [{name: stop, from: [anyone], tcp: {port: 8443}}]\n").replace("name: api", "name: stops");
    let unknown = text(
        "allow: [{name: r, from: [anyone], jwt: {issuer: \"https://nobody.test\", audience: any}, http: {port: 1}}]\n",
    );

    assert!(set(&[("a.yaml", &unknown)]).unwrap_err().contains("https://nobody.test"));
    assert!(set(&[("a.yaml", &allow), ("b.yaml", &unknown.replace("name: api", "name: b"))]).is_err());
    assert!(set(&[("a.yaml", &allow), ("b.yaml", "")]).is_err());
    let orders = [[("a.yaml", &*allow), ("b.yaml", &*deny)], [("b.yaml", &*deny), ("a.yaml", &*allow)]];
    let sets = orders.map(|files| set(&files).unwrap());
    assert_eq!(sets[0].generation(), sets[1].generation());
    let id = SpiffeId::parse(API).unwrap();
    let before = set(&[("a.yaml", &allow)]).unwrap().for_workload(&id);
    for set in &sets {
        assert!(!web().tcp(&set.for_workload(&id)));
    }
    assert!(web().tcp(&before), "what was taken from one set is not changed by another");
}

/// Row 17: a tunnel and another protocol are no requests.
#[test]
fn a_rule_for_requests_grants_no_tunnel_and_no_other_protocol() {
    let policies = api("allow: [{name: r, from: [anyone], http: {port: 8443}}]\n");
    let (host, path) = (CanonicalHost::parse("db").unwrap(), CanonicalPath::parse("/").unwrap());

    for kind in [RequestKind::Connect { port: Some(5432) }, RequestKind::Upgrade { protocol: "websocket" }] {
        let request = Request { kind, ..Request::new("GET", Some(&host), &path) };
        assert!(!web().ask(|connection| policies.decide_http(connection, &request).is_allowed()));
    }
}

/// Row 18: no policy at all, a token that nobody asked for, and exemptions that nobody wrote.
#[test]
fn what_no_policy_names_is_closed_and_a_rule_about_tokens_wants_one() {
    let issuers = "issuers: [{issuer: \"https://i.test\", keys: {url: \"https://i.test/keys\"}}]\n";
    let tokens = api(&format!(
        "{issuers}allow: [{{name: r, from: [anyone], jwt: {{issuer: \"https://i.test\", audience: any}}, http: {{port: 8443}}}}]\n"
    ));
    let set = set(&[("api.yaml", &text("allow: [{name: r, from: [anyone], tcp: {port: 8443}}]\n"))]).unwrap();
    let elsewhere = set.for_workload(&SpiffeId::parse("spiffe://a.test/ns/shop/sa/db").unwrap());

    assert!(!web().tcp(&elsewhere) && !web().get(&elsewhere));
    let path = CanonicalPath::parse("/x").unwrap();
    for token in [Token::Absent, Token::Invalid] {
        let request = Request { token, ..Request::new("GET", None, &path) };
        assert!(!web().ask(|connection| tokens.decide_http(connection, &request).is_allowed()), "{token:?}");
    }
    for probe in ["/healthz", "/readyz", "/livez", "/health", "/ping"] {
        for who in
            [nobody(), From { source: "169.254.7.127", ..nobody() }, From { source: "127.0.0.1", ..nobody() }]
        {
            assert!(!who.sends(&elsewhere, "GET", None, probe, &[]), "{probe}");
        }
    }
}

/// Row 18 in Istio's files: a RequestAuthentication alone asks nobody for a token, and its meaning is kept. A daemon that
/// closes what no policy selects closes this too.
#[test]
fn a_request_authentication_alone_opens_nothing_where_unselected_workloads_are_closed() {
    let file = Source::new(
        "t.yaml",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t, namespace: shop}\nspec: {jwtRules: [{issuer: \"https://i.test\", jwksUri: \"https://i.test/keys\"}]}\n",
    );
    let asked = |unselected| {
        let mesh = Mesh { unselected, ..Mesh::default() };
        let options = Options { mesh, ..Options::default() };
        let set = compile_with(std::slice::from_ref(&file), &options)
            .unwrap_or_else(|problems| panic!("{problems}"));
        web().get(&set.protecting(&Workload::of(&SpiffeId::parse(API).unwrap())))
    };

    assert!(asked(policy::Unselected::Allow), "what Istio does");
    assert!(!asked(policy::Unselected::Deny));
}

/// Also misread: a prefix that ends in the middle of a word.
#[test]
fn a_star_ends_at_a_slash_and_admin_is_not_administrator() {
    refused("deny: [{name: r, from: [anyone], http: {port: 8443, paths: [\"/admin*\"]}}]\n", "/admin*");
    let policies =
        api("allow: [{name: r, from: [anyone], http: {port: 8443, paths: [/admin/**, /a.c, /v/*/x]}}]\n");

    for (path, granted) in [
        ("/admin", true),
        ("/admin/x/y", true),
        ("/administrator", false),
        ("/adminx/y", false),
        ("/a.c", true),
        ("/abc", false),
        ("/v/1/x", true),
        ("/v/1/2/x", false),
        ("/v//x", false),
    ] {
        assert_eq!(web().sends(&policies, "GET", Some("svc"), path, &[]), granted, "{path}");
    }
}

/// Also misread: the first rule that matches decides.
#[test]
fn a_denial_beats_a_grant_in_whatever_order_and_file_they_are_written() {
    let allow = "allow: [{name: r, from: [anyone], tcp: {port: 8443}}]\n";
    let deny = "deny: [{name: stop, from: [anyone], tcp: {port: 8443}}]\n";
    for rules in [format!("{allow}{deny}"), format!("{deny}{allow}")] {
        assert!(!web().tcp(&api(&rules)), "{rules}");
    }
    let allows = text(allow);
    let denies = text(deny).replace("name: api", "name: other");
    for (first, second) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
        let set = set(&[(first, &allows), (second, &denies)]).unwrap();
        assert!(!web().tcp(&set.for_workload(&SpiffeId::parse(API).unwrap())));
    }
}

/// Also misread: no policies mean that everything may pass.
#[test]
fn no_policies_and_no_rules_let_nothing_pass() {
    let id = SpiffeId::parse(API).unwrap();
    for set in [
        set(&[]).unwrap(),
        PolicySet::empty(),
        PolicySet::unavailable(),
        set(&[("a.yaml", &text(""))]).unwrap(),
    ] {
        assert!(!web().tcp(&set.for_workload(&id)) && !web().get(&set.for_workload(&id)));
    }
}

/// Also misread: `until` and a clock that jumps. A shadow policy enforces from its moment on, whatever was decided before; a
/// rule that ends its own shadow must say when.
#[test]
fn a_shadow_ends_at_its_moment_whatever_was_decided_before() {
    refused("mode: shadow\n", "until");
    let policies = api(
        "mode: shadow\nuntil: 1970-01-11\nallow: [{name: r, from: [spiffe://a.test/x], http: {port: 8443}}]\n",
    );
    let on = |day| From { day, ..web() };

    assert!(on(9).get(&policies));
    assert!(!on(10).get(&policies) && !on(11).get(&policies));
    assert!(!on(3_000_000).get(&policies), "a clock that is far off");
    let path = CanonicalPath::parse("/x").unwrap();
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 10);
    on(9).ask(|connection| {
        let policy::AtConnect::Residual(residual) = policies.at_connect(connection) else {
            panic!("in shadow")
        };
        let request = Request::new("GET", None, &path);
        assert!(residual.decide(&request, connection.now).is_allowed());
        assert!(!residual.decide(&request, late).is_allowed(), "an old connection outlives the shadow");
    });
}

/// Row 3, and 31 of the attacks on a data plane: one header, several values.
#[test]
fn a_denial_of_a_header_wants_one_value_and_a_grant_all_joined_or_not() {
    let granted = api("allow: [{name: r, from: [anyone], http: {port: 8443, headers: {x-role: [user]}}}]\n");
    let denied = api(
        "allow: [{name: open, from: [anyone], http: {port: 8443}}]\ndeny: [{name: r, from: [anyone], http: {port: 8443, headers: {x-role: [admin]}}}]\n",
    );
    let send = |policies, headers: &[(&str, &str)]| web().sends(policies, "GET", Some("svc"), "/", headers);

    assert!(
        send(&granted, &[("x-role", "user")]) && send(&granted, &[("X-Role", "user"), ("x-role", "user")])
    );
    let mixed: [&[(&str, &str)]; 4] = [
        &[("x-role", "user"), ("x-role", "admin")],
        &[("x-role", "admin"), ("x-role", "user")],
        &[("x-role", "user, admin")],
        &[("x-role", "admin,user")],
    ];
    for headers in mixed {
        assert!(!send(&granted, headers) && !send(&denied, headers), "{headers:?}");
    }
    assert!(!send(&granted, &[]) && send(&denied, &[]));
}

/// Rows 1 and 2: every spelling that is accepted is one path and one host, and the rest is refused before a rule sees it.
#[test]
fn every_spelling_of_a_denied_path_or_host_is_denied_or_refused() {
    let policies = api(
        "allow: [{name: open, from: [anyone], http: {port: 8443}}]\ndeny: [{name: r, from: [anyone], http: {port: 8443, paths: [/admin/**]}}, {name: s, from: [anyone], http: {port: 8443, hosts: [inner.test]}}]\n",
    );
    let paths = [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/admin/",
        "/admin?x",
        "/admin/.",
        "/admin%2fx",
        "/%2fadmin",
        "/x%5c..%5cadmin",
        "/admin%00",
        "/admin#x",
        "/../admin",
        "/admin;x",
        "/..;/admin",
        "/%252e%252e/admin",
        "/admin%zz",
    ];
    for path in paths {
        let passes =
            CanonicalPath::parse(path).is_ok() && web().sends(&policies, "GET", Some("svc"), path, &[]);
        assert!(!passes, "{path}");
    }
    for host in [
        "inner.test",
        "INNER.test",
        "inner.test.",
        "inner.test:80",
        "u@inner.test",
        "inner.test,x",
        "inner.test x",
    ] {
        let passes =
            CanonicalHost::parse(host).is_ok() && web().sends(&policies, "GET", Some(host), "/", &[]);
        assert!(!passes, "{host}");
    }
}
