//! Envoy with certificates in files: as the client of a sidecar, and as a server that wants to know who calls.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mesh::Mesh;
use crate::support::http::{self, Answer};
use crate::support::port;
use crate::support::process::Process;
use crate::support::wait::eventually;

/// One way through Envoy.
pub(super) struct Call {
    name: String,
    to: SocketAddr,
    files: PathBuf,
    expect: String,
    out: bool,
    http2: bool,
}

impl Call {
    /// From plaintext to mutual TLS with the SVID in `files`; the server has to be `expect`.
    pub(super) fn out(name: &str, to: SocketAddr, files: &Path, expect: &str) -> Self {
        let (name, files, expect) = (name.to_owned(), files.to_owned(), expect.to_owned());
        Self { name, to, files, expect, out: true, http2: false }
    }

    /// From mutual TLS with a client that has to be `expect` to plaintext.
    pub(super) fn into(name: &str, to: SocketAddr, files: &Path, expect: &str) -> Self {
        Self { out: false, ..Self::out(name, to, files, expect) }
    }

    /// Calls by HTTP/2.
    pub(super) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    fn listener(&self, at: SocketAddr) -> String {
        let tls = if self.out {
            String::new()
        } else {
            self.tls("Downstream", "require_client_certificate: true, ")
        };
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}\n    filter_chains:\n    - filters:\n      \
             - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
             \"@type\": {V3}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          stat_prefix: {name}\n          \
             forward_client_cert_details: SANITIZE_SET\n          set_current_client_cert_details: {{uri: true}}\n          \
             http_filters: [{{name: envoy.filters.http.router, typed_config: {{\"@type\": {V3}.filters.http.router.v3.Router}}}}]\n          \
             route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: {name}}}}}]}}]}}\n{tls}",
            name = self.name,
            ip = at.ip(),
            port = at.port(),
        )
    }

    fn cluster(&self) -> String {
        let tls = if self.out { self.tls("Upstream", "") } else { String::new() };
        let http2 = if self.http2 {
            format!(
                "    typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
                 {V3}.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}\n"
            )
        } else {
            String::new()
        };
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 5s\n    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}\n{http2}{tls}",
            name = self.name,
            ip = self.to.ip(),
            port = self.to.port(),
        )
    }

    fn tls(&self, side: &str, more: &str) -> String {
        let (indent, files) = (if self.out { "    " } else { "      " }, self.files.display());
        format!(
            "{indent}transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": \
             {V3}.transport_sockets.tls.v3.{side}TlsContext, {more}common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, \
             tls_maximum_protocol_version: TLSv1_3}}, tls_certificates: [{{certificate_chain: {{filename: {files}/svid.pem}}, private_key: \
             {{filename: {files}/key.pem}}}}], validation_context: {{trusted_ca: {{filename: {files}/bundle.pem}}, \
             match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: \"{}\"}}}}]}}}}}}}}\n",
            self.expect
        )
    }
}

/// A running Envoy.
pub(super) struct Envoy {
    calls: Vec<(String, SocketAddr)>,
    _process: Process,
}

impl Envoy {
    pub(super) fn start(mesh: &Mesh, calls: &[Call]) -> Self {
        let calls: Vec<_> =
            calls.iter().map(|call| (call, SocketAddr::from(([127, 0, 0, 1], port::free())))).collect();
        let listeners: String = calls.iter().map(|(call, at)| call.listener(*at)).collect();
        let clusters: String = calls.iter().map(|(call, _)| call.cluster()).collect();
        let file = mesh.root.path().join("envoy.yaml");
        std::fs::write(&file, format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}"))
            .unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"]);
        let mut process = Process::start("envoy", mesh.root.path(), command);
        eventually("Envoy listens", || {
            process.must_run();
            process.log().contains("starting main dispatch loop").then_some(())
        });
        let calls = calls.into_iter().map(|(call, at)| (call.name.clone(), at)).collect();
        Self { calls, _process: process }
    }

    /// Where it listens for this call.
    pub(super) fn at(&self, name: &str) -> SocketAddr {
        self.calls.iter().find(|(call, _)| call == name).unwrap().1
    }

    pub(super) fn get(&self, name: &str, path: &str) -> Answer {
        http::get(self.at(name), path).unwrap()
    }
}

fn program() -> PathBuf {
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.venv/bin/envoy"));
    assert!(program.exists(), "Envoy is missing: tests/run.sh installs it");
    program
}

/// Where the types of Envoy's configuration lie.
const V3: &str = "type.googleapis.com/envoy.extensions";
