//! What is refused, one flaw for each text, and what is accepted with a warning.

use policy::strict::Source;
use policy::{Compat, Mesh, Options, PolicySet, compile_with};

fn compile(text: &str, compat: Compat) -> Result<PolicySet, policy::strict::Problems> {
    let options = Options { mesh: Mesh { compat, ..Mesh::default() }, ..Options::default() };
    compile_with(&[Source::new("p.yaml", text)], &options)
}

/// The one problem of a text: place and message, and cure.
fn problem(text: &str, compat: Compat) -> (String, String) {
    let problems = compile(text, compat).map(|_| ()).expect_err(text);
    let all: Vec<_> = problems.iter().collect();
    let [first] = all.as_slice() else {
        return (format!("{} problems: {problems}", all.len()), String::new());
    };
    let place = first.position.map(|place| format!("{}:{}: ", place.line, place.column)).unwrap_or_default();
    (format!("{place}{}", first.message), first.cure.clone().unwrap_or_default())
}

fn policy(spec: &str) -> String {
    format!("{HEAD}spec:\n{}", indented(spec))
}

fn source(fields: &str) -> String {
    policy(&format!("rules:\n  - from:\n      - source: {{{fields}}}"))
}

fn operation(fields: &str) -> String {
    policy(&format!("rules:\n  - to:\n      - operation: {{{fields}}}"))
}

fn when(fields: &str) -> String {
    policy(&format!("rules:\n  - when:\n      - {{{fields}}}"))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn peers(spec: &str) -> String {
    policy(spec).replace("AuthorizationPolicy", "PeerAuthentication")
}

fn tokens(rule: &str) -> String {
    policy(&format!("jwtRules:\n  - {{{rule}}}")).replace("AuthorizationPolicy", "RequestAuthentication")
}

#[test]
fn one_flaw_refuses_a_file_and_the_problem_names_it() {
    let many = |count: usize, text: &str| vec![text; count].join(", ");
    let cases: Vec<(String, &str, &str)> = vec![
        // The envelope.
        (
            HEAD.to_owned(),
            "1:1: the key \"spec\" is missing",
            "write \"spec: {}\" if it is meant to be empty",
        ),
        (
            policy("{}").replace("io/v1\n", "io/v2\n"),
            "1:13: expected one of security.istio.io/v1, security.istio.io/v1beta1, found \"security.istio.io/v2\"",
            "did you mean \"security.istio.io/v1\"?",
        ),
        (
            policy("{}").replace("AuthorizationPolicy", "AuthorisationPolicy"),
            "2:7: expected one of AuthorizationPolicy, PeerAuthentication, RequestAuthentication, found \"AuthorisationPolicy\"",
            "did you mean \"AuthorizationPolicy\"?",
        ),
        (policy("{}").replace("  name: p\n", ""), "4:3: the key \"name\" is missing", ""),
        (
            policy("{}").replace("name: p", "name: P"),
            "4:9: \"P\" is not a name of Kubernetes",
            "use small letters, digits, \"-\" and \".\", at most 253 of them",
        ),
        (
            policy("{}") + "extra: 1\n",
            "8:1: unknown key \"extra\"",
            "known keys: apiVersion, kind, metadata, spec, status",
        ),
        (
            policy("{}").replace(
                "  namespace: shop\n",
                "  namespace: shop\n  annotations: {istio.io/dry-run: \"yes\"}\n",
            ),
            "6:35: \"istio.io/dry-run\" is neither true nor false",
            "write \"true\"",
        ),
        (
            policy("{}").replace(
                "  namespace: shop\n",
                "  namespace: shop\n  annotations: {istio.io/dry-run: true}\n",
            ),
            "6:35: expected a text, \"true\" is a boolean",
            "put it in quotes if a text is meant",
        ),
        (policy("{}").replace("spec:\n  {}\n", "spec: null\n"), "6:7: expected a mapping, found nothing", ""),
        // The policy.
        (policy("rulez: []"), "7:3: unknown key \"rulez\"", "did you mean \"rules\"?"),
        (
            policy("action: CUSTOM"),
            "7:11: the action CUSTOM is not supported: nobody would be asked",
            "write the rules as ALLOW and DENY policies",
        ),
        (
            policy("action: allow"),
            "7:11: expected one of ALLOW, DENY, AUDIT, found \"allow\"",
            "did you mean \"ALLOW\"?",
        ),
        (
            policy("provider: {name: x}"),
            "7:3: \"provider\" belongs to the action CUSTOM, which is not supported",
            "remove it, or write the rules out",
        ),
        (
            policy("action: DENY"),
            "7:3: a policy that denies has no rules and would do nothing",
            "write \"rules: [{}]\" to refuse everything",
        ),
        (
            policy("action: DENY\nrules: []"),
            "7:3: a policy that denies has no rules and would do nothing",
            "write \"rules: [{}]\" to refuse everything",
        ),
        (
            policy(&format!("rules: [{}]", many(513, "{}"))),
            "7:10: the list has 513 items, at most 512 are accepted",
            "",
        ),
        (
            policy("targetRefs: [{kind: Service, name: x}]"),
            "7:3: \"targetRefs\" attaches to gateways and waypoints, which there are none of here",
            "write \"selector\" with the labels of the workloads",
        ),
        (
            policy("selector: {matchLabel: {a: b}}"),
            "7:14: unknown key \"matchLabel\"",
            "did you mean \"matchLabels\"?",
        ),
        (
            policy("selector: {matchLabels: {a: \"b*\"}}"),
            "7:31: the label \"a\" is not spelled out",
            "selectors compare whole labels, without \"*\"",
        ),
        (
            policy("selector: {matchLabels: {\"*\": b}}"),
            "7:33: the label \"*\" is not spelled out",
            "selectors compare whole labels, without \"*\"",
        ),
        // The rules.
        (policy("rules:\n  - form: []"), "8:7: unknown key \"form\"", "did you mean \"from\"?"),
        (
            policy("rules:\n  - from: []"),
            "8:13: the list is empty",
            "leave the key out, or name at least one",
        ),
        (policy("rules:\n  - to: []"), "8:11: the list is empty", "leave the key out, or name at least one"),
        (
            policy("rules:\n  - when: []"),
            "8:13: the list is empty",
            "leave the key out, or name at least one",
        ),
        (policy("rules:\n  - from: [{}]"), "8:14: the key \"source\" is missing", ""),
        (source(""), "9:19: it says nothing", "leave it out, or name at least one thing"),
        (operation(""), "9:22: it says nothing", "leave it out, or name at least one thing"),
        (source("principals: []"), "9:32: the list is empty", "leave the key out, or name at least one"),
        (source("principals: [\"\"]"), "9:33: the text is empty", ""),
        (source("principal: [a]"), "9:20: unknown key \"principal\"", "did you mean \"principals\"?"),
        (
            operation("namespaces: [a]"),
            "9:23: unknown key \"namespaces\"",
            "known keys: hosts, notHosts, ports, notPorts, methods, notMethods, paths, notPaths",
        ),
        (
            source("remoteIpBlocks: [10.0.0.0/8]"),
            "9:20: \"remoteIpBlocks\" is what proxies in between say about the caller, and none is trusted here to say it",
            "write \"ipBlocks\" with the addresses that connect",
        ),
        (
            source("ipBlocks: [10.0.0.0/33]"),
            "9:31: \"10.0.0.0/33\" is not a network: a network is an address, a slash and the number of leading bits",
            "",
        ),
        (
            source("ipBlocks: [\"::ffff:10.0.0.0/104\"]"),
            "9:31: \"::ffff:10.0.0.0/104\" is IPv4 written as IPv6, which matches nobody in Istio",
            "write the IPv4 network that is meant",
        ),
        (
            source("serviceAccounts: [\"a/*\"]"),
            "9:38: \"a/*\" is not a service account",
            "write \"namespace/account\", or \"account\" for one of the policy's namespace, without \"*\"",
        ),
        (
            source("serviceAccounts: [a/b/c]"),
            "9:38: \"a/b/c\" is not a service account",
            "write \"namespace/account\", or \"account\" for one of the policy's namespace, without \"*\"",
        ),
        (
            source(&format!("serviceAccounts: [{}]", many(17, "a"))),
            "9:37: the list has 17 items, at most 16 are accepted",
            "",
        ),
        (
            source("serviceAccounts: [a], principals: [b]"),
            "9:19: service accounts cannot be combined with principals or namespaces",
            "put them into a source of their own",
        ),
        (
            source("serviceAccounts: [a], notNamespaces: [b]"),
            "9:19: service accounts cannot be combined with principals or namespaces",
            "put them into a source of their own",
        ),
        (
            source("namespaces: [\"a|b\"]"),
            "9:33: \"a|b\" has characters that no identity has there",
            "use letters, digits, \"-\", \"_\", \".\" and \"*\"",
        ),
        (source("namespaces: [\"a*b*c*d*e*\"]"), "9:33: there are more than 4 \"*\"", ""),
        (operation("ports: [\"65536\"]"), "9:31: \"65536\" is not a port from 0 to 65535", ""),
        (operation("ports: [\"+1\"]"), "9:31: \"+1\" is not a port from 0 to 65535", ""),
        (
            operation("ports: [8080]"),
            "9:31: expected a text, \"8080\" is a number",
            "put it in quotes if a text is meant",
        ),
        (
            operation("paths: [\"/a/{**}/{*}\"]"),
            "9:31: \"/a/{**}/{*}\" is not a path: \"{**}\" can only be the last operator",
            "",
        ),
        (
            operation("paths: [\"/a/{id}\"]"),
            "9:31: \"/a/{id}\" is not a path: \"{\" and \"}\" are only for \"{*}\" and \"{**}\"",
            "",
        ),
        (
            operation("paths: [\"/a/{*}/b*\"]"),
            "9:31: \"/a/{*}/b*\" is not a path: beside \"{*}\" and \"{**}\" there are only whole segments, without \"*\"",
            "",
        ),
        (
            operation("paths: [\"/a/x{*}\"]"),
            "9:31: \"/a/x{*}\" is not a path: \"{\" and \"}\" are only for \"{*}\" and \"{**}\"",
            "",
        ),
        (when("values: [a]"), "9:11: the key \"key\" is missing", ""),
        (
            when("key: source.ip"),
            "9:11: the condition has nothing to compare with",
            "add \"values\" or \"notValues\"",
        ),
        (
            when("key: source.principle, values: [a]"),
            "9:17: unknown attribute \"source.principle\"",
            "did you mean \"source.principal\"?",
        ),
        (
            when("key: remote.ip, values: [10.0.0.1]"),
            "9:17: \"remote.ip\" is what proxies in between say about the caller, and none is trusted here to say it",
            "write \"source.ip\" with the addresses that connect",
        ),
        (
            when("key: \"experimental.envoy.filters.a[b]\", values: [x]"),
            "9:17: \"experimental.envoy.filters.a[b]\" asks what a filter of Envoy says, and there is none here",
            "",
        ),
        (
            when("key: \"request.headers\", values: [x]"),
            "9:17: \"request.headers\" does not say which one",
            "write it as in \"request.headers[x-version]\"",
        ),
        (
            when("key: \"request.headers[a][b]\", values: [x]"),
            "9:17: \"request.headers[a][b]\" does not say which one",
            "write it as in \"request.headers[x-version]\"",
        ),
        (
            when("key: \"request.headers[:path]\", values: [x]"),
            "9:17: \":path\" is no header here",
            "write \"paths\" under \"operation\"",
        ),
        (
            when("key: \"request.headers[Host]\", values: [x]"),
            "9:17: \"Host\" is no header here",
            "write \"hosts\" under \"operation\"",
        ),
        (
            when("key: \"request.auth.claims[]\", values: [x]"),
            "9:17: \"request.auth.claims[]\" does not say which one",
            "write it as in \"request.auth.claims[realm][role]\"",
        ),
        (when("key: destination.port, values: [\"x\"]"), "9:44: \"x\" is not a port from 0 to 65535", ""),
        // Other kinds.
        (
            peers("mtls: {mode: ON}"),
            "7:16: expected one of UNSET, DISABLE, PERMISSIVE, STRICT, found \"ON\"",
            "",
        ),
        (
            peers("portLevelMtls: {80: {mode: STRICT}}"),
            "7:18: \"portLevelMtls\" needs a selector",
            "add \"selector\" with the labels of the workload whose ports are meant",
        ),
        (
            peers("selector: {matchLabels: {a: b}}\nportLevelMtls: {0: {mode: STRICT}}"),
            "8:22: \"0\" is not a port from 1 to 65535",
            "",
        ),
        (tokens("jwksUri: https://a.example/k"), "8:7: the key \"issuer\" is missing", ""),
        (
            tokens("issuer: a"),
            "8:7: there are neither \"jwks\" nor \"jwksUri\"",
            "add \"jwksUri\"; keys are not looked for at the issuer",
        ),
        (
            tokens("issuer: a, jwksUri: http://a.example/k"),
            "8:28: \"http://a.example/k\" does not begin with \"https://\"",
            "whoever is on the way could put keys of their own; fetch them by TLS",
        ),
        (
            tokens("issuer: a, jwksUri: https://a.example/k, outputPayloadToHeader: x"),
            "8:49: \"outputPayloadToHeader\" is not supported: claims are not handed on in headers",
            "remove it: it would not be done",
        ),
        (
            tokens("issuer: a, jwksUri: https://a.example/k, outputClaimToHeaders: []"),
            "8:49: \"outputClaimToHeaders\" is not supported: claims are not handed on in headers",
            "remove it: it would not be done",
        ),
        (
            tokens("issuer: a, jwksUri: https://a.example/k, spaceDelimitedClaims: [x]"),
            "8:49: \"spaceDelimitedClaims\" is not supported: only \"scope\" and \"permission\" are taken apart at spaces",
            "remove it: it would not be done",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, message, cure) in &cases {
        let found = problem(text, Compat::Sidecar);
        if (found.0.as_str(), found.1.as_str()) != (*message, *cure) {
            wrong.push(format!("{found:?}, expected {message:?}, {cure:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn trust_domains_are_refused_in_ambient_mode() {
    let cases = [
        (
            source("trustDomains: [a.test]"),
            "9:34: trust domains are not compared in ambient mode",
            "write the trust domain into \"principals\"",
        ),
        (
            source("principals: [\"*\"], notTrustDomains: [a.test]"),
            "9:56: trust domains are not compared in ambient mode",
            "write the trust domain into \"principals\"",
        ),
        (
            when("key: source.trustDomain, values: [a.test]"),
            "9:17: trust domains are not compared in ambient mode",
            "write the trust domain into \"source.principal\"",
        ),
    ];
    for (text, message, cure) in &cases {
        let found = problem(text, Compat::Ambient);
        assert_eq!((found.0.as_str(), found.1.as_str()), (*message, *cure), "{text}");
    }
}

#[test]
fn what_istio_accepts_and_few_people_mean_is_a_warning() {
    let cases: Vec<(String, Compat, &str)> = vec![
        (
            source("principals: [\"spiffe://cluster.local/ns/a/sa/b\"]"),
            Compat::Sidecar,
            "9:33: \"spiffe://cluster.local/ns/a/sa/b\" matches nobody: Istio puts \"spiffe://\" before it once more",
        ),
        (
            source("principals: [\"a/*/b\"]"),
            Compat::Sidecar,
            "9:33: the \"*\" within \"a/*/b\" is an ordinary character, and matches hardly anything",
        ),
        (
            source("principals: [\"*/sa/a.b\"]"),
            Compat::Sidecar,
            "9:33: \"*/sa/a.b\" is a regular expression to some versions of Istio, and plain text here",
        ),
        (
            operation("hosts: [\"a.*.b\"]"),
            Compat::Sidecar,
            "9:31: the \"*\" within \"a.*.b\" is an ordinary character, and matches hardly anything",
        ),
        (
            operation("methods: [\"G*T\"]"),
            Compat::Sidecar,
            "9:33: the \"*\" within \"G*T\" is an ordinary character, and matches hardly anything",
        ),
        (
            operation("paths: [\"/a/*/b\"]"),
            Compat::Sidecar,
            "9:31: the \"*\" within \"/a/*/b\" is an ordinary character, and matches hardly anything",
        ),
        (
            operation("paths: [info]"),
            Compat::Sidecar,
            "9:31: \"info\" matches no path: they begin with \"/\"",
        ),
        (
            source("ipBlocks: [10.1.2.3/8]"),
            Compat::Sidecar,
            "9:31: \"10.1.2.3/8\" has bits after the prefix: the network is 10.0.0.0/8",
        ),
        (policy("action: AUDIT"), Compat::Sidecar, "4:9: a policy with the action AUDIT changes no decision"),
        (
            policy("action: DENY\nrules:\n  - to: [{operation: {methods: [POST]}}]"),
            Compat::Sidecar,
            "9:7: on ports served as opaque TCP the rule denies more: what it says about requests is left out there",
        ),
        (
            policy("action: DENY\nrules:\n  - to: [{operation: {methods: [POST]}}]"),
            Compat::Ambient,
            "9:7: the rule denies nothing: ztunnel leaves out what is about requests",
        ),
        (
            operation("methods: [GET]"),
            Compat::Ambient,
            "4:9: no rule of the policy can grant anything in ambient mode",
        ),
        (
            peers("mtls: {mode: DISABLE}"),
            Compat::Sidecar,
            "7:16: DISABLE is read as PERMISSIVE: an identity that is proved counts",
        ),
        (
            peers("mtls: {mode: STRICT}\nselector: {matchLabels: {a: b}}")
                .replace("namespace: shop", "namespace: istio-system"),
            Compat::Sidecar,
            "4:9: a PeerAuthentication with a selector has no effect in the root namespace",
        ),
        (
            format!(
                "{}---\n{}",
                peers("mtls: {mode: STRICT}"),
                peers("mtls: {mode: STRICT}").replace("name: p", "name: q")
            ),
            Compat::Sidecar,
            "12:9: shop/q is about the same workloads as shop/p: only the older one counts, by creationTimestamp and then by name",
        ),
        (
            tokens("issuer: a, jwksUri: https://a.example/k"),
            Compat::Ambient,
            "4:9: tokens are not looked at in ambient mode: ztunnel sees no requests",
        ),
    ];
    for (text, compat, expected) in cases {
        let set = compile(&text, compat).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let found: Vec<String> = set
            .warnings()
            .iter()
            .map(|warning| {
                let place = warning.position.expect("a warning has a place");
                format!("{}:{}: {}", place.line, place.column, warning.message)
            })
            .collect();
        assert_eq!(found, [expected], "{text}");
    }
}

#[test]
fn ordinary_files_have_no_warnings() {
    for text in [
        policy("{}"),
        operation("paths: [/a*], hosts: [\"*.example\"]"),
        source("principals: [\"*/sa/web\"]"),
    ] {
        assert!(compile(&text, Compat::Sidecar).unwrap().warnings().is_empty(), "{text}");
    }
}

#[test]
fn a_name_is_given_once_in_the_whole_directory() {
    let files = [Source::new("a.yaml", policy("{}")), Source::new("b.yaml", policy("action: AUDIT"))];

    let problems = compile_with(&files, &Options::default()).map(|_| ()).unwrap_err();

    assert!(
        problems
            .to_string()
            .starts_with("b.yaml:4:9: the AuthorizationPolicy shop/p is already given at a.yaml:4"),
        "{problems}"
    );
    let other_kind = [Source::new("a.yaml", policy("{}")), Source::new("b.yaml", peers("{}"))];
    assert!(compile_with(&other_kind, &Options::default()).is_ok());
}

#[test]
fn a_policy_does_not_grow_without_bound() {
    let many = |what: &str, inner: &str| {
        let items: Vec<String> = (0..512).map(|_| format!("{{{what}: {{{inner}}}}}")).collect();
        items.join(", ")
    };
    let text = policy(&format!(
        "rules:\n  - {{from: [{}], to: [{}]}}",
        many("source", "namespaces: [a]"),
        many("operation", "ports: [\"1\"]")
    ));

    let found = problem(&text, Compat::Sidecar);

    assert_eq!(found.0, "policy shop/p comes to more than 20000 rules, each \"from\" with each \"to\"");
}

#[test]
fn every_document_of_a_file_is_read_and_problems_keep_their_lines() {
    let text = format!(
        "{}---\n{}---\n{}---\n",
        policy("{}"),
        policy("bad: 1").replace("name: p", "name: q"),
        policy("worse: 1")
    );

    let problems = compile(&text, Compat::Sidecar).map(|_| ()).unwrap_err();

    let lines: Vec<u32> =
        problems.iter().filter_map(|problem| problem.position).map(|place| place.line).collect();
    assert_eq!(lines, [15, 23]);
}

const HEAD: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  namespace: shop\n";
