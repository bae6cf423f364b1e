//! The `spiffe` crate as a workload of the agent: this very test program is the process that is attested.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use spiffe::{TrustDomain, WorkloadApiClient, X509Source};

use crate::support::cluster::{Agent, Ca, TRUST_DOMAIN, id};
use crate::support::wait::{eventually, within};

const WORKLOAD: &str = "/ns/tests/sa/system";

#[test]
fn the_spiffe_crate_fetches_and_watches_through_a_rotation() {
    let node = Node::start("10s");
    node.admit();

    node.block_on(async {
        let client = WorkloadApiClient::connect_to(node.agent.endpoint()).await.unwrap();
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        assert_eq!(client.fetch_x509_svid().await.unwrap().spiffe_id().to_string(), id(WORKLOAD));
        assert!(!client.fetch_x509_bundles().await.unwrap().get(&domain).unwrap().authorities().is_empty());
        let mut updates = std::pin::pin!(client.stream_x509_contexts().await.unwrap());
        let mut leaves = BTreeSet::new();
        while leaves.len() < 3 {
            let update = tokio::time::timeout(Duration::from_secs(60), updates.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            let leaf = update.default_svid().unwrap().cert_chain()[0].as_bytes().to_vec();
            leaves.insert(leaf);
        }
    });
}

#[test]
fn a_new_entry_reaches_a_waiting_workload_and_a_withdrawn_one_takes_its_identity_away() {
    let node = Node::start("1h");

    node.block_on(async {
        let client = WorkloadApiClient::connect_to(node.agent.endpoint()).await.unwrap();
        let refused = client.fetch_x509_svid().await.unwrap_err();
        assert!(
            format!("{refused:?}").contains("no identity issued")
                || format!("{refused:?}").contains("NoIdentity"),
            "{refused:?}"
        );
    });
    let entry = node.admit();
    node.block_on(async {
        let source = X509Source::builder().endpoint(node.agent.endpoint()).build().await.unwrap();
        assert_eq!(source.svid().unwrap().spiffe_id().to_string(), id(WORKLOAD));
        let client = WorkloadApiClient::connect_to(node.agent.endpoint()).await.unwrap();
        let mut updates = std::pin::pin!(client.stream_x509_contexts().await.unwrap());
        updates.next().await.unwrap().unwrap();

        node.ca.admin(&["entry", "delete", &entry]).expect(0);

        let end = tokio::time::timeout(Duration::from_secs(30), async {
            while let Some(update) = updates.next().await {
                if let Err(error) = update {
                    return Some(error);
                }
            }
            None
        });
        let error = end
            .await
            .expect("the watch hears nothing of the withdrawn entry")
            .expect("the stream ended without a reason");
        let text = format!("{error:?}");
        assert!(
            text.contains("PermissionDenied")
                || text.contains("no identity issued")
                || text.contains("NoIdentity"),
            "{text}"
        );
    });
}

#[test]
fn a_new_entry_is_served_within_seconds_of_its_creation() {
    let node = Node::start("1h");

    let created = Instant::now();
    node.admit();
    within(Duration::from_secs(10), "the new entry is served", || node.fetch().ok());

    println!("served {:?} after the entry was created", created.elapsed());
}

#[test]
fn the_socket_is_open_to_all_in_a_directory_that_only_the_agent_may_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node::start("1h");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

    assert_eq!(mode(&node.agent.socket()), 0o777);
    assert_eq!(mode(&node.agent.admin_socket()) & 0o007, 0, "the admin socket is closed to others");
    assert_eq!(mode(&node.ca.admin_socket()) & 0o007, 0, "the CA's admin socket is closed to others");
    let keys = eventually("the CA has written its key", || {
        let entries = std::fs::read_dir(node.ca.dir().join("data")).ok()?;
        let paths: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        (!paths.is_empty()).then_some(paths)
    });
    for path in keys {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

/// A CA and an agent, for this process alone.
struct Node {
    runtime: tokio::runtime::Runtime,
    agent: Agent,
    ca: Ca,
    ttl: &'static str,
    _root: tempfile::TempDir,
}

impl Node {
    fn start(ttl: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let ca = Ca::start(root.path(), "");
        let agent = Agent::start(root.path(), "node", &ca, "");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, agent, ca, ttl, _root: root }
    }

    /// Registers this test program.
    fn admit(&self) -> String {
        let program = std::env::current_exe().unwrap();
        let entry = self.ca.entry(self.agent.alias(), &id(WORKLOAD), &program, self.ttl);
        eventually("the agent serves this program", || self.fetch().ok());
        entry
    }

    fn fetch(&self) -> Result<(), spiffe::workload_api::error::WorkloadApiError> {
        self.block_on(async {
            let client = WorkloadApiClient::connect_to(self.agent.endpoint()).await?;
            client.fetch_x509_svid().await.map(|_| ())
        })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}
