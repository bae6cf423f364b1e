//! Reloads of the policies of a running sidecar: of their own accord, asked for, and only looked at.

use std::path::PathBuf;

use super::{CLOSED, TCP_POLICY};
use crate::{
    reload::{AskError, Asked, Files, Outcome, ask, ask_about},
    testing::{Authority, Backend, Client, SHOP, STRANGER, Sidecar, Site, WEB, call, eventually},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A sidecar before an echo, with an admin socket beside the admin address.
struct Stage {
    authority: Authority,
    site: Site,
    sidecar: Sidecar,
    socket: PathBuf,
    _backend: Backend,
}

impl Stage {
    async fn start(policy: &str) -> Self {
        let stage = Self::begin(policy).await;
        stage.sidecar.wait_ready(200).await;
        stage
    }

    async fn begin(policy: &str) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, policy);
        let backend = Backend::start(|bytes| (bytes.len() / 4, "pong")).await;
        let socket = site.path("admin.sock");
        let both = format!("{{listen: 127.0.0.1:0, socket: {}}}", socket.display());
        let text = site.base().replace("{listen: 127.0.0.1:0}", &both);
        let text = format!(
            "{text}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
            backend.address
        );
        let sidecar = Sidecar::start(&text).await;
        Self { authority, site, sidecar, socket, _backend: backend }
    }

    async fn ask(&self, asked: Asked) -> Outcome {
        ask(&self.socket, asked).await.unwrap()
    }

    async fn client(&self, id: &str) -> Client {
        let mut client = call(&self.authority.credentials(id), self.sidecar.inbound()).await;
        ping(&mut client).await.unwrap();
        client
    }
}

async fn ping(client: &mut Client) -> std::io::Result<()> {
    client.write_all(b"ping").await?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"pong");
    Ok(())
}

/// Both may connect.
fn both() -> String {
    TCP_POLICY.replace("[spiffe://prod.test/shop]", "[spiffe://prod.test/shop, spiffe://prod.test/stranger]")
}

#[tokio::test]
async fn a_preview_names_what_a_reload_would_cut_and_cuts_nothing() {
    let stage = Stage::start(&both()).await;
    let (mut shop, mut stranger) = (stage.client(SHOP).await, stage.client(STRANGER).await);
    let before = stage.ask(Asked::Preview).await;
    assert_eq!((before.accepted, before.changed, before.losses.cut), (true, false, 0));
    let draft = tempfile::tempdir().unwrap();
    std::fs::write(draft.path().join("policy.yaml"), TCP_POLICY).unwrap();

    let preview = ask_about(&stage.socket, &Files::read(draft.path()).unwrap()).await.unwrap();

    assert!(preview.dry_run && preview.accepted && preview.changed, "{preview:?}");
    assert_eq!((preview.losses.cut, preview.losses.connections), (1, 2), "{preview:?}");
    assert_eq!(preview.losses.by_peer[0].peer, STRANGER);
    assert_eq!(preview.losses.lost[0].rule_lost.as_deref(), Some("web/shop-connects (policy.yaml:5)"));
    assert_eq!(preview.losses.lost[0].reason, "no_allow_matched");
    assert_eq!(preview.previous, before.generation);
    ping(&mut stranger).await.unwrap();
    ping(&mut shop).await.unwrap();
    stage.site.write_policy(TCP_POLICY);
    let generation = eventually(async || {
        let (_, ready) = stage.sidecar.admin("/readyz").await;
        preview.generation.as_deref().filter(|generation| ready.contains(*generation)).map(str::to_owned)
    });
    assert!(generation.await.is_some(), "what was looked at is what comes into force");
    assert!(ping(&mut stranger).await.is_err());
    ping(&mut shop).await.unwrap();
}

#[tokio::test]
async fn files_that_are_sent_are_only_looked_at() {
    let stage = Stage::start(TCP_POLICY).await;
    let body = "{\"files\":{}}";
    for path in ["/policies/reload", "/policies/reload-empty"] {
        let mut stream = tokio::net::UnixStream::connect(&stage.socket).await.unwrap();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = crate::testing::read_all(&mut stream).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    for name in ["notes.txt", "../a.yaml", ".a.yaml"] {
        let files = Files { files: [(name.to_owned(), TCP_POLICY.to_owned())].into() };
        let outcome = ask_about(&stage.socket, &files).await.unwrap();
        assert!(!outcome.accepted && outcome.refusal.unwrap().contains("would not be read"), "{name}");
    }
}

#[tokio::test]
async fn a_preview_of_a_broken_file_says_what_is_wrong() {
    let stage = Stage::start(TCP_POLICY).await;
    let mut shop = stage.client(SHOP).await;
    stage.site.write_policy("vouchsafe: policy/v1\nname: web\nprotekts: x\n");

    let preview = stage.ask(Asked::Preview).await;

    assert!(!preview.accepted && preview.generation.is_none(), "{preview:?}");
    assert!(preview.refusal.unwrap().contains("policy.yaml:3:1"));
    ping(&mut shop).await.unwrap();
}

#[tokio::test]
async fn a_reload_is_in_force_when_it_is_answered() {
    let stage = Stage::start(TCP_POLICY).await;
    let mut shop = stage.client(SHOP).await;
    stage.site.write_policy(CLOSED);

    let outcome = stage.ask(Asked::Reload).await;
    let (_, ready) = stage.sidecar.admin("/readyz").await;

    assert!(outcome.accepted && !outcome.dry_run, "{outcome:?}");
    assert!(ready.contains(&outcome.generation.unwrap()), "{ready}");
    assert!(ping(&mut shop).await.is_err());
    let record = stage.site.record(|record| record["unmapped"]["vouchsafe"]["change"]["cut"] == 1).await;
    assert_eq!(record["unmapped"]["vouchsafe"]["change"]["what"], "policy_changed");
}

#[tokio::test]
async fn a_reload_of_what_is_in_force_changes_nothing() {
    let stage = Stage::start(TCP_POLICY).await;

    let outcome = stage.ask(Asked::Reload).await;

    assert_eq!((outcome.accepted, outcome.changed, outcome.losses.cut), (true, false, 0));
    assert_eq!(outcome.generation, outcome.previous);
}

#[tokio::test]
async fn a_directory_that_is_emptied_keeps_the_last_good_set_until_somebody_means_it() {
    let stage = Stage::start(TCP_POLICY).await;
    let mut shop = stage.client(SHOP).await;
    std::fs::remove_file(stage.site.path("policies/policy.yaml")).unwrap();

    let warned = eventually(async || {
        let (_, ready) = stage.sidecar.admin("/readyz").await;
        ready.contains("holds no policy file any more").then_some(ready)
    });
    let warned = warned.await.expect("a warning");
    let refused = stage.ask(Asked::Reload).await;

    assert!(warned.contains("policy_reload") && warned.contains("\"ready\": true"), "{warned}");
    assert!(!refused.accepted, "{refused:?}");
    ping(&mut shop).await.unwrap();
    let meant = stage.ask(Asked::ReloadEmpty).await;
    assert_eq!((meant.accepted, meant.losses.cut), (true, 1), "{meant:?}");
    assert!(ping(&mut shop).await.is_err());
    stage.site.write_policy(TCP_POLICY);
    assert!(stage.ask(Asked::Reload).await.accepted);
    stage.client(SHOP).await;
}

#[tokio::test]
async fn a_directory_that_was_always_empty_is_no_mistake() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, TCP_POLICY);
    std::fs::remove_file(site.path("policies/policy.yaml")).unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: tcp, application: 127.0.0.1:9}}\n",
        site.base()
    );

    let sidecar = Sidecar::ready(&text).await;
    let (_, ready) = sidecar.admin("/readyz").await;

    assert!(ready.contains("policy_use") && !ready.contains("policy_reload"), "{ready}");
}

#[tokio::test]
async fn nobody_asks_for_a_reload_on_loopback() {
    let stage = Stage::start(TCP_POLICY).await;
    let address = stage.sidecar.ready.admin.unwrap();

    for asked in Asked::ALL {
        for method in ["GET", "POST"] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request =
                format!("{method} {} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n", asked.path());
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = crate::testing::read_all(&mut stream).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 403 "), "{method}: {}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn a_request_by_get_changes_nothing_even_for_an_operator() {
    let stage = Stage::start(TCP_POLICY).await;

    for asked in Asked::ALL {
        let mut stream = tokio::net::UnixStream::connect(&stage.socket).await.unwrap();
        let request = format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", asked.path());
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = crate::testing::read_all(&mut stream).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_socket_that_nobody_answers_is_told_apart_from_a_refusal() {
    let directory = tempfile::tempdir().unwrap();

    let error = ask(&directory.path().join("none"), Asked::Preview).await.unwrap_err();

    assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn names_that_are_not_read_are_told() {
    let stage = Stage::start(TCP_POLICY).await;
    std::fs::write(stage.site.path("policies/deny.YAML"), "").unwrap();
    std::fs::create_dir(stage.site.path("policies/more")).unwrap();

    let outcome = stage.ask(Asked::Preview).await;

    assert_eq!(outcome.ignored, ["deny.YAML", "more"]);
}

#[tokio::test]
async fn a_touch_is_no_change() {
    let stage = Stage::start(TCP_POLICY).await;
    let loads = async || {
        let (_, metrics) = stage.sidecar.admin("/metrics").await;
        metrics
            .lines()
            .find(|line| line.starts_with("vouchsafe_proxy_policy_loads_total"))
            .unwrap()
            .to_owned()
    };
    let before = loads().await;

    stage.site.write_policy(TCP_POLICY);
    stage.ask(Asked::Preview).await;
    tokio::time::sleep(crate::watching::SETTLE * 4).await;

    assert_eq!(loads().await, before);
}
