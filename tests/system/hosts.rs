//! Three hosts in network namespaces: a CA, and two nodes with an agent, services and their sidecars each. The
//! calls cross real links.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::audit::reason;
use crate::support::backend::Backend;
use crate::support::cluster::{API, Agent, Ca, WEB, id};
use crate::support::command::{binary_as, ended};
use crate::support::http;
use crate::support::port;
use crate::support::sidecar::{Setup, Sidecar, allow_all, allow_path, write_policy};
use crate::support::traffic::Traffic;
use crate::support::wait::{eventually, throughout, within};

#[test]
fn allowed_calls_cross_the_network_and_denied_ones_do_not() {
    let cluster = Cluster::start();

    let (allowed, denied, tcp) = cluster.near.enter(|| {
        let allowed = http::get(cluster.web_http, "/allowed/x").unwrap();
        let denied = http::get(cluster.web_http, "/forbidden").unwrap();
        (allowed, denied, echo(cluster.web_tcp))
    });
    let (stranger_http, stranger_tcp) = cluster
        .near
        .enter(|| (http::get(cluster.stranger_http, "/allowed/x").unwrap(), echo(cluster.stranger_tcp)));

    assert_eq!((allowed.status, denied.status), (200, 403));
    assert!(allowed.text().contains(&id(WEB)), "the callee is told who calls: {}", allowed.text());
    assert_eq!(stranger_http.status, 403, "{stranger_http:?}");
    tcp.unwrap();
    assert!(stranger_tcp.is_err(), "a caller that no rule names has a TCP connection");
    let record = cluster.api.audit.wait_for_denied(3);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
    assert_eq!(
        record["src_endpoint"]["ip"],
        NEAR.to_string(),
        "the record has the address on the link: {record}"
    );
    assert_eq!(record["src_endpoint"]["uid"], id(STRANGER), "{record}");
    assert!(!cluster.backend.seen_text().contains("/forbidden"));
}

#[test]
fn the_other_host_reaches_nothing_but_the_inbound_listeners() {
    let cluster = Cluster::start();
    let application = SocketAddr::from((FAR, cluster.backend.address().port()));

    let (direct, plaintext) =
        cluster.near.enter(|| (http::get(application, "/x"), http::get(cluster.inbound_http, "/x")));

    assert!(direct.is_err(), "the application is open to the network: {direct:?}");
    assert!(!matches!(&plaintext, Ok(answer) if answer.head.starts_with("HTTP/1.1 200")), "{plaintext:?}");
    assert_eq!(cluster.backend.connections(), 0);
    cluster.api.audit.wait_for_denied(1);
}

#[test]
fn a_node_cut_off_from_the_ca_goes_on_and_catches_up_when_the_link_is_back() {
    let cluster = Cluster::start();
    let traffic = cluster
        .near
        .enter(|| Traffic::new().calls(cluster.web_http, "/allowed/x").long_lived(cluster.web_tcp));

    cluster.ca_host.link("down");
    let before = traffic.done();
    throughout(Duration::from_secs(3), "traffic without the CA", || traffic.failures().is_empty());
    assert!(traffic.done() > before + 20, "the traffic stood still");
    cluster.ca_host.link("up");

    let late = binary_as(&cluster.root.path().join("bin/late"));
    cluster.ca.entry(cluster.agents[0].alias(), &id("/ns/shop/sa/late"), &late, "1h");
    within(Duration::from_secs(60), "an entry made after the cut reaches the node", || {
        let words = ["svid", "fetch", "--timeout", "2s", "--socket", &cluster.agents[0].endpoint()];
        (ended(crate::support::command::clean(Command::new(&late), &words)).code == 0).then_some(())
    });
    traffic.stop_unharmed();
}

const CA_HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 3);
const STRANGER: &str = "/ns/shop/sa/stranger";

/// Everything that runs; dropped before the hosts that it runs on.
struct Cluster {
    api: Sidecar,
    _callers: [Sidecar; 2],
    agents: [Agent; 2],
    ca: Ca,
    backend: Backend,
    web_http: SocketAddr,
    web_tcp: SocketAddr,
    stranger_http: SocketAddr,
    stranger_tcp: SocketAddr,
    inbound_http: SocketAddr,
    near: Host,
    ca_host: Host,
    _far: Host,
    _network: Network,
    root: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let network = Network::new();
        let (ca_host, near, far) =
            (network.host("ca", CA_HOST), network.host("near", NEAR), network.host("far", FAR));
        let ca = ca_host.enter(|| Ca::start_at(root.path(), "", CA_HOST));
        let agents = [("near", &near), ("far", &far)]
            .map(|(name, host)| host.enter(|| Agent::start(root.path(), name, &ca, "")));
        let [web, stranger, api] =
            ["web", "stranger", "api"].map(|name| binary_as(&root.path().join("bin").join(name)));
        ca.entry(agents[0].alias(), &id(WEB), &web, "1h");
        ca.entry(agents[0].alias(), &id(STRANGER), &stranger, "1h");
        ca.entry(agents[1].alias(), &id(API), &api, "1h");
        let (backend, echo) = far.enter(|| (Backend::http(), Backend::echo()));
        let [inbound_http, inbound_tcp] =
            far.enter(|| [port::free(), port::free()]).map(|port| SocketAddr::from((FAR, port)));
        let api = far.enter(|| {
            callee(root.path(), &agents[1], &api, [(inbound_http, &backend), (inbound_tcp, &echo)])
        });
        let inbound = [inbound_http, inbound_tcp];
        let (web, [web_http, web_tcp]) = near.enter(|| caller(root.path(), &agents[0], &web, inbound));
        let (stranger, [stranger_http, stranger_tcp]) =
            near.enter(|| caller(root.path(), &agents[0], &stranger, inbound));
        Self {
            api,
            _callers: [web, stranger],
            agents,
            ca,
            backend,
            web_http,
            web_tcp,
            stranger_http,
            stranger_tcp,
            inbound_http,
            near,
            ca_host,
            _far: far,
            _network: network,
            root,
        }
    }
}

fn callee(root: &Path, agent: &Agent, program: &Path, ways: [(SocketAddr, &Backend); 2]) -> Sidecar {
    let [(http, http_backend), (tcp, tcp_backend)] = ways;
    write_policy(&root.join("api"), "http.yaml", &allow_path("http", &id(API), &id(WEB), http.port()));
    write_policy(&root.join("api"), "tcp.yaml", &allow_all("tcp", &id(API), &id(WEB), "tcp", tcp.port()));
    let setup = Setup::new("api").program(program).workload_api(&agent.socket());
    setup.inbound("http", http, http_backend.address()).inbound("tcp", tcp, tcp_backend.address()).start(root)
}

fn caller(
    root: &Path,
    agent: &Agent,
    program: &Path,
    inbound: [SocketAddr; 2],
) -> (Sidecar, [SocketAddr; 2]) {
    let listen = [port::free(), port::free()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let setup = Setup::new(&name).program(program).workload_api(&agent.socket());
    let setup = setup.outbound("http", listen[0], inbound[0], &id(API)).outbound(
        "tcp",
        listen[1],
        inbound[1],
        &id(API),
    );
    (setup.start(root), listen)
}

fn echo(address: SocketAddr) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut stream = http::connect(address)?;
    stream.write_all(b"across")?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)
}

/// A bridge in a namespace of its own; everything goes when it is dropped.
struct Network {
    name: String,
}

impl Network {
    fn new() -> Self {
        let name = format!("vs{}x{}", std::process::id(), port::free());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &name, "link", "set", "bridge", "up"]);
        Self { name }
    }

    /// A host with one link to the bridge.
    fn host(&self, name: &str, address: Ipv4Addr) -> Host {
        let host = Host { name: format!("{}-{name}", self.name) };
        ip(&["netns", "add", &host.name]);
        ip(&["-n", &host.name, "link", "set", "lo", "up"]);
        ip(&[
            "link", "add", "eth0", "netns", &host.name, "type", "veth", "peer", "name", name, "netns",
            &self.name,
        ]);
        ip(&["-n", &self.name, "link", "set", name, "master", "bridge", "up"]);
        ip(&["-n", &host.name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        host.link("up");
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

struct Host {
    name: String,
}

impl Host {
    /// Runs something on this host: sockets and processes that it makes live there.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let entered = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd as _;
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
                    .expect("root, to enter a namespace");
                work()
            });
            inside.join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn link(&self, state: &str) {
        ip(&["-n", &self.name, "link", "set", "eth0", state]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

#[track_caller]
fn ip(words: &[&str]) {
    let mut command = Command::new("ip");
    command.args(words);
    let told = ended(command);
    assert_eq!(told.code, 0, "ip {words:?}: {} (network namespaces need root)", told.stderr);
}

/// A link that came up a moment ago may still be learning; the first call waits for it.
#[test]
fn hosts_reach_each_other_over_the_bridge() {
    let network = Network::new();
    let (one, other) = (network.host("one", CA_HOST), network.host("other", NEAR));
    let listener = one.enter(|| std::net::TcpListener::bind((CA_HOST, 0)).unwrap());
    let address = listener.local_addr().unwrap();

    eventually("a connection over the bridge", || other.enter(|| http::connect(address)).ok());
    let isolated = http::connect(address);

    assert!(isolated.is_err(), "the hosts are not apart from this machine's own network");
}
