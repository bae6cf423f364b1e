//! The mappings that say which traffic is meant, and their keys.

use super::forms::{Form, PORTS};
use super::table::{Choice, Shape, may};
use crate::document::{MAX_HOSTS, MAX_METHODS, MAX_PATHS, MAX_PROTOCOLS, MAX_SERVICES};

pub(super) const TCP: Shape = Shape {
    name: "tcp",
    about: "Opaque connections to these ports.",
    keys: &[
        may("port", Form::Port, PORT_ABOUT, "9090"),
        may("ports", PORTS, PORTS_ABOUT, "[8443, \"9000-9010\"]"),
    ],
    choices: &[Choice::One(&["port", "ports"])],
};

pub(super) const HTTP: Shape = Shape {
    name: "http",
    about: "HTTP requests to these ports.",
    keys: &[
        may("port", Form::Port, PORT_ABOUT, "8443"),
        may("ports", PORTS, PORTS_ABOUT, "[8443, \"9000-9010\"]"),
        may(
            "methods",
            Form::List(&Form::Like("^[A-Z0-9_-]+$"), MAX_METHODS),
            "Methods, compared letter by letter.",
            "[\"GET\", \"HEAD\"]",
        ),
        may("hosts", HOSTS, HOSTS_ABOUT, "[\"api.example\", \"*.shop.example\"]"),
        may("paths", PATHS, PATHS_ABOUT, "[\"/v1/accounts/*\", \"/v1/rates/**\"]"),
        may("headers", Form::Headers, HEADERS_ABOUT, "{\"x-environment\": [\"prod\"]}"),
    ],
    choices: &[Choice::One(&["port", "ports"])],
};

pub(super) const GRPC: Shape = Shape {
    name: "grpc",
    about: "gRPC calls: POST requests to the service, a slash and the method.",
    keys: &[
        may("port", Form::Port, PORT_ABOUT, "9443"),
        may("ports", PORTS, PORTS_ABOUT, "[9443]"),
        may("service", Form::Like(SERVICE), "The service with its package.", "\"payments.v1.Settlement\""),
        may(
            "services",
            Form::List(&Form::Like(SERVICE), MAX_SERVICES),
            "Services with their packages.",
            "[\"payments.v1.Settlement\"]",
        ),
        may(
            "methods",
            Form::List(&Form::Like("^[A-Za-z_][A-Za-z0-9_]*$"), MAX_METHODS),
            "Methods of the service.",
            "[\"Submit\", \"Status\"]",
        ),
        may("hosts", HOSTS, HOSTS_ABOUT, "[\"api.example\"]"),
        may("headers", Form::Headers, HEADERS_ABOUT, "{\"x-environment\": [\"prod\"]}"),
    ],
    choices: &[Choice::One(&["port", "ports"]), Choice::AtMostOne(&["service", "services"])],
};

pub(super) const CONNECT: Shape = Shape {
    name: "connect",
    about: "Tunnels asked for with CONNECT.",
    keys: &[
        may("port", Form::Port, PORT_ABOUT, "8443"),
        may("ports", PORTS, PORTS_ABOUT, "[8443]"),
        may("hosts", HOSTS, "The hosts at the far end.", "[\"db.example\"]"),
        may("to_ports", PORTS, "The ports at the far end.", "[5432]"),
    ],
    choices: &[Choice::One(&["port", "ports"])],
};

pub(super) const UPGRADE: Shape = Shape {
    name: "upgrade",
    about: "Requests that ask to go on with another protocol.",
    keys: &[
        may("port", Form::Port, PORT_ABOUT, "8443"),
        may("ports", PORTS, PORTS_ABOUT, "[8443]"),
        may(
            "protocols",
            Form::List(&Form::Like("^[!#$%&'*+.^_`|~/0-9a-z-]+$"), MAX_PROTOCOLS),
            "Protocols in lower case.",
            "[\"websocket\"]",
        ),
        may("hosts", HOSTS, HOSTS_ABOUT, "[\"api.example\"]"),
        may("paths", PATHS, PATHS_ABOUT, "[\"/live\"]"),
        may("headers", Form::Headers, HEADERS_ABOUT, "{\"origin\": [\"https://shop.example\"]}"),
    ],
    choices: &[Choice::One(&["port", "ports"])],
};

const HOSTS: Form = Form::List(&Form::Like("^(\\*\\.)?[^*A-Z/@ ]+$"), MAX_HOSTS);
const HOSTS_ABOUT: &str = "Hosts in lower case; a leading * stands for exactly one label.";
const PATHS: Form = Form::List(&Form::Like("^/[^?#]*$"), MAX_PATHS);
const PATHS_ABOUT: &str = "Paths; * is one segment, a trailing ** the rest.";
const HEADERS_ABOUT: &str = "Headers in lower case, with their values or any. An allow rule wants every value among them, a deny rule matches any.";
const PORT_ABOUT: &str = "The workload's port, or any.";
const PORTS_ABOUT: &str = "The workload's ports, and ranges of them.";
const SERVICE: &str = "^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*$";
