use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt;
use proto::spire::api::types::permission_denied_details::Reason;
use spiffe::WorkloadApiClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::client::{Target, WhoAmIError, whoami};
use crate::config::{Bootstrap, SecretSource};
use crate::fixtures::scripted_ca::{Script, ScriptedCa};
use crate::fixtures::{Authority, DOMAIN, config, own_uid, wire_entry};

/// A running agent.
struct Running {
    ready: Ready,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let (told, ready) = oneshot::channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(config, stop.clone(), |ready| drop(told.send(ready))));
        match tokio::time::timeout(Duration::from_secs(20), ready)
            .await
            .expect("the agent was not ready in time")
        {
            Ok(ready) => Self { ready, stop, task },
            Err(_) => panic!("the agent ended: {:?}", task.await.unwrap()),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn client(&self) -> WorkloadApiClient {
        WorkloadApiClient::connect_to(format!("unix://{}", self.ready.socket.display())).await.unwrap()
    }

    async fn serial(&self) -> Vec<u8> {
        self.client().await.fetch_x509_svid().await.unwrap().leaf().as_bytes().to_vec()
    }
}

/// An agent's directory with a join string for `ca` in it.
fn joining(home: &Path, ca: &ScriptedCa) -> Config {
    std::fs::write(home.join("join"), ca.join_string("good")).unwrap();
    config(home, Bootstrap::JoinString(SecretSource::File(home.join("join"))))
}

async fn ca_with(entries: &[(&str, &str)]) -> ScriptedCa {
    let script = Script::new();
    for (id, path) in entries {
        script.put(wire_entry(id, path, &[&own_uid()]));
    }
    ScriptedCa::start(script).await
}

/// Runs an agent that is expected to end by itself.
async fn ended(config: Config) -> RunError {
    let run = run(config, CancellationToken::new(), |_| panic!("the agent became ready"));
    tokio::time::timeout(Duration::from_secs(20), run).await.expect("the agent goes on").unwrap_err()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_joins_with_one_string_and_serves_its_entries() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);

    let agent = Running::start(joining(home.path(), &ca)).await;

    assert_eq!(agent.ready.spiffe_id.to_string(), format!("spiffe://{DOMAIN}/spire/agent/join_token/x"));
    let begin = Instant::now();
    let svid = agent.client().await.fetch_x509_svid().await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500), "the first SVID took {:?}", begin.elapsed());
    assert_eq!(svid.spiffe_id().to_string(), format!("spiffe://{DOMAIN}/a"));
    let who = whoami(&agent.ready.admin_socket, Target::Process(std::process::id())).await.unwrap();
    assert_eq!(who.agent_id, agent.ready.spiffe_id.to_string());
    assert_eq!(who.matches[0].spiffe_id, format!("spiffe://{DOMAIN}/a"));
    let nobody = whoami(&agent.ready.admin_socket, Target::Process(4_194_304)).await;
    assert!(matches!(nobody, Err(WhoAmIError::NoProcess { .. })));
    agent.stop().await;
    assert!(!home.path().join("run/agent.sock").exists());
}

#[tokio::test]
async fn changes_are_pushed_to_a_connected_workload_in_under_a_second() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let agent = Running::start(joining(home.path(), &ca)).await;
    let mut contexts = agent.client().await.stream_x509_contexts().await.unwrap();
    assert_eq!(contexts.next().await.unwrap().unwrap().svids().len(), 1);

    let begin = Instant::now();
    ca.script.put(wire_entry("b", "/b", &[&own_uid()]));
    let both = contexts.next().await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(both.svids().len(), 2);
    ca.script.remove("a");
    let rest = contexts.next().await.unwrap().unwrap();
    assert_eq!(rest.default_svid().unwrap().spiffe_id().path(), "/b");
    ca.script.remove("b");
    let lost = contexts.next().await.unwrap();

    assert!(lost.is_err_and(|error| error.to_string().contains("no identity")));
    assert_eq!(ca.script.calls("SyncAuthorizedEntries"), 0, "a CA that pushes is not polled");
    agent.stop().await;
}

#[tokio::test]
async fn a_ca_that_does_not_push_is_polled_with_either_method() {
    for offers_sync in [true, false] {
        let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
        {
            let mut knobs = ca.script.knobs();
            (knobs.offers_push, knobs.offers_sync, knobs.page) = (false, offers_sync, 2);
        }
        let agent = Running::start(joining(home.path(), &ca)).await;

        // More than a page: revisions first, then the entries that the agent lacks.
        for n in 0..5 {
            ca.script.put(wire_entry(&format!("b{n}"), &format!("/b{n}"), &[&own_uid()]));
        }
        eventually("six identities", async || {
            agent.client().await.fetch_all_x509_svids().await.unwrap().len() == 6
        })
        .await;
        ca.script.remove("b3");
        eventually("five identities", async || {
            agent.client().await.fetch_all_x509_svids().await.unwrap().len() == 5
        })
        .await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn svids_and_the_nodes_own_are_renewed_before_they_expire() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    {
        let mut knobs = ca.script.knobs();
        (knobs.svid_ttl, knobs.agent_ttl) = (Duration::from_secs(6), Duration::from_secs(6));
    }
    let agent = Running::start(joining(home.path(), &ca)).await;
    let mut contexts = agent.client().await.stream_x509_contexts().await.unwrap();
    let mut serials = std::collections::BTreeSet::new();

    for _ in 0..3 {
        let context = contexts.next().await.unwrap().unwrap();
        serials.insert(context.default_svid().unwrap().leaf().as_bytes().to_vec());
    }

    assert_eq!(serials.len(), 3);
    eventually("the node's own renewal", async || ca.script.calls("RenewAgent") >= 1).await;
    assert_eq!(ca.script.calls("AttestAgent"), 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_restarts_while_the_ca_is_down_serves_what_it_had() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let config = joining(home.path(), &ca);
    let agent = Running::start(config.clone()).await;
    let before = agent.serial().await;
    agent.stop().await;
    let (script, address) = ca.stop().await;
    std::fs::remove_file(home.path().join("join")).unwrap();

    let agent = Running::start(config).await;
    assert_eq!(agent.serial().await, before);
    script.put(wire_entry("b", "/b", &[&own_uid()]));
    let ca = ScriptedCa::start_at(script, address).await;
    eventually("the CA is found again", async || {
        agent.client().await.fetch_all_x509_svids().await.unwrap().len() == 2
    })
    .await;

    assert_eq!(ca.script.calls("AttestAgent"), 1, "a node that is attested needs no token");
    agent.stop().await;
}

#[tokio::test]
async fn nothing_expired_is_served_after_a_restart() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    ca.script.knobs().svid_ttl = Duration::from_secs(2);
    let config = joining(home.path(), &ca);
    Running::start(config.clone()).await.stop().await;
    let _down = ca.stop().await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let agent = Running::start(config).await;
    let client = agent.client().await;
    let answer = tokio::time::timeout(Duration::from_secs(3), client.fetch_x509_svid()).await;

    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.is_err()));
    agent.stop().await;
}

#[tokio::test]
async fn a_token_whose_answer_was_lost_is_spent_again_with_the_same_key() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    ca.script.knobs().loses_attestation = true;

    let agent = Running::start(joining(home.path(), &ca)).await;

    assert_eq!(ca.script.calls("AttestAgent"), 2);
    agent.stop().await;
}

#[tokio::test]
async fn the_token_never_goes_to_another_ca_than_the_pinned_one() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[]).await);
    let config = joining(home.path(), &ca);
    let wrong = identity::crypto::hex(&identity::crypto::sha256(&Authority::new("other").der));
    std::fs::write(home.path().join("join"), format!("vs1:{}:good:{wrong}", ca.address)).unwrap();

    let error = ended(config).await;

    assert!(matches!(error, RunError::Sync(SyncError::NotLetIn { .. })), "{error:?}");
    assert_eq!(ca.script.calls("AttestAgent"), 0);
    assert!(ca.script.knobs().tokens["good"].is_none());
}

#[tokio::test]
async fn a_spent_token_ends_an_agent_that_has_nothing_to_serve() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[]).await);
    ca.script.knobs().tokens.insert("good".to_owned(), Some(vec![1]));

    let error = ended(joining(home.path(), &ca)).await;

    let told = crate::health::chain(&error);
    assert!(told.contains("vouchsafe ca token create") && told.contains("already been used"), "{told}");
    assert!(!told.contains("good"), "{told}");
}

#[tokio::test]
async fn a_banned_node_stops_serving_and_keeps_no_identity() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let agent = Running::start(joining(home.path(), &ca)).await;
    let mut contexts = agent.client().await.stream_x509_contexts().await.unwrap();
    contexts.next().await.unwrap().unwrap();

    ca.script.knobs().denial = Some(Reason::AgentBanned);
    ca.script.put(wire_entry("b", "/b", &[&own_uid()]));
    let error = agent.task.await.unwrap().unwrap_err();

    assert!(matches!(error, RunError::Sync(SyncError::Banned)), "{error:?}");
    assert!(!home.path().join("data/node.sealed").exists());
    assert!(!home.path().join("data/cache.sealed").exists());
}

#[tokio::test]
async fn an_evicted_node_serves_on_and_joins_again_with_a_fresh_token() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let agent = Running::start(joining(home.path(), &ca)).await;
    ca.script.knobs().denial = Some(Reason::AgentNotAttested);
    ca.script.put(wire_entry("b", "/b", &[&own_uid()]));
    let refused = ca.script.calls("WatchAuthorizedEntries");
    eventually("the refusal", async || ca.script.calls("WatchAuthorizedEntries") > refused).await;
    assert!(!agent.serial().await.is_empty(), "what is held is served on");

    ca.script.knobs().tokens.insert("fresh".to_owned(), None);
    std::fs::write(home.path().join("join"), ca.join_string("fresh")).unwrap();
    ca.script.knobs().denial = None;
    eventually("the new entry", async || {
        agent.client().await.fetch_all_x509_svids().await.unwrap().len() == 2
    })
    .await;

    agent.stop().await;
}

#[tokio::test]
async fn a_renewed_identity_that_cannot_be_kept_is_not_used_while_the_old_one_lasts() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    ca.script.knobs().agent_ttl = Duration::from_secs(8);
    let agent = Running::start(joining(home.path(), &ca)).await;
    let kept = home.path().join("data/node.sealed");
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir(&kept).unwrap();

    eventually("a second renewal", async || ca.script.calls("RenewAgent") >= 2).await;
    assert_eq!(ca.script.calls("WatchAuthorizedEntries"), 1, "the CA has seen the new identity");
    std::fs::remove_dir(&kept).unwrap();
    eventually("the use of the new identity", async || ca.script.calls("WatchAuthorizedEntries") >= 2).await;

    assert!(kept.is_file());
    agent.stop().await;
}

#[tokio::test]
async fn a_fresh_token_lets_a_node_follow_a_ca_that_was_set_back() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    ca.script.knobs().sequence = 5;
    let agent = Running::start(joining(home.path(), &ca)).await;
    let mut bundles = agent.client().await.stream_x509_bundles().await.unwrap();
    bundles.next().await.unwrap().unwrap();
    {
        let mut knobs = ca.script.knobs();
        (knobs.sequence, knobs.denial) = (2, Some(Reason::AgentNotAttested));
    }
    ca.script.put(wire_entry("b", "/b", &[&own_uid()]));
    let refused = ca.script.calls("WatchAuthorizedEntries");
    eventually("the refusal", async || ca.script.calls("WatchAuthorizedEntries") > refused).await;

    ca.script.knobs().tokens.insert("fresh".to_owned(), None);
    std::fs::write(home.path().join("join"), ca.join_string("fresh")).unwrap();
    eventually("the attestation", async || ca.script.calls("AttestAgent") == 2).await;
    ca.script.knobs().denial = None;
    eventually("the new entry", async || {
        agent.client().await.fetch_all_x509_svids().await.unwrap().len() == 2
    })
    .await;
    let mut next = ca.script.bundle();
    next.x509_authorities.push(proto::spire::api::types::X509Certificate {
        asn1: Authority::new("next").der.to_vec(),
        tainted: false,
    });
    next.sequence_number = 3;
    ca.script.push_bundle(next);

    let domain = spiffe::TrustDomain::new(DOMAIN).unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(5), bundles.next()).await.unwrap();
    assert_eq!(taken.unwrap().unwrap().get(&domain).unwrap().authorities().len(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn an_older_bundle_is_refused_and_a_newer_one_reaches_workloads() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    ca.script.knobs().sequence = 5;
    let agent = Running::start(joining(home.path(), &ca)).await;
    let mut bundles = agent.client().await.stream_x509_bundles().await.unwrap();
    let domain = spiffe::TrustDomain::new(DOMAIN).unwrap();
    assert_eq!(bundles.next().await.unwrap().unwrap().get(&domain).unwrap().authorities().len(), 1);
    let with_more = |sequence| {
        let mut bundle = ca.script.bundle();
        let more = proto::spire::api::types::X509Certificate {
            asn1: Authority::new("next").der.to_vec(),
            tainted: false,
        };
        bundle.x509_authorities.push(more);
        bundle.sequence_number = sequence;
        bundle
    };

    ca.script.push_bundle(with_more(4));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), bundles.next()).await.is_err(),
        "a rollback went through"
    );
    ca.script.push_bundle(with_more(6));

    assert_eq!(bundles.next().await.unwrap().unwrap().get(&domain).unwrap().authorities().len(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn many_entries_are_asked_for_in_batches_and_a_refused_one_holds_up_nothing() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[]).await);
    for n in 0..700 {
        ca.script
            .knobs()
            .entries
            .insert(format!("e{n}"), wire_entry(&format!("e{n}"), &format!("/s{n}"), &["uid:4294967294"]));
    }
    ca.script.put(wire_entry("mine", "/mine", &[&own_uid()]));
    ca.script.knobs().refused_entries.push("e0".to_owned());

    let agent = Running::start(joining(home.path(), &ca)).await;

    assert_eq!(agent.client().await.fetch_x509_svid().await.unwrap().spiffe_id().path(), "/mine");
    assert_eq!(ca.script.knobs().largest_batch, 500);
    agent.stop().await;
}

#[tokio::test]
async fn damaged_files_are_passed_over_and_the_node_joins_anew() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let config = joining(home.path(), &ca);
    Running::start(config.clone()).await.stop().await;
    for name in ["node.sealed", "cache.sealed"] {
        let path = home.path().join("data").join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::write(path, "garbage").unwrap();
    }
    ca.script.knobs().tokens.insert("good".to_owned(), None);

    let agent = Running::start(config).await;

    assert!(!agent.serial().await.is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_second_agent_is_kept_out_of_directory_and_socket() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let config = joining(home.path(), &ca);
    let agent = Running::start(config.clone()).await;

    let same_directory = ended(config.clone()).await;
    let same_socket = ended(Config {
        data_dir: home.path().join("other"),
        admin_socket: home.path().join("x"),
        ..config.clone()
    })
    .await;

    assert!(matches!(same_directory, RunError::Directory(DataDirError::InUse { .. })));
    assert!(matches!(same_socket, RunError::Socket(SocketError::InUse { .. })));
    let findings = crate::check(&config);
    assert!(!findings.iter().any(|finding| finding.about.contains("socket")), "{findings:?}");
    assert!(!agent.serial().await.is_empty(), "the first agent is untouched");
    agent.stop().await;
}

#[tokio::test]
async fn health_and_metrics_are_told_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let config =
        Config { metrics: Metrics::Listen("127.0.0.1:0".parse().unwrap()), ..joining(home.path(), &ca) };
    let agent = Running::start(config).await;
    let address = agent.ready.metrics.unwrap();
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };

    assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics").await;
    assert!(metrics.contains("vouchsafe_agent_svids 1\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(get("/other").await.starts_with("HTTP/1.1 404"));
    agent.stop().await;
}

#[tokio::test]
async fn what_the_ca_taints_is_replaced_at_once() {
    let (home, ca) = (tempfile::tempdir().unwrap(), ca_with(&[("a", "/a")]).await);
    let agent = Running::start(joining(home.path(), &ca)).await;
    let before = agent.serial().await;

    let mut bundle = ca.script.bundle();
    bundle.x509_authorities[0].tainted = true;
    bundle.sequence_number = 2;
    ca.script.push_bundle(bundle);

    eventually("a new SVID", async || agent.serial().await != before).await;
    agent.stop().await;
}
