//! Central policies in real sidecars: from the directory that the CA serves to what a caller gets.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::cluster::{API, Agent, Ca, Route, WEB, id};
use crate::support::command::{binary_as, command, ended};
use crate::support::http;
use crate::support::pki::replace;
use crate::support::sidecar::{Setup, Sidecar, allow_all};
use crate::support::wait::{eventually, throughout, within};

/// A change of the directory is in force everywhere within this time.
const IN_FORCE: Duration = Duration::from_secs(30);

#[test]
fn a_change_at_the_ca_decides_at_the_sidecar_and_the_status_tells() {
    let mesh = Mesh::start();
    assert_eq!(mesh.get(), 200);
    within(IN_FORCE, "the sidecar is known to be current", || {
        (mesh.row()["state"] == "current").then_some(())
    });

    mesh.central(&allow_all("api", &id(API), &id("/ns/shop/sa/other"), "http", mesh.port()));

    within(IN_FORCE, "the caller has lost its right", || (mesh.get() == 403).then_some(()));
    let row = within(IN_FORCE, "the status tells", || {
        Some(mesh.row()).filter(|row| row["number"] == 2 && row["state"] == "current")
    });
    assert_eq!(row["workload"], id(API));
    mesh.central(&mesh.open());
    within(IN_FORCE, "the caller has its right again", || (mesh.get() == 200).then_some(()));
}

#[test]
fn without_the_ca_a_sidecar_starts_with_the_last_set_it_had() {
    let mut mesh = Mesh::start();
    mesh.central(&allow_all("api", &id(API), &id("/ns/shop/sa/other"), "http", mesh.port()));
    within(IN_FORCE, "the caller has lost its right", || (mesh.get() == 403).then_some(()));
    let generation = mesh.api.generation();

    mesh.ca.process.kill();
    mesh.api.process.kill();
    mesh.api.restart();
    let alone = (mesh.get(), mesh.api.generation());
    mesh.agent.process.kill();
    mesh.agent.restart();
    mesh.api.process.kill();
    mesh.api.restart();

    assert_eq!(alone, (403, generation.clone()));
    assert_eq!((mesh.get(), mesh.api.generation()), (403, generation));
}

#[test]
fn files_beside_the_sidecar_refuse_more_and_never_allow() {
    let mesh = Mesh::start();
    let deny = format!(
        "vouchsafe: policy/v1\nname: api\nprotects: {}\nmode: enforce\ndeny:\n  - name: web\n    from: [{}]\n    http: {{port: any}}\n",
        id(API),
        id(WEB)
    );

    mesh.api.policy("deny.yaml", &deny);
    within(IN_FORCE, "the local file refuses", || (mesh.get() == 403).then_some(()));
    mesh.central(&allow_all("api", &id(API), &id("/ns/shop/sa/other"), "http", mesh.port()));
    within(IN_FORCE, "the second set is in force", || (mesh.row()["number"] == 2).then_some(()));
    mesh.api.policy("deny.yaml", &mesh.open());
    let problem = within(IN_FORCE, "a file that allows is refused", || mesh.api.policy_problem());

    assert!(problem.contains("may only deny"), "{problem}");
    throughout(Duration::from_secs(2), "nothing is opened", || mesh.get() == 403);
}

#[test]
fn a_sidecar_whose_own_files_were_broken_starts_once_they_are_mended() {
    let mut mesh = Mesh::start();
    mesh.api.process.kill();
    mesh.api.policy("deny.yaml", "nonsense");
    mesh.api.respawn();
    eventually("the sidecar says what is wrong", || {
        mesh.api.policy_problem().is_some_and(|problem| problem.contains("deny.yaml")).then_some(())
    });
    let refused = mesh.get();

    mesh.api.remove_policy("deny.yaml");
    mesh.api.wait_until_ready();

    assert_ne!(refused, 200);
    assert_eq!(mesh.get(), 200);
}

/// A CA that serves policies, an agent, a caller and a callee.
struct Mesh {
    api: Sidecar,
    _web: Sidecar,
    agent: Agent,
    ca: Ca,
    http: Route,
    policies: PathBuf,
    /// Last, so that the logs are there while the others are dropped.
    _root: tempfile::TempDir,
}

impl Mesh {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let policies = root.path().join("central");
        std::fs::create_dir(&policies).unwrap();
        let http = Route::to(Backend::http());
        replace(
            &policies.join("api.yaml"),
            &allow_all("api", &id(API), &id(WEB), "http", http.inbound.port()),
        );
        let ca = Ca::start(root.path(), &format!("policies: {}\n", policies.display()));
        let agent = Agent::start(root.path(), "node", &ca, "");
        let [web, api] = ["web", "api"].map(|name| binary_as(&root.path().join("bin").join(name)));
        ca.entry(agent.alias(), &id(WEB), &web, "1h");
        ca.entry(agent.alias(), &id(API), &api, "1h");
        let setup = |name: &str, program| Setup::new(name).program(program).workload_api(&agent.socket());
        let callee = setup("api", &api).central().inbound("http", http.inbound, http.backend.address());
        let caller = setup("web", &web).outbound("http", http.outbound, http.inbound, &id(API));
        let (api, web) = (callee.start(root.path()), caller.start(root.path()));
        Self { api, _web: web, agent, ca, http, policies, _root: root }
    }

    fn port(&self) -> u16 {
        self.http.inbound.port()
    }

    /// The policy that the first set consists of.
    fn open(&self) -> String {
        allow_all("api", &id(API), &id(WEB), "http", self.port())
    }

    /// Has the CA serve another policy.
    fn central(&self, text: &str) {
        replace(&self.policies.join("api.yaml"), text);
    }

    /// What the caller's application gets.
    fn get(&self) -> u16 {
        http::get(self.http.outbound, "/").map_or(0, |answer| answer.status)
    }

    /// The line of `policy status` about the callee.
    fn row(&self) -> Value {
        let socket = self.ca.admin_socket().display().to_string();
        let status = ended(command(&["policy", "status", "--admin-socket", &socket, "-o", "json"]));
        let items = if status.stdout.is_empty() { Value::Null } else { status.json()["items"].clone() };
        let rows = items.as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["workload"] == id(API).as_str()).unwrap_or_default()
    }
}
