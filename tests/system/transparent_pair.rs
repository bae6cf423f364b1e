//! What a transparent pair carries for applications that know nothing of it, over IPv4 and IPv6: curl, gRPC, WebSocket,
//! PostgreSQL, thousands of requests at once, and files of which not a byte may change.

mod postgres;

use std::net::SocketAddr;
use std::process::Command;

use postgres::Postgres;

use crate::support::command::{Ended, binary, ended};
use crate::support::gopher::{application, peer, test_service};
use crate::support::lan::{Host, Lan};
use crate::support::pki::Authority;
use crate::support::process::Process;
use crate::support::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};

#[test]
fn curl_is_answered_over_both_versions_of_http() {
    let pair = Pair::start();

    for address in pair.far.at(HTTP).into_iter().chain(pair.far.at(OPAQUE)) {
        for (word, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2.0")] {
            let told = pair.curl(&[word, &format!("http://{address}/hello")]);
            assert_eq!(told.stdout, format!("hello over HTTP/{version}"), "{address}: {}", told.stderr);
        }
    }
    assert_eq!((pair.called.audit.denied(), pair.calling.audit.denied()), (0, 0));
}

#[test]
fn grpc_goes_through_whole_and_a_denial_is_its_status() {
    let pair = Pair::start();

    for address in pair.far.at(GRPC) {
        let told = pair.peer("^TestRPC(Unary|Streams|Status|ThatNoPolicy)", "VOUCHSAFE_GRPC", address);
        assert_eq!(told.code, 0, "{address}: {}", told.stdout);
        assert_eq!(told.stdout.matches("--- PASS: TestRPC").count(), 5, "{}", told.stdout);
    }
    pair.called.audit.wait_for_denied(2);
}

#[test]
fn a_websocket_goes_through() {
    let pair = Pair::start();

    for address in pair.far.at(HTTP) {
        let told = pair.peer("^TestWebSocket", "VOUCHSAFE_HTTP", address);
        assert_eq!(told.code, 0, "{address}: {}", told.stdout);
        assert!(told.stdout.contains("--- PASS: TestWebSocket"), "{}", told.stdout);
    }
}

#[test]
fn postgresql_goes_through() {
    let pair = Pair::start();
    let postgres = pair.far.enter(|| Postgres::start(pair.root.path()));
    let local = SocketAddr::from(([127, 0, 0, 1], postgres::PORT));
    let fill = "create table t as select n, md5(n::text) as sum from generate_series(1, 100000) n";
    pair.far.enter(|| postgres.psql(local, fill)).expect(0);
    let written = pair.far.enter(|| postgres.psql(local, "copy t to stdout")).expect(0).stdout;

    for address in pair.far.at(postgres::PORT) {
        let read = pair.near.enter(|| postgres.psql(address, "copy t to stdout"));
        assert!(read.stdout == written, "{address}: the table came back changed: {}", read.stderr);
        pair.near.enter(|| postgres.bench(address)).expect(0);
    }
    assert!(written.lines().count() == 100_000);
    assert_eq!(pair.called.audit.denied(), 0);
}

#[test]
fn every_request_of_h2load_is_answered() {
    let pair = Pair::start();

    for address in pair.far.at(HTTP) {
        // It would leave the brackets of an IPv6 address out of `:authority`, which is refused.
        let url = format!("http://svc.internal:{HTTP}/hello");
        let to = format!("--connect-to={address}");
        for version in [["-m", "10"].as_slice(), &["--h1"]] {
            let words = [["-n", "3000", "-c", "8", &to].as_slice(), version, &[&url]].concat();
            let told = pair.near.run("h2load", &words).expect(0).stdout;
            assert!(told.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{told}");
            assert!(told.contains("status codes: 3000 2xx"), "{told}");
        }
    }
}

#[test]
fn a_big_file_goes_both_ways_unchanged() {
    let pair = Pair::start();
    let size = std::env::var("VOUCHSAFE_BIG_FILE").unwrap_or_else(|_| BIG_FILE.to_string());
    let sum = pair.curl(&[&format!("http://{}/sum/{size}", pair.far.at(HTTP)[0])]).expect(0).stdout;
    assert_eq!(sum.len(), 64, "{sum}");

    for address in [pair.far.at(HTTP)[0], pair.far.at(OPAQUE)[1]] {
        let script = format!(
            "set -o pipefail; curl -sSf --noproxy '*' http://{address}/bytes/{size} | \
             curl -sSf --noproxy '*' -T - http://{address}/sum"
        );
        let mut command = Command::new("timeout");
        command.args(["1500", "bash", "-c", &script]);
        let told = pair.near.enter(|| command.output().unwrap());

        assert_eq!(
            String::from_utf8_lossy(&told.stdout),
            sum,
            "{address}: {}",
            String::from_utf8_lossy(&told.stderr)
        );
    }
}

/// A host that calls and one that is called, with their sidecars and the rules of interception in force.
struct Pair {
    called: Sidecar,
    calling: Sidecar,
    _applications: [Process; 2],
    far: Host,
    near: Host,
    _lan: Lan,
    root: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        let lan = Lan::new();
        let (near, far) = (lan.host(2), lan.host(3));
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        let pem = |name: &str| root.path().join("pem").join(name);
        for (name, path) in [("api", SERVER), ("web", CALLER)] {
            authority.svid(path).write(&pem(name), &authority);
        }
        allow(&authority, root.path());
        let run = |name: &str, port: u16, rpc: u16| {
            far.enter(|| application(root.path(), name, &format!("[::]:{port}"), &format!("[::]:{rpc}")))
        };
        let applications = [run("application", HTTP, GRPC), run("opaque", OPAQUE, OPAQUE + 1)];
        let called = Setup::new("api").pem(&pem("api")).section(&inbound());
        let calling = Setup::new("web").pem(&pem("web")).section(&outbound(&far, &authority.id(SERVER)));
        let called = far.enter(|| called.start(root.path()));
        let calling = near.enter(|| calling.start(root.path()));
        let pair = Self { called, calling, _applications: applications, far, near, _lan: lan, root };
        for (host, sidecar) in [(&pair.far, "api"), (&pair.near, "web")] {
            let config = pair.root.path().join(sidecar).join("proxy.yaml").display().to_string();
            let words = ["proxy", "intercept", "install", "--config", &config];
            host.run(&binary().display().to_string(), &words).expect(0);
        }
        pair
    }

    fn curl(&self, words: &[&str]) -> Ended {
        self.near.run("curl", &[&["-sS", "--max-time", "150", "--noproxy", "*"], words].concat())
    }

    /// Runs tests of the Go peer where calls are made.
    fn peer(&self, tests: &str, setting: &str, address: SocketAddr) -> Ended {
        let mut command = peer(tests);
        command.env(setting, address.to_string());
        self.near.enter(|| ended(command))
    }
}

/// Writes the policies of the called sidecar.
fn allow(authority: &Authority, root: &std::path::Path) {
    let (to, from) = (authority.id(SERVER), authority.id(CALLER));
    let upgrade = format!(
        "vouchsafe: policy/v1\nname: socket\nprotects: {to}\nmode: enforce\nallow:\n  - name: socket\n    from: [{from}]\n    \
         upgrade: {{port: {HTTP}, protocols: [websocket], paths: [/echo]}}\n"
    );
    for (name, text) in [
        ("http", allow_all("http", &to, &from, "http", HTTP)),
        ("opaque", allow_all("opaque", &to, &from, "tcp", OPAQUE)),
        ("postgres", allow_all("postgres", &to, &from, "tcp", postgres::PORT)),
        ("rpc", test_service(&to, &from, GRPC)),
        ("socket", upgrade),
    ] {
        write_policy(&root.join("api"), &format!("{name}.yaml"), &text);
    }
}

fn inbound() -> String {
    let ports: Vec<_> =
        PORTS.map(|(port, protocol)| format!("{{port: {port}, protocol: {protocol}}}")).into_iter().collect();
    format!("transparent: {{inbound: {{ports: [{}]}}}}", ports.join(", "))
}

fn outbound(far: &Host, expect: &str) -> String {
    let mut services = String::from("services:\n");
    for (port, protocol) in PORTS {
        for (family, address) in far.at(port).into_iter().enumerate() {
            services.push_str(&format!(
                "  - {{name: p{port}-{family}, hosts: [\"{}\"], ports: [{port}], protocol: {protocol}, expect: [\"{expect}\"], \
                 endpoints: [{{address: \"{address}\"}}]}}\n",
                address.ip()
            ));
        }
    }
    services + "transparent: {outbound: {}}"
}

/// What is read as HTTP.
const HTTP: u16 = 8080;
/// Where gRPC is spoken.
const GRPC: u16 = 50051;
/// The same application as on `HTTP`, of which the sidecars see bytes only.
const OPAQUE: u16 = 9090;
const PORTS: [(u16, &str); 4] = [(HTTP, "http"), (GRPC, "http"), (OPAQUE, "tcp"), (postgres::PORT, "tcp")];
/// The size of the big file where `VOUCHSAFE_BIG_FILE` does not say another.
const BIG_FILE: u64 = 256 << 20;
