//! Services from the CA in real sidecars: from a file that an operator applies to where calls go.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::cluster::{API, Agent, Ca, Route, WEB, id};
use crate::support::command::{Ended, binary_as};
use crate::support::http;
use crate::support::sidecar::{Setup, Sidecar, allow_all, write_policy};
use crate::support::wait::{throughout, within};

/// What is applied is in use everywhere within this time, on the busiest machine.
const IN_USE: Duration = Duration::from_secs(30);
/// The identity that may not see what others may.
const STRANGER: &str = "/ns/other/sa/stranger";

#[test]
fn calls_go_where_the_ca_says_and_a_change_is_pushed() {
    let mesh = Mesh::start();
    let before = mesh.get();

    mesh.apply(&mesh.shop(&mesh.one, WEB)).expect(0);
    within(IN_USE, "calls reach the first endpoint", || (mesh.get() == 200).then_some(()));
    let changed = Instant::now();
    mesh.apply(&mesh.shop(&mesh.two, WEB)).expect(0);
    within(IN_USE, "calls reach the second endpoint", || {
        mesh.get();
        (mesh.two.backend.connections() > 0).then_some(())
    });
    println!("a changed endpoint was called after {:?}", changed.elapsed());
    mesh.one.backend.forget();
    let after: Vec<u16> = (0..20).map(|_| mesh.get()).collect();

    assert_ne!(before, 200, "nobody has named the service");
    assert_eq!(after, [200; 20]);
    assert!(mesh.one.backend.seen().is_empty(), "a call went where the service is no more");
}

#[test]
fn a_sidecar_gets_what_its_identity_may_see_and_nothing_else() {
    let mesh = Mesh::start();
    mesh.apply(&mesh.shop(&mesh.one, WEB)).expect(0);
    within(IN_USE, "calls reach the endpoint", || (mesh.get() == 200).then_some(()));
    within(IN_USE, "the stranger has the set, too", || (mesh.row(STRANGER)["number"] == 1).then_some(()));

    throughout(Duration::from_secs(1), "the stranger calls nobody", || mesh.get_as_stranger() != 200);
    mesh.apply(&mesh.shop(&mesh.one, "/**")).expect(0);
    within(IN_USE, "the stranger may see it", || (mesh.get_as_stranger() == 200).then_some(()));
    mesh.ca.admin(&["service", "remove", "shop"]).expect(0);
    within(IN_USE, "the service is gone", || {
        (mesh.get() != 200 && mesh.get_as_stranger() != 200).then_some(())
    });
}

#[test]
fn without_the_ca_and_without_the_agent_calls_go_on_and_restarts_find_what_was_kept() {
    let mut mesh = Mesh::start();
    mesh.apply(&mesh.shop(&mesh.one, WEB)).expect(0);
    within(IN_USE, "calls reach the endpoint", || (mesh.get() == 200).then_some(()));

    mesh.ca.process.kill();
    mesh.web.process.kill();
    mesh.web.restart();
    within(IN_USE, "the agent hands out what it has", || (mesh.get() == 200).then_some(()));
    mesh.near.process.kill();
    throughout(Duration::from_secs(1), "the sidecar goes on with what it has", || mesh.get() == 200);
    mesh.near.restart();
    mesh.web.process.kill();
    mesh.web.restart();

    within(IN_USE, "the agent has kept it on disk", || (mesh.get() == 200).then_some(()));
}

#[test]
fn a_ca_that_was_set_back_changes_nothing_and_the_status_says_so() {
    let mut mesh = Mesh::start();
    mesh.apply(&mesh.shop(&mesh.one, WEB)).expect(0);
    within(IN_USE, "calls reach the first endpoint", || (mesh.get() == 200).then_some(()));
    mesh.ca.process.kill();
    let (data, backup) = (mesh.ca.dir().join("data"), mesh.root.path().join("backup"));
    copy(&data, &backup);
    mesh.ca.restart();
    mesh.apply(&mesh.shop(&mesh.two, WEB)).expect(0);
    within(IN_USE, "the second set is in use", || (mesh.row(WEB)["number"] == 2).then_some(()));

    mesh.ca.process.kill();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    mesh.ca.restart();
    let refused = within(IN_USE, "the agents refuse the older set", || {
        mesh.rows().into_iter().find(|row| row["state"] == "refused")
    });
    mesh.one.backend.forget();

    assert!(refused["reason"].as_str().unwrap().contains("older"), "{refused}");
    assert_eq!(mesh.ca.admin(&["service", "status"]).code, 3);
    assert_eq!((mesh.get(), mesh.one.backend.seen().len()), (200, 0));
}

#[test]
fn the_status_tells_who_runs_which_set() {
    let mesh = Mesh::start();
    let never = mesh.ca.admin(&["service", "status"]);

    mesh.apply(&mesh.shop(&mesh.one, WEB)).expect(0);
    let row = within(IN_USE, "the sidecar is known to be current", || {
        Some(mesh.row(WEB)).filter(|row| row["state"] == "current" && row["number"] == 1)
    });
    let calm = within(IN_USE, "everybody is", || {
        Some(mesh.ca.admin(&["service", "status"])).filter(|status| status.code == 0)
    });

    assert!(never.stdout.starts_with("No services were ever applied."), "{}", never.stdout);
    assert!(calm.stdout.starts_with("The CA hands out set 1 ("), "{}", calm.stdout);
    assert_eq!(row["workload"], id(WEB));
    assert!(mesh.web.metric("vouchsafe_proxy_service_set_number", &[]) >= 1.0);
}

#[test]
fn the_commands_say_what_they_change_and_refuse_what_does_not_fit() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::write(&path, format!("vouchsafe: services/v1\n{text}")).unwrap();
        path.display().to_string()
    };
    let service = |name: &str, host: &str| {
        format!(
            "services:\n  - {{name: {name}, hosts: [{host}], ports: [80], protocol: http, expect: [{}]}}\n",
            id(API)
        )
    };
    let (shop, clash) =
        (file("shop.yaml", &service("shop", "shop")), file("clash.yaml", &service("z", "shop")));
    let flawed = file("flawed.yaml", &service("shop", "shop").replace("http,", "spdy,"));
    let changes = |ended: &Ended| -> Vec<String> {
        let items = ended.json()["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["change"].as_str().unwrap().to_owned()).collect()
    };
    let apply =
        |path: &str, more: &[&str]| ca.admin(&[&["service", "apply", path, "-o", "json"][..], more].concat());

    let asked = apply(&shop, &["--dry-run"]);
    let made = apply(&shop, &[]);
    let again = apply(&shop, &[]);
    let refused = apply(&clash, &[]);
    let bad = apply(&flawed, &[]);
    let shown = ca.admin(&["service", "show", "shop"]).expect(0).stdout;
    std::fs::write(root.path().join("shown.yaml"), shown).unwrap();
    let round = apply(&root.path().join("shown.yaml").display().to_string(), &["--dry-run"]);
    let other = file("other.yaml", &service("other", "other"));
    let pruned = apply(&other, &["--prune"]);
    let unknown = ca.admin(&["service", "remove", "shop"]);
    let listed = ca.admin(&["service", "list", "-o", "json"]).expect(0).json();
    let removed = ca.admin(&["service", "remove", "other", "-o", "json"]);

    assert_eq!((asked.code, changes(&asked)), (3, vec!["created".to_owned()]));
    assert_eq!((made.code, changes(&made)), (0, vec!["created".to_owned()]));
    assert_eq!((again.code, changes(&again)), (0, vec!["unchanged".to_owned()]));
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("clash.yaml:3:5: calls to shop:80 go to the service \"shop\""),
        "{}",
        refused.stderr
    );
    assert_eq!(bad.code, 2);
    assert!(bad.stderr.contains("flawed.yaml:3") && bad.stderr.contains("tcp, http, auto"), "{}", bad.stderr);
    assert_eq!((round.code, changes(&round)), (0, vec!["unchanged".to_owned()]));
    assert_eq!((pruned.code, changes(&pruned)), (0, vec!["created".to_owned(), "removed".to_owned()]));
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("no service called \"shop\""), "{}", unknown.stderr);
    assert_eq!(
        (listed["items"][0]["name"].as_str(), listed["items"].as_array().unwrap().len()),
        (Some("other"), 1)
    );
    assert_eq!((removed.code, changes(&removed)), (0, vec!["removed".to_owned()]));
}

/// A CA, two nodes with an agent each, a caller and a stranger on one, and two places of one service on the other.
struct Mesh {
    web: Sidecar,
    _others: Vec<Sidecar>,
    near: Agent,
    _far: Agent,
    ca: Ca,
    calls: SocketAddr,
    strangers_calls: SocketAddr,
    one: Route,
    two: Route,
    /// Last, so that the logs are there while the others are dropped.
    root: tempfile::TempDir,
}

impl Mesh {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ca = Ca::start(root.path(), "");
        let [near, far] = ["near", "far"].map(|name| Agent::start(root.path(), name, &ca, ""));
        let (one, two) = (Route::to(Backend::http()), Route::to(Backend::http()));
        let [web, stranger, api] =
            ["web", "stranger", "api"].map(|name| binary_as(&root.path().join("bin").join(name)));
        ca.entry(near.alias(), &id(WEB), &web, "1h");
        ca.entry(near.alias(), &id(STRANGER), &stranger, "1h");
        ca.entry(far.alias(), &id(API), &api, "1h");
        let caller = |name: &str, program: &Path, calls: SocketAddr| {
            let outbound = format!("outbound:\n  - {{name: shop, listen: \"{calls}\", service: shop}}");
            let state = root.path().join(name).join("state");
            let central = format!("services_from: agent\nservices_state_dir: {}", state.display());
            let setup = Setup::new(name).program(program).workload_api(&near.socket());
            setup.section(&outbound).section(&central).start(root.path())
        };
        let callee = |name: &str, route: &Route| {
            let open = ["web", "stranger"].map(|who| {
                let from = if who == "web" { WEB } else { STRANGER };
                (format!("{who}.yaml"), allow_all(who, &id(API), &id(from), "http", route.inbound.port()))
            });
            for (file, text) in open {
                write_policy(&root.path().join(name), &file, &text);
            }
            let setup = Setup::new(name).program(&api).workload_api(&far.socket());
            setup.inbound("http", route.inbound, route.backend.address()).start(root.path())
        };
        let (calls, strangers_calls) = (one.outbound, two.outbound);
        let others = vec![
            callee("api-one", &one),
            callee("api-two", &two),
            caller("stranger", &stranger, strangers_calls),
        ];
        let web = caller("web", &web, calls);
        Self { web, _others: others, near, _far: far, ca, calls, strangers_calls, one, two, root }
    }

    /// The service at `route`, for sidecars with the identity `who`.
    fn shop(&self, route: &Route, who: &str) -> String {
        format!(
            "vouchsafe: services/v1\nservices:\n  - name: shop\n    hosts: [shop.internal]\n    ports: [80]\n    protocol: http\n    expect: [{}]\n    endpoints: [{{address: \"{}\"}}]\n    visible_to: [\"{}\"]\n",
            id(API),
            route.inbound,
            id(who)
        )
    }

    fn apply(&self, text: &str) -> Ended {
        let file = self.root.path().join("services.yaml");
        std::fs::write(&file, text).unwrap();
        self.ca.admin(&["service", "apply", &file.display().to_string()])
    }

    /// What the caller's application gets.
    fn get(&self) -> u16 {
        http::get(self.calls, "/").map_or(0, |answer| answer.status)
    }

    fn get_as_stranger(&self) -> u16 {
        http::get(self.strangers_calls, "/").map_or(0, |answer| answer.status)
    }

    /// The lines of `ca service status`.
    fn rows(&self) -> Vec<Value> {
        let status = self.ca.admin(&["service", "status", "-o", "json"]);
        let items = if status.stdout.is_empty() { Value::Null } else { status.json()["items"].clone() };
        items.as_array().cloned().unwrap_or_default()
    }

    /// The line about one sidecar.
    fn row(&self, who: &str) -> Value {
        self.rows().into_iter().find(|row| row["workload"] == id(who).as_str()).unwrap_or_default()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
