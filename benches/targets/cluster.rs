//! A CA, an agent and sidecars on loopback, each told apart by the path of its program.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::daemon::{Daemon, binary, output};

/// The SPIFFE ID of a path in the trust domain.
pub(crate) fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// A running CA.
pub(crate) struct Ca {
    pub(crate) daemon: Daemon,
    dir: PathBuf,
    address: SocketAddr,
}

impl Ca {
    pub(crate) fn start(root: &Path) -> anyhow::Result<Self> {
        let (dir, address) = (directory(root, "ca")?, free()?);
        let text = format!(
            "vouchsafe: ca/v1\ntrust_domain: {TRUST_DOMAIN}\ndata_dir: {0}/data\nadmin_socket: {0}/admin.sock\nlisten: \"{address}\"\n",
            dir.display()
        );
        std::fs::write(dir.join("ca.yaml"), text)?;
        let mut daemon = Daemon::start(binary(), "ca", &dir, "ca")?;
        daemon.ready()?;
        Ok(Self { daemon, dir, address })
    }

    /// The value of `--admin-socket`.
    pub(crate) fn admin_socket(&self) -> String {
        self.dir.join("admin.sock").display().to_string()
    }

    /// The words of `vouchsafe` that give an identity to `program` on the agents here.
    pub(crate) fn entry(&self, spiffe_id: &str, program: &Path) -> Vec<String> {
        let selector = format!("unix:path:{}", program.display());
        let words =
            ["ca", "entry", "create", "--id", spiffe_id, "--parent", &id(NODE), "--selector", &selector];
        let socket = self.admin_socket();
        words.into_iter().chain(["--x509-ttl", "1h", "--admin-socket", &socket]).map(str::to_owned).collect()
    }

    fn join_string(&self) -> anyhow::Result<String> {
        let (address, socket) = (self.address.to_string(), self.admin_socket());
        let words = ["ca", "token", "create", "--agent-id", &id(NODE), "--ca-address", &address];
        output(&[words.as_slice(), &["--admin-socket", &socket]].concat())
    }
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) daemon: Daemon,
    /// From its start, through joining, to ready.
    pub(crate) took: Duration,
    dir: PathBuf,
}

impl Agent {
    /// Starts an agent that joins `ca` for the first time.
    pub(crate) fn start(root: &Path, name: &str, ca: &Ca) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = directory(root, name)?;
        std::fs::write(dir.join("join"), ca.join_string()?)?;
        std::fs::set_permissions(dir.join("join"), std::fs::Permissions::from_mode(0o600))?;
        let text = format!(
            "vouchsafe: agent/v1\ntrust_domain: {TRUST_DOMAIN}\nca: \"{1}\"\ndata_dir: {0}/data\nsocket: {0}/agent.sock\nadmin_socket: {0}/admin.sock\nbootstrap: {{join_string_file: {0}/join}}\nworkload_attestors: {{unix: {{path: true}}}}\n",
            dir.display(),
            ca.address
        );
        std::fs::write(dir.join("agent.yaml"), text)?;
        let mut daemon = Daemon::start(binary(), "agent", &dir, "agent")?;
        let took = daemon.ready()?;
        Ok(Self { daemon, took, dir })
    }

    /// The value of `SPIFFE_ENDPOINT_SOCKET`.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("agent.sock").display())
    }
}

/// The caller's and the callee's sidecar, with a route for each protocol from `outbound` over `inbound` to the
/// application, and the CA and agent that they have their identities from.
pub(crate) struct Pair {
    pub(crate) web: Daemon,
    pub(crate) api: Daemon,
    pub(crate) agent: Agent,
    pub(crate) ca: Ca,
    pub(crate) tcp: Route,
    pub(crate) http: Route,
    /// The rules of the callee, without who may call.
    rules: String,
    /// Last, so that the files are there while the daemons end.
    root: tempfile::TempDir,
}

/// Where the caller's application connects, and where its sidecar connects on.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
}

impl Pair {
    /// Starts everything before an application; waits until all of it is ready. This very program is two callers, too.
    pub(crate) fn start(application: SocketAddr) -> anyhow::Result<Self> {
        let root = tempfile::tempdir()?;
        let ca = Ca::start(root.path())?;
        let agent = Agent::start(root.path(), "node", &ca)?;
        let programs = [("api", program(root.path(), "api")?), ("web", program(root.path(), "web")?)];
        let own = ["web", "other"].map(|name| Ok::<_, std::io::Error>((name, std::env::current_exe()?)));
        let own = own.into_iter().collect::<Result<Vec<_>, _>>()?;
        for (name, program) in programs.iter().chain(&own) {
            output(&ca.entry(&id(&format!("/{name}")), program))?;
        }
        let (tcp, http) = (Lines::new(application, "tcp")?, Lines::new(application, "http")?);
        let side = |name: &str, program: &Path, lines: &str| -> anyhow::Result<Daemon> {
            sidecar(&directory(root.path(), name)?, program, &agent, lines)
        };
        let [(_, api), (_, web)] = &programs;
        let policy = format!("{}{}", tcp.rule, http.rule);
        write_policy(root.path(), &policy)?;
        let api = side("api", api, &format!("inbound:\n{}{}", tcp.inbound, http.inbound))?;
        let web = side("web", web, &format!("outbound:\n{}{}", tcp.outbound, http.outbound))?;
        Ok(Self { web, api, agent, ca, tcp: tcp.route, http: http.route, rules: policy, root })
    }

    /// Lets `caller` call, and nobody else.
    pub(crate) fn allow(&self, caller: &str) -> anyhow::Result<()> {
        write_policy(self.root.path(), &self.rules.replace(&id("/web"), caller))
    }
}

/// Puts the callee's policy in place in one step.
fn write_policy(root: &Path, rules: &str) -> anyhow::Result<()> {
    let dir = directory(root, "api")?;
    let head = format!("vouchsafe: policy/v1\nname: api\nprotects: {}\nmode: enforce\nallow:\n", id("/api"));
    std::fs::write(dir.join("api.partial"), head + rules)?;
    std::fs::rename(dir.join("api.partial"), directory(&dir, "policies")?.join("api.yaml"))?;
    Ok(())
}

/// A route as lines of the configurations.
struct Lines {
    route: Route,
    inbound: String,
    outbound: String,
    rule: String,
}

impl Lines {
    fn new(application: SocketAddr, protocol: &str) -> anyhow::Result<Self> {
        let route @ Route { outbound, inbound } = Route { outbound: free()?, inbound: free()? };
        let (web, api, port) = (id("/web"), id("/api"), inbound.port());
        Ok(Self {
            route,
            inbound: format!(
                "  - {{name: {protocol}, listen: \"{inbound}\", protocol: {protocol}, application: \"{application}\"}}\n"
            ),
            outbound: format!(
                "  - {{name: {protocol}, listen: \"{outbound}\", protocol: {protocol}, endpoints: [\"{inbound}\"], expect: [\"{api}\"]}}\n"
            ),
            rule: format!("  - name: {protocol}\n    from: [{web}]\n    {protocol}: {{port: {port}}}\n"),
        })
    }
}

fn sidecar(dir: &Path, program: &Path, agent: &Agent, listeners: &str) -> anyhow::Result<Daemon> {
    let admin = free()?;
    directory(dir, "policies")?;
    let text = format!(
        "vouchsafe: proxy/v1\nsource: {{workload_api: \"{1}\"}}\npolicies: {0}/policies\n{listeners}admin: {{listen: \"{admin}\"}}\naudit: {{file: {0}/audit.jsonl}}\n",
        dir.display(),
        agent.endpoint()
    );
    std::fs::write(dir.join("proxy.yaml"), text)?;
    let mut daemon = Daemon::start(program, "proxy", dir, "proxy")?;
    daemon.until(|| ready(admin).is_ok_and(|ready| ready))?;
    Ok(daemon)
}

/// Whether the sidecar whose administration listens there says that it is ready.
fn ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// The binary under a path of its own.
pub(crate) fn program(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = directory(root, "bin")?.join(name);
    if std::fs::hard_link(binary(), &path).is_err() {
        std::fs::copy(binary(), &path).context("cannot copy the binary")?;
    }
    Ok(path)
}

fn directory(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = root.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// A port of the loopback address that nobody listens on.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

const TRUST_DOMAIN: &str = "bench.test";
/// What entries name as their parent: every agent here is this node.
const NODE: &str = "/node";
