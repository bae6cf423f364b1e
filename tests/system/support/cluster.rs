//! A CA and agents, with workloads that the agents tell apart by the path of their program.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::backend::Backend;
use super::command::{Ended, binary_as, command, ended};
use super::port;
use super::process::Process;
use super::sidecar::{Setup, Sidecar, allow_all, write_policy};
use super::wait::eventually;

/// The trust domain of the clusters here.
pub(crate) const TRUST_DOMAIN: &str = "cluster.test";

/// The SPIFFE ID of a path in it.
pub(crate) fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// A running CA.
pub(crate) struct Ca {
    pub(crate) process: Process,
    dir: PathBuf,
    address: SocketAddr,
}

impl Ca {
    /// Starts a CA on the loopback address with `extra` lines of configuration.
    pub(crate) fn start(root: &Path, extra: &str) -> Self {
        Self::start_at(root, extra, Ipv4Addr::LOCALHOST)
    }

    /// Starts a CA on another address.
    pub(crate) fn start_at(root: &Path, extra: &str, host: Ipv4Addr) -> Self {
        let dir = root.join("ca");
        std::fs::create_dir_all(&dir).unwrap();
        let address = SocketAddr::from((host, port::free()));
        let text = format!(
            "vouchsafe: ca/v1\ntrust_domain: {TRUST_DOMAIN}\ndata_dir: {0}/data\nadmin_socket: {0}/admin.sock\nlisten: \"{address}\"\n{extra}",
            dir.display()
        );
        std::fs::write(dir.join("ca.yaml"), text).unwrap();
        let process = Self::process(&dir);
        let mut ca = Self { process, dir, address };
        ca.wait_until_ready();
        ca
    }

    fn process(dir: &Path) -> Process {
        let config = dir.join("ca.yaml").display().to_string();
        Process::start("ca", dir, command(&["ca", "run", "--config", &config]))
    }

    /// Starts the CA again on the same data and port.
    pub(crate) fn restart(&mut self) {
        self.process = Self::process(&self.dir);
        self.wait_until_ready();
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        eventually("the CA answers on its administration socket", || {
            self.process.must_run();
            (self.admin(&["bundle", "show"]).code == 0).then_some(())
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Runs `vouchsafe ca WORDS` against this CA's socket.
    pub(crate) fn admin(&self, words: &[&str]) -> Ended {
        let socket = self.admin_socket().display().to_string();
        let all: Vec<&str> = ["ca"].iter().chain(words).copied().chain(["--admin-socket", &socket]).collect();
        ended(command(&all))
    }

    /// A join string for one agent whose entries name `alias` as their parent.
    pub(crate) fn join_string(&self, alias: &str) -> String {
        let address = self.address.to_string();
        let words = ["token", "create", "--agent-id", alias, "--ca-address", &address];
        self.admin(&words).expect(0).stdout.trim().to_owned()
    }

    /// Gives an identity to the program at `path` on the agents of `parent`.
    pub(crate) fn entry(&self, parent: &str, spiffe_id: &str, path: &Path, ttl: &str) -> String {
        let selector = format!("unix:path:{}", path.display());
        let words = ["entry", "create", "--id", spiffe_id, "--parent", parent, "--selector", &selector];
        let made =
            self.admin(&[words.as_slice(), &["--x509-ttl", ttl, "-o", "json"]].concat()).expect(0).json();
        let entry =
            made.get("id").or_else(|| made["entries"][0].get("id")).or_else(|| made["entry"].get("id"));
        entry.and_then(|id| id.as_str()).unwrap_or_else(|| panic!("no id in {made}")).to_owned()
    }
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) process: Process,
    name: String,
    dir: PathBuf,
    alias: String,
}

impl Agent {
    /// Starts an agent that joins `ca`; `extra` lines go into its configuration.
    pub(crate) fn start(root: &Path, name: &str, ca: &Ca, extra: &str) -> Self {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let alias = id(&format!("/node/{name}"));
        super::pki::replace(&dir.join("join"), &ca.join_string(&alias));
        let text = format!(
            "vouchsafe: agent/v1\ntrust_domain: {TRUST_DOMAIN}\nca: \"{1}\"\ndata_dir: {0}/data\nsocket: {0}/agent.sock\nadmin_socket: {0}/admin.sock\nbootstrap: {{join_string_file: {0}/join}}\nworkload_attestors: {{unix: {{path: true}}}}\n{extra}",
            dir.display(),
            ca.address()
        );
        std::fs::write(dir.join("agent.yaml"), text).unwrap();
        let process = Self::process(name, &dir);
        let mut agent = Self { process, name: name.to_owned(), dir, alias };
        agent.wait_until_ready();
        agent
    }

    fn process(name: &str, dir: &Path) -> Process {
        let config = dir.join("agent.yaml").display().to_string();
        Process::start(name, dir, command(&["agent", "run", "--config", &config]))
    }

    /// Starts the agent again on what it kept.
    pub(crate) fn restart(&mut self) {
        self.process = Self::process(&self.name, &self.dir);
        self.wait_until_ready();
    }

    /// Ready is when the Workload API knows who asks, be it only to say that it knows nobody.
    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        let socket = self.endpoint();
        eventually("the agent answers on its socket", || {
            self.process.must_run();
            let answer = ended(command(&["whoami", "--socket", &socket]));
            (answer.code != 5 && answer.code != 1).then_some(())
        });
    }

    /// The ID that entries for this node name as their parent.
    pub(crate) fn alias(&self) -> &str {
        &self.alias
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// The value of `SPIFFE_ENDPOINT_SOCKET`.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

/// A CA, an agent, and a caller and a callee with their sidecars, on this host.
pub(crate) struct Pair {
    pub(crate) ca: Ca,
    pub(crate) agent: Agent,
    pub(crate) web: Sidecar,
    pub(crate) api: Sidecar,
    pub(crate) http: Route,
    pub(crate) tcp: Route,
    /// Last, so that the logs are there while the others are dropped.
    pub(crate) root: tempfile::TempDir,
}

/// One way from the caller's application to the callee's.
pub(crate) struct Route {
    /// Where the caller's application connects.
    pub(crate) outbound: SocketAddr,
    /// Where the callee's sidecar listens.
    pub(crate) inbound: SocketAddr,
    pub(crate) backend: Backend,
}

impl Route {
    /// A route to `backend` over two free ports of the loopback address.
    pub(crate) fn to(backend: Backend) -> Self {
        let [outbound, inbound] =
            [port::free(), port::free()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self { outbound, inbound, backend }
    }
}

/// The path of the caller's SPIFFE ID.
pub(crate) const WEB: &str = "/ns/shop/sa/web";
/// The path of the callee's SPIFFE ID.
pub(crate) const API: &str = "/ns/shop/sa/api";

impl Pair {
    /// Starts everything; SVIDs of the workloads live `ttl`, `ca` lines go into the CA's configuration.
    pub(crate) fn start(ca: &str, ttl: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let ca = Ca::start(root.path(), ca);
        let agent = Agent::start(root.path(), "node", &ca, "");
        let (http, tcp) = (Route::to(Backend::http()), Route::to(Backend::echo()));
        let program = |name: &str| binary_as(&root.path().join("bin").join(name));
        let (web, api) = (program("web"), program("api"));
        ca.entry(agent.alias(), &id(WEB), &web, ttl);
        ca.entry(agent.alias(), &id(API), &api, ttl);
        write_policy(
            &root.path().join("api"),
            "http.yaml",
            &allow_all("http", &id(API), &id(WEB), "http", http.inbound.port()),
        );
        write_policy(
            &root.path().join("api"),
            "tcp.yaml",
            &allow_all("tcp", &id(API), &id(WEB), "tcp", tcp.inbound.port()),
        );
        let api = Setup::new("api").program(&api).workload_api(&agent.socket());
        let api = api.inbound("http", http.inbound, http.backend.address()).inbound(
            "tcp",
            tcp.inbound,
            tcp.backend.address(),
        );
        let web = Setup::new("web").program(&web).workload_api(&agent.socket());
        let web = web.outbound("http", http.outbound, http.inbound, &id(API)).outbound(
            "tcp",
            tcp.outbound,
            tcp.inbound,
            &id(API),
        );
        let (api, web) = (api.start(root.path()), web.start(root.path()));
        Self { root, ca, agent, web, api, http, tcp }
    }

    /// The key identifier of the authority that issued the callee's certificate.
    pub(crate) fn issuer(&self) -> String {
        super::tls::server_issuer(self.http.inbound)
    }

    /// The serial number of the certificate that the callee's sidecar presents.
    pub(crate) fn serial(&self) -> String {
        super::tls::server_serial(self.http.inbound)
    }
}
