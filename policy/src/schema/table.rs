//! Every mapping of the language and its keys.

use super::forms::Form;
use super::traffic::{CONNECT, GRPC, HTTP, TCP, UPGRADE};
use crate::document::{
    MAX_AUDIENCES, MAX_FROM, MAX_GUARANTEES, MAX_ISSUERS, MAX_NETWORKS, MAX_PROTECTS, MAX_RULES_PER_POLICY,
    MAX_SERVER_NAMES, MAX_TESTS,
};

/// A mapping.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
    pub(super) choices: &'static [Choice],
}

/// A key of a mapping.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) required: bool,
    pub(super) about: &'static str,
    /// A value of the key, as JSON.
    pub(super) example: &'static str,
}

/// How the keys of a mapping depend on each other.
pub(super) enum Choice {
    /// There is exactly one of them.
    One(&'static [&'static str]),
    /// There is one of them, or none.
    AtMostOne(&'static [&'static str]),
    /// `demanded` is there if `key` is this word, and only then.
    Demands { key: &'static str, word: &'static str, demanded: &'static str },
    /// The two are not both there.
    Excludes { key: &'static str, excluded: &'static str },
}

const fn must(name: &'static str, form: Form, about: &'static str, example: &'static str) -> Key {
    Key { name, form, required: true, about, example }
}

pub(super) const fn may(name: &'static str, form: Form, about: &'static str, example: &'static str) -> Key {
    Key { name, form, required: false, about, example }
}

/// Every mapping.
pub(super) const SHAPES: &[Shape] =
    &[POLICY, ISSUER, KEYS, RULE, TOKEN, TCP, HTTP, GRPC, CONNECT, UPGRADE, GUARANTEE, NEVER, TEST];

const POLICY: Shape = Shape {
    name: "policy",
    about: "Who may call some workloads, on which ports, with which requests.",
    keys: &[
        must("vouchsafe", Form::Exactly("policy/v1"), "The language of the file.", "\"policy/v1\""),
        must("name", Form::Name, "The name of the policy, unique in the directory.", "\"payments-api\""),
        may("owner", Form::Text, "Whom to ask; shown, not used.", "\"team-payments@example.com\""),
        must(
            "protects",
            Form::OneOrList(&Form::Id, MAX_PROTECTS),
            "The workloads: SPIFFE IDs and patterns.",
            "\"spiffe://prod.example/ns/payments/sa/api\"",
        ),
        may(
            "mode",
            Form::Word(&["enforce", "shadow"]),
            "Whether it enforces, or only says what it would refuse.",
            "\"enforce\"",
        ),
        may(
            "until",
            Form::Like("^[0-9]{4}-[0-9]{2}-[0-9]{2}"),
            "The day or moment from which a policy in shadow enforces.",
            "\"2027-01-31\"",
        ),
        may(
            "issuers",
            Form::List(&Form::Shape("issuer"), MAX_ISSUERS),
            "Who may issue the tokens that rules of any file ask for.",
            "",
        ),
        may(
            "allow",
            Form::List(&Form::Shape("rule"), MAX_RULES_PER_POLICY),
            "What takes place, unless it is refused.",
            "",
        ),
        may(
            "deny",
            Form::List(&Form::Shape("rule"), MAX_RULES_PER_POLICY),
            "What is refused, whatever is allowed.",
            "",
        ),
        may(
            "guarantees",
            Form::List(&Form::Shape("guarantee"), MAX_GUARANTEES),
            "What must never be possible; proved for every request before the files are taken over.",
            "[{\"never\": {\"from\": [\"unauthenticated\"]}}]",
        ),
        may(
            "tests",
            Form::List(&Form::Shape("test"), MAX_TESTS),
            "What must be true of the whole directory.",
            "",
        ),
    ],
    choices: &[Choice::Demands { key: "mode", word: "shadow", demanded: "until" }],
};

const ISSUER: Shape = Shape {
    name: "issuer",
    about: "An issuer of tokens.",
    keys: &[
        must("issuer", Form::Text, "The iss of its tokens, to the letter.", "\"https://login.example.com\""),
        may(
            "audiences",
            Form::List(&Form::Text, MAX_AUDIENCES),
            "A token must be meant for one of these.",
            "[\"payments\"]",
        ),
        must("keys", Form::Shape("keys"), "Where its public keys are.", "{\"file\": \"login.jwks.json\"}"),
    ],
    choices: &[],
};

const KEYS: Shape = Shape {
    name: "keys",
    about: "Where the public keys of an issuer are: a JWK set.",
    keys: &[
        may(
            "file",
            Form::Like("^[^./\\\\][^/\\\\]*\\.json$"),
            "A file beside the policy.",
            "\"login.jwks.json\"",
        ),
        may(
            "url",
            Form::Like("^https://[^#]+$"),
            "An address over TLS.",
            "\"https://login.example.com/jwks.json\"",
        ),
    ],
    choices: &[Choice::One(&["file", "url"])],
};

const LAYERS: &[&str] = &["tcp", "http", "grpc", "connect", "upgrade"];

const RULE: Shape = Shape {
    name: "rule",
    about: "A rule matches if everything it names matches; of the values in one list, one is enough.",
    keys: &[
        must("name", Form::Name, "Unique in the policy; what records show.", "\"checkout-reads\""),
        must("from", FROM, FROM_ABOUT, "[\"spiffe://prod.example/ns/shop/sa/checkout\"]"),
        may("except", EXCEPT, EXCEPT_ABOUT, "[\"spiffe://prod.example/ns/batch/sa/sandbox\"]"),
        may("source_net", SOURCE_NET, SOURCE_NET_ABOUT, "[\"10.20.0.0/16\"]"),
        may(
            "sni",
            Form::List(&Form::Like(SERVER_NAME), MAX_SERVER_NAMES),
            "Server names of the TLS handshake, spelled out.",
            "[\"api.example\"]",
        ),
        may("jwt", Form::Shape("jwt"), "The verified token that the request must have.", ""),
        may("tcp", Form::Shape("tcp"), "Opaque connections.", "{\"port\": 9090}"),
        may("http", Form::Shape("http"), "HTTP requests.", "{\"port\": 8443, \"methods\": [\"GET\"]}"),
        may(
            "grpc",
            Form::Shape("grpc"),
            "gRPC calls.",
            "{\"port\": 9443, \"service\": \"payments.v1.Settlement\"}",
        ),
        may(
            "connect",
            Form::Shape("connect"),
            "Tunnels asked for with CONNECT.",
            "{\"port\": 8443, \"hosts\": [\"db.example\"], \"to_ports\": [5432]}",
        ),
        may(
            "upgrade",
            Form::Shape("upgrade"),
            "Upgrades to another protocol.",
            "{\"port\": 8443, \"protocols\": [\"websocket\"]}",
        ),
    ],
    choices: &[Choice::One(LAYERS), Choice::Excludes { key: "jwt", excluded: "tcp" }],
};

const TOKEN: Shape = Shape {
    name: "jwt",
    about: "What is asked of the token of a request.",
    keys: &[
        must(
            "issuer",
            Form::Text,
            "An issuer that some file of the directory declares.",
            "\"https://login.example.com\"",
        ),
        may("audience", Form::Text, "For whom the token must be meant, or any.", "\"payments\""),
        may(
            "audiences",
            Form::List(&Form::Text, MAX_AUDIENCES),
            "For one of whom the token must be meant.",
            "[\"payments\"]",
        ),
        may(
            "claims",
            Form::Claims,
            "Claims and the values of which one must be there.",
            "{\"scope\": [\"settle\"]}",
        ),
    ],
    choices: &[Choice::AtMostOne(&["audience", "audiences"])],
};

const GUARANTEE: Shape = Shape {
    name: "guarantee",
    about: "A promise about every possible request.",
    keys: &[must(
        "never",
        Form::Shape("never"),
        "What must never pass.",
        "{\"from\": [\"unauthenticated\"]}",
    )],
    choices: &[],
};

const NEVER: Shape = Shape {
    name: "never",
    about: "What must never pass, written as in a deny rule. Without a kind of traffic, no traffic at all.",
    keys: &[
        must("from", FROM, FROM_ABOUT, "[\"spiffe://prod.example/ns/dev/**\"]"),
        may(
            "except",
            EXCEPT,
            "SPIFFE IDs and patterns taken out of from.",
            "[\"spiffe://prod.example/ns/ops/sa/breakglass\"]",
        ),
        may("source_net", SOURCE_NET, SOURCE_NET_ABOUT, "[\"10.20.0.0/16\"]"),
        may(
            "to",
            Form::List(&Form::Id, MAX_PROTECTS),
            "The workloads; without it, those that the policy protects.",
            "[\"spiffe://prod.example/ns/payments/**\"]",
        ),
        may("tcp", Form::Shape("tcp"), "Any traffic on these ports.", "{\"port\": 9090}"),
        may(
            "http",
            Form::Shape("http"),
            "HTTP requests of every kind.",
            "{\"port\": 8443, \"paths\": [\"/admin/**\"]}",
        ),
        may("grpc", Form::Shape("grpc"), "gRPC calls.", ""),
        may("connect", Form::Shape("connect"), "Tunnels.", ""),
        may("upgrade", Form::Shape("upgrade"), "Upgrades.", ""),
    ],
    choices: &[Choice::AtMostOne(LAYERS)],
};

const TEST: Shape = Shape {
    name: "test",
    about: "What must be true of one access.",
    keys: &[
        must(
            "from",
            Form::Like("^(unauthenticated$|spiffe://)"),
            "One SPIFFE ID, or unauthenticated.",
            "\"spiffe://prod.example/ns/shop/sa/checkout\"",
        ),
        may(
            "to",
            Form::Id,
            "Which workload is called; without it, each that protects names without a wildcard.",
            "\"spiffe://prod.example/ns/payments/sa/api\"",
        ),
        may("tcp", Form::PortNumber, "A connection to a port.", "9090"),
        may(
            "http",
            Form::Like("^[^ ]+ [1-9][0-9]* /[^ ]*$"),
            "A request: method, port and path.",
            "\"GET 8443 /v1/rates/eur\"",
        ),
        may(
            "grpc",
            Form::Like("^[1-9][0-9]* [^ /]+/[^ /]+$"),
            "A call: port, service and method.",
            "\"9443 payments.v1.Settlement/Submit\"",
        ),
        may(
            "connect",
            Form::Like("^[1-9][0-9]* [^ ]+$"),
            "A tunnel: port, and where it leads.",
            "\"8443 db.example:5432\"",
        ),
        may(
            "upgrade",
            Form::Like("^[1-9][0-9]* [^ ]+ /[^ ]*$"),
            "An upgrade: port, protocol and path.",
            "\"8443 websocket /live\"",
        ),
        may("host", Form::Text, "The host of the request.", "\"api.example\""),
        may("headers", Form::Fields, "The header fields of the request.", "{\"x-environment\": \"prod\"}"),
        may(
            "jwt",
            Form::Token,
            "The claims of a verified token, or invalid.",
            "{\"iss\": \"https://login.example.com\", \"scope\": \"settle\"}",
        ),
        may("sni", Form::Like(SERVER_NAME), "The server name of the handshake.", "\"api.example\""),
        may("source_ip", Form::Text, "The caller's address; without it, 192.0.2.1.", "\"10.20.3.4\""),
        may(
            "at",
            Form::Like("^[0-9]{4}-[0-9]{2}-[0-9]{2}"),
            "The moment; without it, one at which every shadow policy enforces.",
            "\"2027-01-30\"",
        ),
        must("expect", Form::Word(&["allow", "deny"]), "What must happen.", "\"allow\""),
        may(
            "by",
            Form::Text,
            "The rule that decides, of this policy or as policy/rule.",
            "\"checkout-reads\"",
        ),
    ],
    choices: &[Choice::One(LAYERS), Choice::Excludes { key: "tcp", excluded: "jwt" }],
};

const FROM: Form = Form::List(&Form::Peer, MAX_FROM);
const FROM_ABOUT: &str = "The callers: SPIFFE IDs, patterns, anyone, unauthenticated.";
const EXCEPT: Form = Form::List(&Form::Id, MAX_FROM);
const EXCEPT_ABOUT: &str = "SPIFFE IDs and patterns taken out of from. In a deny rule it spares them from this denial and grants nothing.";
const SOURCE_NET: Form = Form::List(&Form::Like("^[0-9a-f.:]+/[0-9]{1,3}$"), MAX_NETWORKS);
const SOURCE_NET_ABOUT: &str = "Networks of the socket's other end.";
const SERVER_NAME: &str = "^[a-z0-9_][a-z0-9._-]*$";
