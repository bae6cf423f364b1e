//! What `vouchsafe dev` sets up, as plain values: where things lie, what the files say, which
//! commands are run. Nothing here touches the machine.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use identity::{ParseIdError, SpiffeId, TrustDomain};

use crate::commands::shell::quote;

/// A place in the plan for each thing that listens on TCP, in order of the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// The CA, for agents.
    Ca,
    /// The service `web`, for people.
    Web,
    /// Where `web` reaches `api`: the outbound listener of its sidecar.
    WebToApi,
    /// Administration of the sidecar of `web`.
    WebAdmin,
    /// The inbound listener of the sidecar of `api`.
    ApiInbound,
    /// The service `api`, behind its sidecar.
    Api,
    /// Administration of the sidecar of `api`.
    ApiAdmin,
}

/// How many ports the plan takes.
pub(crate) const PORTS: u16 = 7;

/// The whole set-up.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    dir: PathBuf,
    address: IpAddr,
    base_port: u16,
}

/// A command as it is run and as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// The copy of the binary under whose path it runs; `None` for the binary itself.
    pub(crate) program: Option<PathBuf>,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

impl Plan {
    /// A plan for a directory, a loopback address and seven ports.
    pub(crate) fn new(dir: PathBuf, address: IpAddr, base_port: u16) -> Self {
        Self { dir, address, base_port }
    }

    /// The directory that holds everything.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file or directory of the plan.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where something listens.
    pub(crate) fn at(&self, port: Port) -> SocketAddr {
        SocketAddr::new(self.address, self.base_port.saturating_add(port as u16))
    }

    /// The directories to make, outer ones first.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        ["bin", "run", "log", "audit", POLICIES, "ca", "agent"].map(|name| self.path(name)).to_vec()
    }

    /// The configuration files: name and text.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ca.yaml", self.ca()),
            ("agent.yaml", self.agent()),
            ("api.yaml", self.api_sidecar()),
            ("web.yaml", self.web_sidecar()),
            (POLICY, self.policy(Stage::ReadAccounts)),
        ]
    }

    /// The policy file that protects `api`.
    pub(crate) fn policy(&self, stage: Stage) -> String {
        let port = self.at(Port::ApiInbound).port();
        let more = match stage {
            Stage::ReadAccounts => String::new(),
            Stage::ReadReportsToo => format!(
                "  - name: web-reads-reports\n    from: [spiffe://{TRUST_DOMAIN}/web]\n    \
                 http: {{port: {port}, methods: [GET], paths: [/reports/**]}}\n"
            ),
        };
        format!(
            "# Who may call the service `api`, and how. What no rule allows is refused.\n\
             vouchsafe: policy/v1\n\
             name: api\n\
             protects: spiffe://{TRUST_DOMAIN}/api\n\
             mode: enforce\n\
             allow:\n  \
             - name: web-reads-accounts\n    from: [spiffe://{TRUST_DOMAIN}/web]\n    \
             http: {{port: {port}, methods: [GET], paths: [/accounts/**]}}\n{more}\
             tests:\n  \
             - {{from: spiffe://{TRUST_DOMAIN}/web, http: GET {port} /accounts/7, expect: allow, by: web-reads-accounts}}\n  \
             - {{from: unauthenticated, http: GET {port} /accounts/7, expect: deny}}\n"
        )
    }

    fn ca(&self) -> String {
        format!(
            "vouchsafe: ca/v1\ntrust_domain: {TRUST_DOMAIN}\nlisten: \"{}\"\ndata_dir: {}\nadmin_socket: {}\n",
            self.at(Port::Ca),
            yaml(&self.path("ca")),
            yaml(&self.path(CA_SOCKET)),
        )
    }

    fn agent(&self) -> String {
        format!(
            "vouchsafe: agent/v1\ntrust_domain: {TRUST_DOMAIN}\nca: \"{}\"\ndata_dir: {}\nsocket: {}\nadmin_socket: {}\n\
             bootstrap:\n  join_string_file: {}\n\
             workload_attestors:\n  unix: {{path: true, sha256: false}}\n",
            self.at(Port::Ca),
            yaml(&self.path("agent")),
            yaml(&self.path(AGENT_SOCKET)),
            yaml(&self.path(AGENT_ADMIN_SOCKET)),
            yaml(&self.path(JOIN_STRING)),
        )
    }

    fn api_sidecar(&self) -> String {
        format!(
            "{}inbound:\n  - name: api\n    listen: \"{}\"\n    protocol: http\n    application: \"{}\"\n",
            self.sidecar("api", Port::ApiAdmin),
            self.at(Port::ApiInbound),
            self.at(Port::Api),
        )
    }

    fn web_sidecar(&self) -> String {
        format!(
            "{}outbound:\n  - name: to-api\n    listen: \"{}\"\n    protocol: http\n    \
             endpoints: [\"{}\"]\n    expect: [spiffe://{TRUST_DOMAIN}/api]\n",
            self.sidecar("web", Port::WebAdmin),
            self.at(Port::WebToApi),
            self.at(Port::ApiInbound),
        )
    }

    fn sidecar(&self, name: &str, admin: Port) -> String {
        format!(
            "vouchsafe: proxy/v1\nsource:\n  workload_api: {}\npolicies: {}\nadmin:\n  listen: \"{}\"\naudit:\n  file: {}\n",
            self.workload_api(),
            yaml(&self.path(POLICIES)),
            self.at(admin),
            yaml(&self.path(&format!("audit/{name}.jsonl"))),
        )
    }

    /// The Workload API's address, as SPIFFE_ENDPOINT_SOCKET has it.
    pub(crate) fn workload_api(&self) -> String {
        format!("unix://{}", self.path(AGENT_SOCKET).display())
    }

    /// Runs the CA.
    pub(crate) fn run_ca(&self) -> Invocation {
        Invocation::own(["ca", "run", "--config"]).path(&self.path("ca.yaml"))
    }

    /// Creates the join string.
    pub(crate) fn create_token(&self) -> Invocation {
        Invocation::own(["ca", "token", "create", "--admin-socket"])
            .path(&self.path(CA_SOCKET))
            .and(["--node", NODE, "--ca-address", &self.at(Port::Ca).to_string(), "--out"])
            .path(&self.path(JOIN_STRING))
    }

    /// Runs the agent.
    pub(crate) fn run_agent(&self) -> Invocation {
        Invocation::own(["agent", "run", "--config"]).path(&self.path("agent.yaml"))
    }

    /// Creates the entry for `web` or `api`: whoever runs its copy of the binary.
    pub(crate) fn create_entry(&self, name: &str) -> Invocation {
        let program = format!("unix:path:{}", self.path(&format!("bin/{name}")).display());
        Invocation::own(["ca", "entry", "create", "--admin-socket"])
            .path(&self.path(CA_SOCKET))
            .and(["--id", &format!("spiffe://{TRUST_DOMAIN}/{name}"), "--node", NODE])
            .and(["--selector", &program])
    }

    /// Runs the service `api`.
    pub(crate) fn run_api(&self) -> Invocation {
        self.copy("api", ["dev-service", "--name", "api", "--listen", &self.at(Port::Api).to_string()])
    }

    /// Runs the service `web`, which passes requests on to `api` through its sidecar.
    pub(crate) fn run_web(&self) -> Invocation {
        self.copy("web", ["dev-service", "--name", "web", "--listen", &self.at(Port::Web).to_string()])
            .and(["--upstream", &self.at(Port::WebToApi).to_string()])
    }

    /// Runs the sidecar of `web` or `api`.
    pub(crate) fn run_sidecar(&self, name: &str) -> Invocation {
        // The agent runs as the same user and must see the sidecar's executable.
        self.copy(name, ["proxy", "run", "--danger-dumpable", "--config"])
            .path(&self.path(&format!("{name}.yaml")))
    }

    /// Fetches the identity of `web` or `api`.
    pub(crate) fn fetch(&self, name: &str) -> Invocation {
        self.copy(name, ["svid", "fetch", "--socket", &self.workload_api()])
    }

    /// Finds the record of a denial.
    pub(crate) fn query(&self, denial: &str) -> Invocation {
        Invocation::own(["audit", "query", "--denial", denial]).path(&self.path(API_AUDIT))
    }

    /// Follows what the sidecar of `api` refuses and allows.
    pub(crate) fn tail(&self) -> Invocation {
        Invocation::own(["audit", "tail", "-f"]).path(&self.path(API_AUDIT))
    }

    /// Lists the entries.
    pub(crate) fn list_entries(&self) -> Invocation {
        Invocation::own(["ca", "entry", "list", "--admin-socket"]).path(&self.path(CA_SOCKET))
    }

    /// Asks the agent how it sees `web`.
    pub(crate) fn who_is_web(&self) -> Invocation {
        self.copy("web", ["whoami"])
    }

    /// Explains the refused call from the policy files.
    pub(crate) fn explain(&self) -> Invocation {
        Invocation::own(["policy", "explain", "--policies"])
            .path(&self.path(POLICIES))
            .and(["--from", &format!("spiffe://{TRUST_DOMAIN}/web")])
            .and(["--to", &format!("spiffe://{TRUST_DOMAIN}/api")])
            .and(["--port", &self.at(Port::ApiInbound).port().to_string(), "GET /reports/q3"])
    }

    fn copy<const N: usize>(&self, name: &str, arguments: [&str; N]) -> Invocation {
        Invocation { program: Some(self.path(&format!("bin/{name}"))), ..Invocation::own(arguments) }
    }
}

/// What the policy allows at a point of the tour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `web` may read accounts.
    ReadAccounts,
    /// `web` may read accounts and reports.
    ReadReportsToo,
}

impl Invocation {
    /// A command of the binary itself.
    fn own<const N: usize>(arguments: [&str; N]) -> Self {
        Self { program: None, arguments: arguments.map(str::to_owned).to_vec() }
    }

    /// The command with more arguments.
    pub(crate) fn and<const N: usize>(mut self, more: [&str; N]) -> Self {
        self.arguments.extend(more.map(str::to_owned));
        self
    }

    fn path(self, path: &Path) -> Self {
        self.and([&path.display().to_string()])
    }

    /// The command as one would type it.
    pub(crate) fn shown(&self) -> String {
        let program = match &self.program {
            Some(program) => quote(&program.display().to_string()),
            None => "vouchsafe".to_owned(),
        };
        let arguments = self.arguments.iter().map(|argument| quote(argument));
        std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

/// The identity of a workload of the tour.
pub(crate) fn workload(name: &str) -> Result<SpiffeId, ParseIdError> {
    SpiffeId::new(&TrustDomain::parse(TRUST_DOMAIN)?, &format!("/{name}"))
}

/// A path as a YAML string: JSON's double-quoted form is also YAML's.
fn yaml(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}

/// The trust domain of the tour.
pub(crate) const TRUST_DOMAIN: &str = "dev.local";

/// The policy directory.
pub(crate) const POLICIES: &str = "policies";

/// The policy file that the tour edits.
pub(crate) const POLICY: &str = "policies/api.yaml";

/// Where the sidecar of `api` writes what it refused.
pub(crate) const API_AUDIT: &str = "audit/api.jsonl";

/// The CA's administration socket.
pub(crate) const CA_SOCKET: &str = "run/ca.sock";

/// The agent's Workload API.
pub(crate) const AGENT_SOCKET: &str = "run/agent.sock";

/// The agent's administration socket.
pub(crate) const AGENT_ADMIN_SOCKET: &str = "run/agent-admin.sock";

/// What the one node is called.
const NODE: &str = "here";

const JOIN_STRING: &str = "node.join";

#[cfg(test)]
mod tests;
