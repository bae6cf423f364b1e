//! One `vouchsafe proxy` with its files in a directory of its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::audit::AuditLog;
use super::command::{binary, clean};
use super::http::{self, Answer};
use super::pki::{Authority, Identity};
use super::port;
use super::process::Process;
use super::wait::DEADLINE;

/// What a sidecar is to be told; each field is a line or block of its configuration.
pub(crate) struct Setup {
    name: String,
    program: PathBuf,
    source: String,
    identity: Option<String>,
    key_authorities: Option<PathBuf>,
    central: bool,
    inbound: Vec<String>,
    outbound: Vec<String>,
    sections: Vec<String>,
}

impl Setup {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: binary(),
            source: String::new(),
            identity: None,
            key_authorities: None,
            central: false,
            inbound: Vec::new(),
            outbound: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Takes the identity from PEM files, written by `Identity::write`.
    pub(crate) fn pem(mut self, dir: &Path) -> Self {
        let dir = dir.display();
        self.source =
            format!("{{pem: {{certificate: {dir}/svid.pem, key: {dir}/key.pem, bundle: {dir}/bundle.pem}}}}");
        self
    }

    /// Takes the identity from a Workload API.
    pub(crate) fn workload_api(mut self, socket: &Path) -> Self {
        self.source = format!("{{workload_api: \"unix://{}\"}}", socket.display());
        self
    }

    /// Names the SVID to use where there are several.
    pub(crate) fn identity(mut self, spiffe_id: &str) -> Self {
        self.identity = Some(spiffe_id.to_owned());
        self
    }

    /// Has the keys of token issuers fetched from servers that these authorities vouch for.
    pub(crate) fn key_authorities(mut self, file: &Path) -> Self {
        self.key_authorities = Some(file.to_owned());
        self
    }

    /// Takes the policies that the agent hands out; those of its directory may refuse more.
    pub(crate) fn central(mut self) -> Self {
        self.central = true;
        self
    }

    /// Runs this copy of the binary.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// An inbound listener; `protocol` is `tcp` or `http`.
    pub(crate) fn inbound(mut self, protocol: &str, listen: SocketAddr, application: SocketAddr) -> Self {
        let name = format!("in-{}", self.inbound.len());
        self.inbound.push(format!(
            "  - {{name: {name}, listen: \"{listen}\", protocol: {protocol}, application: \"{application}\"}}"
        ));
        self
    }

    /// An outbound listener to `endpoint`, which has to prove `expect`.
    pub(crate) fn outbound(
        mut self,
        protocol: &str,
        listen: SocketAddr,
        endpoint: SocketAddr,
        expect: &str,
    ) -> Self {
        let name = format!("out-{}", self.outbound.len());
        self.outbound.push(format!(
            "  - {{name: {name}, listen: \"{listen}\", protocol: {protocol}, endpoints: [\"{endpoint}\"], expect: [\"{expect}\"]}}"
        ));
        self
    }

    /// More sections of the configuration, as they are written.
    pub(crate) fn section(mut self, text: &str) -> Self {
        self.sections.push(text.to_owned());
        self
    }

    fn text(&self, dir: &Path, admin: SocketAddr) -> String {
        let dir = dir.display();
        let policies = if self.central {
            format!("{{from: agent, local: {dir}/policies, state_dir: {dir}/state}}")
        } else {
            format!("{dir}/policies")
        };
        let mut text = format!("vouchsafe: proxy/v1\nsource: {}\npolicies: {policies}\n", self.source);
        if let Some(identity) = &self.identity {
            let _infallible = writeln!(text, "identity: {identity}");
        }
        if let Some(file) = &self.key_authorities {
            let _infallible = writeln!(text, "jwt: {{trust_anchors: {}}}", file.display());
        }
        for (key, listeners) in [("inbound", &self.inbound), ("outbound", &self.outbound)] {
            if !listeners.is_empty() {
                let _infallible = writeln!(text, "{key}:\n{}", listeners.join("\n"));
            }
        }
        for section in &self.sections {
            let _infallible = writeln!(text, "{section}");
        }
        let _infallible = writeln!(
            text,
            "admin: {{listen: \"{admin}\", socket: {dir}/admin.sock}}\naudit: {{file: {dir}/audit.jsonl}}"
        );
        text
    }

    /// Writes the files and starts the daemon, without waiting for it to be ready.
    pub(crate) fn spawn(self, root: &Path) -> Sidecar {
        let dir = root.join(&self.name);
        std::fs::create_dir_all(dir.join("policies")).unwrap();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let config = dir.join("proxy.yaml");
        std::fs::write(&config, self.text(&dir, admin)).unwrap();
        let process = self.process(&dir, &config);
        Sidecar { audit: AuditLog::at(&dir.join("audit.jsonl")), setup: self, dir, admin, process }
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub(crate) fn start(self, root: &Path) -> Sidecar {
        let mut sidecar = self.spawn(root);
        sidecar.wait_until_ready();
        sidecar
    }

    fn process(&self, dir: &Path, config: &Path) -> Process {
        let arguments = ["proxy", "run", "--config", &config.display().to_string()].map(str::to_owned);
        let command = clean(Command::new(&self.program), &arguments);
        Process::start(&self.name, dir, command)
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) audit: AuditLog,
    pub(crate) process: Process,
    setup: Setup,
    dir: PathBuf,
    admin: SocketAddr,
}

impl Sidecar {
    /// Writes a policy file; the sidecar notices by itself.
    pub(crate) fn policy(&self, name: &str, text: &str) {
        write_policy(&self.dir, name, text);
    }

    pub(crate) fn remove_policy(&self, name: &str) {
        std::fs::remove_file(self.dir.join("policies").join(name)).unwrap();
    }

    /// Where its files lie.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// The socket where operators ask.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn admin(&self, path: &str) -> std::io::Result<Answer> {
        http::get_from(self.admin, "localhost", path)
    }

    /// What `/readyz` says: the status and the document.
    pub(crate) fn readiness(&self) -> (u16, Value) {
        let Ok(answer) = self.admin("/readyz") else { return (0, Value::Null) };
        (answer.status, serde_json::from_str(&answer.text()).unwrap_or(Value::Null))
    }

    /// Why `/readyz` says that something about the policies is wrong, if it does.
    pub(crate) fn policy_problem(&self) -> Option<String> {
        let document = self.readiness().1;
        let lists = [&document["reasons"], &document["warnings"]];
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        let about =
            all.filter(|problem| problem["part"].as_str().is_some_and(|part| part.starts_with("polic")));
        about.map(|problem| problem["reason"].as_str().unwrap_or_default().to_owned()).next()
    }

    /// The hash of the policy set in force.
    pub(crate) fn generation(&self) -> String {
        self.readiness().1["policy_generation"].as_str().unwrap_or_default().to_owned()
    }

    /// The sum of all samples of a metric whose line has all `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").map(|answer| answer.text()).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        let mut said = (0, Value::Null);
        let end = Instant::now() + DEADLINE;
        while said.0 != 200 {
            assert!(Instant::now() < end, "{} is not ready: {} {}", self.setup.name, said.0, said.1);
            std::thread::sleep(Duration::from_millis(20));
            self.process.must_run();
            said = self.readiness();
        }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("proxy.yaml")
    }

    /// Replaces a part of the configuration file; nobody is told.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(self.config(), text.replacen(from, to, 1)).unwrap();
    }

    /// Starts another process of the same configuration, which is to take over from this one.
    pub(crate) fn successor(&self) -> Process {
        let config = self.config().display().to_string();
        let arguments = ["proxy", "run", "--take-over", "--config", &config].map(str::to_owned);
        let command = clean(Command::new(&self.setup.program), &arguments);
        Process::start(&format!("{}-new", self.setup.name), &self.dir, command)
    }

    /// Starts the same sidecar again after its process ended.
    pub(crate) fn restart(&mut self) {
        self.respawn();
        self.wait_until_ready();
    }

    /// Starts it again without waiting for it to be ready.
    pub(crate) fn respawn(&mut self) {
        self.process = self.setup.process(&self.dir, &self.dir.join("proxy.yaml"));
    }
}

/// Replaces a policy file in one step.
pub(crate) fn write_policy(dir: &Path, name: &str, text: &str) {
    let policies = dir.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    let partial = dir.join(format!("{name}.partial"));
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(&partial, policies.join(name)).unwrap();
}

/// A policy that lets `from` call everything on `port`.
pub(crate) fn allow_all(name: &str, protects: &str, from: &str, protocol: &str, port: u16) -> String {
    let what =
        if protocol == "http" { format!("http: {{port: {port}}}") } else { format!("tcp: {{port: {port}}}") };
    format!(
        "vouchsafe: policy/v1\nname: {name}\nprotects: {protects}\nmode: enforce\nallow:\n  - name: everything\n    from: [{from}]\n    {what}\n"
    )
}

/// A policy that lets `from` read only what lies below `/allowed`.
pub(crate) fn allow_path(name: &str, protects: &str, from: &str, port: u16) -> String {
    format!(
        "vouchsafe: policy/v1\nname: {name}\nprotects: {protects}\nmode: enforce\nallow:\n  - name: reads\n    from: [{from}]\n    http: {{port: {port}, methods: [GET], paths: [/allowed/**]}}\n"
    )
}

/// A trust domain, an inbound sidecar in it, and a caller: what most refusals need.
pub(crate) struct Callee {
    pub(crate) authority: Authority,
    pub(crate) caller: Identity,
    pub(crate) sidecar: Sidecar,
    pub(crate) inbound: SocketAddr,
    pub(crate) backend: super::backend::Backend,
    /// The files, gone with the sidecar.
    root: tempfile::TempDir,
}

/// The SPIFFE ID path of the called workload of a `Callee`.
pub(crate) const SERVER: &str = "/ns/shop/sa/api";
/// The SPIFFE ID path of its caller.
pub(crate) const CALLER: &str = "/ns/shop/sa/web";
/// Its trust domain.
pub(crate) const TRUST_DOMAIN: &str = "prod.test";

impl Callee {
    /// Where the PEM files of the sidecar lie.
    pub(crate) fn pem(&self) -> PathBuf {
        self.root.path().join("pem")
    }

    /// A sidecar whose first policy is this text, started without waiting for readiness.
    pub(crate) fn with_policy(text: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        authority.svid(SERVER).write(&root.path().join("pem"), &authority);
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let backend = super::backend::Backend::http();
        write_policy(&root.path().join("api"), "api.yaml", text);
        let setup =
            Setup::new("api").pem(&root.path().join("pem")).inbound("http", inbound, backend.address());
        let sidecar = setup.spawn(root.path());
        Self { caller: authority.svid(CALLER), root, authority, sidecar, inbound, backend }
    }

    /// A sidecar before `backend` whose policy is `policy(protects, from, port)`.
    pub(crate) fn start(
        protocol: &str,
        backend: super::backend::Backend,
        policy: impl FnOnce(&str, &str, u16) -> String,
    ) -> Self {
        Self::start_by(&binary(), protocol, backend, policy)
    }

    /// `start` by another program.
    fn start_by(
        program: &Path,
        protocol: &str,
        backend: super::backend::Backend,
        policy: impl FnOnce(&str, &str, u16) -> String,
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        authority.svid(SERVER).write(&root.path().join("pem"), &authority);
        let text = policy(&authority.id(SERVER), &authority.id(CALLER), inbound.port());
        write_policy(&root.path().join("api"), "api.yaml", &text);
        let setup =
            Setup::new("api").pem(&root.path().join("pem")).inbound(protocol, inbound, backend.address());
        let setup = setup.program(program);
        let sidecar = setup.start(root.path());
        Self { caller: authority.svid(CALLER), root, authority, sidecar, inbound, backend }
    }

    /// HTTP, everything allowed to the caller.
    pub(crate) fn http() -> Self {
        Self::start("http", super::backend::Backend::http(), |to, from, port| {
            allow_all("api", to, from, "http", port)
        })
    }

    /// TCP before an echo, by another program.
    pub(crate) fn tcp_by(program: &Path) -> Self {
        let policy = |to: &str, from: &str, port| allow_all("api", to, from, "tcp", port);
        Self::start_by(program, "tcp", super::backend::Backend::echo(), policy)
    }

    /// TCP before an echo, allowed to the caller.
    pub(crate) fn tcp() -> Self {
        Self::start("tcp", super::backend::Backend::echo(), |to, from, port| {
            allow_all("api", to, from, "tcp", port)
        })
    }
}
