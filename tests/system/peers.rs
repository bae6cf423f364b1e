//! Data planes of others, with SVIDs of our CA: Envoy and go-spiffe call a sidecar and are called by one. Whoever proves
//! another identity than the one that is expected is refused, whichever side is ours.

mod envoy;
mod mesh;

use std::net::SocketAddr;
use std::process::Command;

use envoy::{Call, Envoy};
use mesh::{Application, Mesh, SPIFFE_SERVER};

use crate::support::audit::{code, reason};
use crate::support::backend::Backend;
use crate::support::cluster::{API, WEB, id};
use crate::support::command::ended;
use crate::support::gopher::{self, test_service};
use crate::support::http::{self, Answer};
use crate::support::sidecar::{Setup, Sidecar, allow_all, write_policy};

/// An identity that no policy here names.
const STRANGER: &str = "/ns/shop/sa/stranger";

#[test]
fn envoy_calls_a_sidecar_with_our_svid() {
    let mesh = Mesh::start();
    let [_api, web, stranger] = [API, WEB, STRANGER].map(|path| mesh.workload(path));
    let backend = Backend::http();
    let inbound = mesh.address();
    let policy = allow_all("all", &id(API), &id(WEB), "http", inbound.port());
    let sidecar = called(&mesh, inbound, backend.address(), &policy);
    let envoy = Envoy::start(
        &mesh,
        &[
            Call::out("right", inbound, &web.files, &id(API)),
            Call::out("stranger", inbound, &stranger.files, &id(API)),
            Call::out("deceived", inbound, &web.files, &id(STRANGER)),
        ],
    );

    let right = envoy.get("right", "/x");

    assert_eq!(right.status, 200, "{right:?}");
    assert!(right.text().contains(&id(WEB)), "the caller's identity was not handed on: {}", right.text());
    backend.forget();
    assert_ne!(envoy.get("stranger", "/x").status, 200);
    let denial = sidecar.audit.wait_for_denied(1);
    assert!(denial.to_string().contains(&id(STRANGER)), "{denial}");
    assert_eq!(envoy.get("deceived", "/x").status, 503, "Envoy accepts another server than it expects");
    assert_eq!(backend.seen_text(), "");
}

#[test]
fn envoy_carries_grpc_to_a_sidecar_whose_denial_is_a_grpc_status() {
    let mesh = Mesh::start();
    let [_api, web, stranger] = [API, WEB, STRANGER].map(|path| mesh.workload(path));
    let application = Application::start(&mesh);
    let inbound = mesh.address();
    let sidecar = called(&mesh, inbound, application.grpc, &test_service(&id(API), &id(WEB), inbound.port()));
    let envoy = Envoy::start(
        &mesh,
        &[
            Call::out("right", inbound, &web.files, &id(API)).http2(),
            Call::out("stranger", inbound, &stranger.files, &id(API)).http2(),
        ],
    );

    for (at, tests, passes) in [
        ("right", "^TestRPC(UnaryCall|Streams|Status|ThatNoPolicy)", 5),
        ("stranger", "^TestRPCOfAnUnknown", 1),
    ] {
        let (good, told) = rpc(envoy.at(at), tests);
        assert!(good, "{at}: {told}");
        assert_eq!(told.matches("--- PASS: TestRPC").count(), passes, "{told}");
    }
    sidecar.audit.wait_for_denial(|record| record.to_string().contains("TestService/UnimplementedCall"));
}

#[test]
fn a_sidecar_calls_envoy_over_both_versions_of_http_and_each_checks_the_other() {
    let mesh = Mesh::start();
    let [api, web, stranger] = [API, WEB, STRANGER].map(|path| mesh.workload(path));
    let backend = Backend::http();
    let envoy = Envoy::start(&mesh, &[Call::into("in", backend.address(), &api.files, &id(WEB))]);
    let [right, wrong, foreign] = [(); 3].map(|()| mesh.address());
    let caller = Setup::new("web").program(&web.program).workload_api(&mesh.agent.socket());
    let caller = caller
        .outbound("http", right, envoy.at("in"), &id(API))
        .outbound("http", wrong, envoy.at("in"), &id(STRANGER))
        .start(mesh.root.path());
    let other = Setup::new("other").program(&stranger.program).workload_api(&mesh.agent.socket());
    let _other = other.outbound("http", foreign, envoy.at("in"), &id(API)).start(mesh.root.path());

    let answer = http::get(right, "/by-the-first-version").unwrap();
    let second = curl(right, "/by-the-second", &["--http2-prior-knowledge", "-w", "HTTP/%{http_version}"]);

    assert_eq!(answer.status, 200, "{answer:?}");
    for told in [&answer.text(), &second] {
        assert!(told.contains(&format!("URI={}", id(WEB))), "Envoy did not see who called: {told}");
    }
    assert!(second.ends_with("HTTP/2"), "{second}");
    backend.forget();
    assert_ne!(status(http::get(wrong, "/")), 200);
    let denial = caller.audit.wait_for_denied(1);
    assert_eq!((reason(&denial), code(&denial)), ("handshake_failed", "unexpected_server"), "{denial}");
    assert_ne!(status(http::get(foreign, "/")), 200, "Envoy lets in whom it does not expect");
    assert_eq!(backend.seen_text(), "");
}

#[test]
fn a_sidecar_calls_a_go_spiffe_server_and_each_checks_the_other() {
    let mesh = Mesh::start();
    let [web, stranger] = [WEB, STRANGER].map(|path| mesh.workload(path));
    let (server, _process) = mesh.spiffe_server(&id(WEB));
    let [right, wrong, foreign] = [(); 3].map(|()| mesh.address());
    let caller = Setup::new("web").program(&web.program).workload_api(&mesh.agent.socket());
    let caller = caller
        .outbound("http", right, server, &id(SPIFFE_SERVER))
        .outbound("http", wrong, server, &id(API))
        .start(mesh.root.path());
    let other = Setup::new("other").program(&stranger.program).workload_api(&mesh.agent.socket());
    let _other = other.outbound("http", foreign, server, &id(SPIFFE_SERVER)).start(mesh.root.path());

    let answer = http::get(right, "/").unwrap();

    assert_eq!(answer.text(), format!("go-spiffe was called by {} over HTTP/1.1", id(WEB)));
    assert_ne!(status(http::get(wrong, "/")), 200);
    let denial = caller.audit.wait_for_denied(1);
    assert_eq!((reason(&denial), code(&denial)), ("handshake_failed", "unexpected_server"), "{denial}");
    assert_ne!(status(http::get(foreign, "/")), 200, "go-spiffe lets in whom it does not expect");
}

/// A sidecar of `API` before an application.
fn called(mesh: &Mesh, inbound: SocketAddr, application: SocketAddr, policy: &str) -> Sidecar {
    write_policy(&mesh.root.path().join("api"), "policy.yaml", policy);
    let setup = Setup::new("api").program(&mesh.program(API)).workload_api(&mesh.agent.socket());
    setup.inbound("http", inbound, application).start(mesh.root.path())
}

fn status(answer: std::io::Result<Answer>) -> u16 {
    answer.map_or(0, |answer| answer.status)
}

/// Whether the client of gRPC finds what it expects at `address`, and what it says.
fn rpc(address: SocketAddr, tests: &str) -> (bool, String) {
    let mut command = gopher::peer(tests);
    command.env("VOUCHSAFE_GRPC", address.to_string());
    let told = ended(command);
    (told.code == 0, told.stdout)
}

fn curl(address: SocketAddr, path: &str, words: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "20", "--noproxy", "*"])
        .args(words)
        .arg(format!("http://{address}{path}"));
    ended(command).expect(0).stdout
}
