//! Central policies from a directory at the CA to a workload, which this test program plays: pushed, signed, never older,
//! and there in an outage.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use identity::manifest::{Manifest, SIDECARS, SignedManifest};
use identity::{Anchors, BundleSet, TrustBundle, TrustDomain};
use proto::vouchsafe::v1::delivery::Step;
use proto::vouchsafe::v1::policy_delivery_client::PolicyDeliveryClient;
use proto::vouchsafe::v1::{
    Delivery, DeliveryBegin, DeliveryReport, PolicyFile, PolicyState, PolicyStatus, WatchDeliveryRequest,
};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Streaming};

use crate::support::cluster::{Agent, Ca, TRUST_DOMAIN, id};
use crate::support::command::{Ended, command, ended};
use crate::support::wait::{eventually, within};

const WORKLOAD: &str = "/ns/tests/sa/distribution";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_change_is_pushed_to_the_workloads_it_concerns_signed_and_within_seconds() {
    let node = Node::start();
    let mut stream = node.watch();
    let first = node.delivered(&mut stream);

    let changed = Instant::now();
    write(&node.policies, "mine.yaml", "second", &id(WORKLOAD));
    let second = node.delivered(&mut stream);
    println!("a changed policy was delivered after {:?}", changed.elapsed());

    assert_eq!((first.manifest.number(), second.manifest.number()), (1, 2));
    assert_eq!((first.begin.files, names(&first.files)), (vec!["mine.yaml".to_owned()], vec!["mine.yaml"]));
    assert_eq!(first.manifest.files().len(), 2, "the manifest names the whole set");
    assert!(String::from_utf8(second.files[0].content.clone()).unwrap().contains("second"));
    assert_eq!(first.begin.workloads[0].spiffe_id, id(WORKLOAD));
    assert!(changed.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_bad_directory_is_refused_loudly_and_nothing_is_pushed() {
    let node = Node::start();
    let mut stream = node.watch();
    node.delivered(&mut stream);

    std::fs::write(node.policies.join("bad.yaml"), "vouchsafe: policy/v1\nname: [\n").unwrap();
    let status = within(LIMIT, "the CA says what is wrong", || {
        let status = node.status();
        status.stderr.contains("bad.yaml:2").then_some(status)
    });
    std::fs::remove_file(node.policies.join("bad.yaml")).unwrap();
    write(&node.policies, "other.yaml", "changed", &id("/ns/tests/sa/other"));
    let next = node.delivered(&mut stream);

    assert_eq!(status.code, 3);
    assert_eq!(next.manifest.number(), 2, "the bad set got no number");
}

#[test]
fn a_restart_of_the_ca_keeps_the_number_and_one_of_the_agent_needs_no_ca() {
    let mut node = Node::start();
    let mut stream = node.watch();
    node.delivered(&mut stream);
    write(&node.policies, "mine.yaml", "second", &id(WORKLOAD));
    let before = node.delivered(&mut stream);

    node.ca.process.kill();
    node.ca.restart();
    node.agent.process.kill();
    node.agent.restart();
    let with_ca = node.delivered(&mut node.watch());
    node.ca.process.kill();
    node.agent.process.kill();
    node.agent.restart();
    let without_ca = node.delivered(&mut node.watch());

    for after in [&with_ca, &without_ca] {
        assert_eq!((after.manifest.number(), after.manifest.generation()), (2, before.manifest.generation()));
        assert_eq!(names(&after.files), ["mine.yaml"]);
    }
}

#[test]
fn a_ca_that_was_set_back_hands_out_nothing_that_the_agent_takes() {
    let mut node = Node::start();
    let mut stream = node.watch();
    let first = node.delivered(&mut stream);
    node.ca.process.kill();
    let (data, backup) = (node.ca.dir().join("data"), node.root.path().join("backup"));
    copy(&data, &backup);
    let old = std::fs::read(node.policies.join("mine.yaml")).unwrap();
    node.ca.restart();
    write(&node.policies, "mine.yaml", "second", &id(WORKLOAD));
    // The CA signed the first set again when it was restarted.
    let second = node.delivered_set(&mut stream, 2);

    node.ca.process.kill();
    std::fs::write(node.policies.join("mine.yaml"), old).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    node.ca.restart();
    let refused = within(LIMIT, "the agent says that the CA was set back", || {
        let row = node.rows().into_iter().find(|row| row["state"] == "refused")?;
        Some(row)
    });
    let still = node.delivered(&mut node.watch());

    assert_eq!((first.manifest.number(), second.manifest.number()), (1, 2));
    assert!(refused["reason"].as_str().unwrap().contains("older"), "{refused}");
    assert_eq!((refused["number"].as_u64(), still.manifest.number()), (Some(2), 2));
    assert_eq!(node.status().code, 3);
}

#[test]
fn the_status_tells_who_is_behind_until_it_has_caught_up() {
    let node = Node::start();
    let mut stream = node.watch();
    let first = node.delivered(&mut stream);

    let silent = within(LIMIT, "the workload is known", || node.row().filter(|row| row["state"] == "behind"));
    node.report(&first.manifest);
    let current = within(LIMIT, "the report arrives", || node.row().filter(|row| row["state"] == "current"));
    let calm = node.status();
    write(&node.policies, "mine.yaml", "second", &id(WORKLOAD));
    let second = node.delivered(&mut stream);
    let behind = within(LIMIT, "the new set is known", || node.row().filter(|row| row["state"] == "behind"));
    let alarmed = node.status();
    node.report(&second.manifest);
    within(LIMIT, "the second report arrives", || node.row().filter(|row| row["number"] == 2));
    drop(stream);
    within(LIMIT, "a workload that is gone is forgotten", || node.row().is_none().then_some(()));

    assert_eq!(silent["number"], 0);
    assert_eq!((&current["number"], &behind["number"]), (&1.into(), &1.into()));
    assert_eq!((calm.code, alarmed.code), (0, 3));
    assert!(calm.stdout.starts_with("The CA hands out set 1 ("), "{}", calm.stdout);
    assert!(alarmed.stdout.contains("BEHIND"), "{}", alarmed.stdout);
}

#[test]
fn a_ca_without_policies_says_so_to_everybody() {
    let node = Node::with("");

    let none = eventually("the workload hears of it", || match node.step(&mut node.watch()) {
        Step::None(none) => Some(none),
        Step::Waiting(_) => None,
        other => panic!("{other:?}"),
    });
    let status = node.status();

    assert_eq!(none, proto::vouchsafe::v1::NoPolicies {});
    assert_eq!(status.code, 0);
    assert!(status.stdout.starts_with("The CA is configured without policies."), "{}", status.stdout);
}

/// A CA with a policy directory, and an agent on which this program is a workload.
struct Node {
    runtime: tokio::runtime::Runtime,
    agent: Agent,
    ca: Ca,
    policies: PathBuf,
    root: tempfile::TempDir,
}

/// A delivery, verified.
struct Delivered {
    begin: DeliveryBegin,
    manifest: Manifest,
    files: Vec<PolicyFile>,
}

impl Node {
    fn start() -> Self {
        Self::with("policies: POLICIES\n")
    }

    fn with(extra: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let policies = root.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        write(&policies, "mine.yaml", "mine", &id(WORKLOAD));
        write(&policies, "other.yaml", "other", &id("/ns/tests/sa/other"));
        let ca = Ca::start(root.path(), &extra.replace("POLICIES", &policies.display().to_string()));
        let agent = Agent::start(root.path(), "node", &ca, "");
        ca.entry(agent.alias(), &id(WORKLOAD), &std::env::current_exe().unwrap(), "1h");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, agent, ca, policies, root }
    }

    fn client(&self) -> PolicyDeliveryClient<Channel> {
        let path = self.agent.socket();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://agent.invalid");
        let channel = self.runtime.block_on(endpoint.connect_with_connector(connector)).unwrap();
        PolicyDeliveryClient::new(channel).max_decoding_message_size(16 * 1024 * 1024)
    }

    /// Opens the stream as soon as this program has its identity.
    fn watch(&self) -> Streaming<Delivery> {
        within(LIMIT, "the agent serves this program", || {
            let request = of_workload(WatchDeliveryRequest::default());
            let mut client = self.client();
            self.runtime.block_on(client.watch(request)).ok().map(tonic::Response::into_inner)
        })
    }

    fn step(&self, stream: &mut Streaming<Delivery>) -> Step {
        let next = async { tokio::time::timeout(LIMIT, stream.message()).await };
        self.runtime.block_on(next).expect("a delivery in time").unwrap().unwrap().step.unwrap()
    }

    fn delivered(&self, stream: &mut Streaming<Delivery>) -> Delivered {
        let begin = loop {
            match self.step(stream) {
                Step::Begin(begin) => break begin,
                Step::Waiting(_) => {}
                other => panic!("{other:?} before a delivery"),
            }
        };
        let manifest = self.verified(&begin);
        let mut files = Vec::new();
        loop {
            match self.step(stream) {
                Step::File(file) => {
                    assert!(manifest.file(&file.name).unwrap().is(&file.content), "{}", file.name);
                    files.push(file);
                }
                Step::End(_) => return Delivered { begin, manifest, files },
                other => panic!("{other:?} within a delivery"),
            }
        }
    }

    fn delivered_set(&self, stream: &mut Streaming<Delivery>, number: u64) -> Delivered {
        loop {
            let delivered = self.delivered(stream);
            if delivered.manifest.number() == number {
                return delivered;
            }
        }
    }

    /// As a sidecar verifies: with the bundle that the Workload API gives it.
    fn verified(&self, begin: &DeliveryBegin) -> Manifest {
        let wire = begin.manifest.clone().unwrap();
        let chain = wire.signer_chain.into_iter().map(Into::into).collect();
        let signed = SignedManifest { manifest: wire.manifest, signature: wire.signature, chain };
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        let bundle = self.runtime.block_on(async {
            let client = spiffe::WorkloadApiClient::connect_to(self.agent.endpoint()).await.unwrap();
            client.fetch_x509_bundles().await.unwrap()
        });
        let of_domain = bundle.get(&spiffe::TrustDomain::new(TRUST_DOMAIN).unwrap()).unwrap();
        let authorities =
            of_domain.authorities().iter().map(|authority| authority.as_bytes().to_vec().into()).collect();
        let bundle = TrustBundle::new(domain.clone(), authorities).unwrap();
        let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
        signed.verify(&anchors, &domain, SIDECARS, SystemTime::now()).unwrap()
    }

    fn report(&self, manifest: &Manifest) {
        let status = PolicyStatus {
            state: PolicyState::InForce.into(),
            number: manifest.number(),
            generation: manifest.generation().to_owned(),
            ..Default::default()
        };
        let report = DeliveryReport { spiffe_id: id(WORKLOAD), status: Some(status) };
        let mut client = self.client();
        self.runtime.block_on(client.report(of_workload(report))).unwrap();
    }

    fn status(&self) -> Ended {
        self.ask(&[])
    }

    fn rows(&self) -> Vec<Value> {
        let status = self.ask(&["-o", "json"]);
        if status.stdout.is_empty() {
            return Vec::new();
        }
        status.json()["items"].as_array().unwrap().clone()
    }

    /// The line about this program.
    fn row(&self) -> Option<Value> {
        self.rows().into_iter().find(|row| row["workload"] == id(WORKLOAD).as_str())
    }

    fn ask(&self, words: &[&str]) -> Ended {
        let socket = self.ca.admin_socket().display().to_string();
        ended(command(&[&["policy", "status", "--admin-socket", &socket], words].concat()))
    }
}

fn of_workload<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

fn names(files: &[PolicyFile]) -> Vec<&str> {
    files.iter().map(|file| file.name.as_str()).collect()
}

/// Moved into place, as a careful operator does.
fn write(dir: &Path, file: &str, name: &str, protects: &str) {
    let text = format!("vouchsafe: policy/v1\nname: {name}\nprotects: {protects}\n");
    crate::support::pki::replace(&dir.join(file), &text);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
