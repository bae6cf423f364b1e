//! Central policies: what an agent hands out comes into force only where the CA has signed it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use futures_util::{StreamExt, stream, stream::Stream};
use identity::manifest::{Manifest, ManifestFile, SIGNER_PATH, Seen, signer_id};
use proto::{
    vouchsafe::v1::{
        DeliveredWorkload, Delivery, DeliveryBegin, DeliveryReport, DeliveryReportResponse, EndOfSet,
        NoPolicies, PolicyFile, PolicyState, PolicyStatus, SignedManifest, WaitingForPolicies,
        WatchDeliveryRequest,
        delivery::Step,
        policy_delivery_server::{PolicyDelivery, PolicyDeliveryServer},
    },
    workload::spiffe_workload_api_server::SpiffeWorkloadApiServer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::watch,
};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status};

use super::{TCP_POLICY, sources};
use crate::testing::{
    Authority, Backend, Client, DOMAIN, SHOP, STRANGER, Sidecar, Site, WEB, call, eventually, read_all,
};

/// An agent that hands out what a test has it hand out.
#[derive(Clone)]
struct Agent {
    says: watch::Receiver<Vec<Step>>,
    reports: Arc<Mutex<Vec<PolicyStatus>>>,
    held: Arc<Mutex<Vec<usize>>>,
}

#[tonic::async_trait]
impl PolicyDelivery for Agent {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Delivery, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchDeliveryRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        assert_eq!(request.metadata().get("workload.spiffe.io").unwrap(), "true");
        self.held.lock().unwrap().push(request.into_inner().held.len());
        let one =
            |steps: Vec<Step>| stream::iter(steps.into_iter().map(|step| Ok(Delivery { step: Some(step) })));
        Ok(Response::new(Box::pin(WatchStream::new(self.says.clone()).flat_map(one))))
    }

    async fn report(
        &self,
        request: Request<DeliveryReport>,
    ) -> Result<Response<DeliveryReportResponse>, Status> {
        let report = request.into_inner();
        assert_eq!(report.spiffe_id, WEB);
        self.reports.lock().unwrap().push(report.status.unwrap());
        Ok(Response::new(DeliveryReportResponse {}))
    }
}

/// A web sidecar whose policies come from an agent.
struct Stage {
    authority: Authority,
    site: Site,
    text: String,
    sidecar: Sidecar,
    say: watch::Sender<Vec<Step>>,
    _identities: watch::Sender<sources::Answer>,
    reports: Arc<Mutex<Vec<PolicyStatus>>>,
    _backend: Backend,
}

impl Stage {
    async fn start(first: impl FnOnce(&Authority) -> Vec<Step>) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, TCP_POLICY);
        std::fs::remove_file(site.path("policies/policy.yaml")).unwrap();
        let (say, says) = watch::channel(first(&authority));
        let (identities, answers) = watch::channel(sources::answer(&authority, &[WEB]));
        let reports: Arc<Mutex<Vec<PolicyStatus>>> = Arc::default();
        let agent = Agent { says, reports: Arc::clone(&reports), held: Arc::default() };
        let listener = UnixListener::bind(site.path("agent.sock")).unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(SpiffeWorkloadApiServer::new(sources::Agent { answers, seen: Arc::default() }))
                .add_service(PolicyDeliveryServer::new(agent))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        let backend = Backend::start(|bytes| (bytes.len() / 4, "pong")).await;
        let dir = site.directory.path().display();
        let text = format!(
            "vouchsafe: proxy/v1\nsource: {{workload_api: \"unix://{dir}/agent.sock\"}}\n\
             policies: {{from: agent, local: {dir}/policies, state_dir: {dir}/state}}\n\
             audit: {{file: {dir}/audit.jsonl}}\nadmin: {{listen: 127.0.0.1:0}}\ninbound:\n  \
             - {{name: db, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
            backend.address
        );
        let sidecar = Sidecar::start(&text).await;
        Self { authority, site, text, sidecar, say, _identities: identities, reports, _backend: backend }
    }

    async fn ready(first: impl FnOnce(&Authority) -> Vec<Step>) -> Self {
        let stage = Self::start(first).await;
        stage.sidecar.wait_ready(200).await;
        stage
    }

    async fn passes(&self, id: &str) -> Option<Client> {
        let mut client = call(&self.authority.credentials(id), self.sidecar.inbound()).await;
        client.write_all(b"ping").await.ok()?;
        client.read_exact(&mut [0; 4]).await.ok()?;
        Some(client)
    }

    async fn says(&self, wanted: &str) {
        let found =
            eventually(async || self.sidecar.admin("/readyz").await.1.contains(wanted).then_some(())).await;
        assert!(found.is_some(), "{wanted}: {:?}", self.sidecar.admin("/readyz").await);
    }

    async fn reported(&self, state: PolicyState, number: u64) -> PolicyStatus {
        let find = || {
            let reports = self.reports.lock().unwrap();
            reports.iter().rev().find(|report| report.state() == state && report.number == number).cloned()
        };
        eventually(async || find()).await.unwrap_or_else(|| panic!("{:?}", self.reports.lock().unwrap()))
    }
}

/// A whole delivery of one file, signed as `change` leaves it.
fn delivery(authority: &Authority, number: u64, policy: &str) -> Vec<Step> {
    signed_by(authority, SIGNER_PATH, number, policy)
}

fn signed_by(authority: &Authority, path: &str, number: u64, policy: &str) -> Vec<Step> {
    let domain = identity::TrustDomain::parse(DOMAIN).unwrap();
    assert_eq!(signer_id(&domain).unwrap().as_str(), format!("spiffe://{DOMAIN}{SIGNER_PATH}"));
    let svid = authority.svid(&format!("spiffe://{DOMAIN}{path}"));
    let files =
        vec![ManifestFile::of("web.yaml", policy.as_bytes()), ManifestFile::of("other.yaml", b"another's")];
    let generation = identity::crypto::hex(&identity::crypto::sha256(policy.as_bytes()));
    let manifest = Manifest::new(domain, Seen { number, generation }, files, SystemTime::now()).unwrap();
    let signed = manifest.sign(svid.key(), svid.chain().to_vec()).unwrap();
    let manifest = SignedManifest {
        manifest: signed.manifest,
        signature: signed.signature,
        signer_chain: signed.chain.iter().map(|der| der.to_vec()).collect(),
    };
    let workload = DeliveredWorkload { spiffe_id: WEB.to_owned(), ..DeliveredWorkload::default() };
    vec![
        Step::Begin(DeliveryBegin {
            manifest: Some(manifest),
            files: vec!["web.yaml".to_owned()],
            workloads: vec![workload],
        }),
        Step::File(PolicyFile { name: "web.yaml".to_owned(), content: policy.into() }),
        Step::End(EndOfSet { number }),
    ]
}

fn for_stranger() -> String {
    TCP_POLICY.replace("spiffe://prod.test/shop", STRANGER)
}

#[tokio::test]
async fn what_the_ca_has_signed_comes_into_force_and_the_agent_hears_of_it() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;

    let report = stage.reported(PolicyState::InForce, 1).await;

    assert!(stage.passes(SHOP).await.is_some());
    assert!(stage.passes(STRANGER).await.is_none());
    let (_, ready) = stage.sidecar.admin("/readyz").await;
    assert!(ready.contains(&report.generation) && !ready.contains("policy_delivery"), "{ready}");
    let (_, metrics) = stage.sidecar.admin("/metrics").await;
    assert!(metrics.contains("vouchsafe_proxy_policy_number 1\n"), "{metrics}");
}

#[tokio::test]
async fn until_the_agent_knows_nothing_passes_and_the_sidecar_is_not_ready() {
    let stage = Stage::start(|_| vec![Step::Waiting(WaitingForPolicies {})]).await;

    stage.says("does not know yet").await;

    assert_eq!(stage.sidecar.admin("/readyz").await.0, 503);
    assert!(stage.passes(SHOP).await.is_none());
    stage.say.send(delivery(&stage.authority, 1, TCP_POLICY)).unwrap();
    stage.sidecar.wait_ready(200).await;
    assert!(stage.passes(SHOP).await.is_some());
}

#[tokio::test]
async fn newer_policies_cut_who_loses_the_right() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    let mut shop = stage.passes(SHOP).await.unwrap();

    stage.say.send(delivery(&stage.authority, 2, &for_stranger())).unwrap();

    assert!(read_all(&mut shop).await.is_err());
    stage.reported(PolicyState::InForce, 2).await;
    assert!(stage.passes(STRANGER).await.is_some());
}

#[tokio::test]
async fn policies_signed_by_somebody_else_are_refused_and_change_nothing() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;

    stage.say.send(signed_by(&stage.authority, "/web", 2, &for_stranger())).unwrap();

    let report = stage.reported(PolicyState::Refused, 2).await;
    assert_eq!(report.number_in_force, 1);
    stage.says("policy_delivery").await;
    assert!(stage.passes(SHOP).await.is_some());
    assert!(stage.passes(STRANGER).await.is_none());
}

#[tokio::test]
async fn policies_of_another_authority_are_refused() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;

    stage.say.send(delivery(&Authority::new("prod"), 2, &for_stranger())).unwrap();

    stage.reported(PolicyState::Refused, 2).await;
    assert!(stage.passes(STRANGER).await.is_none());
}

#[tokio::test]
async fn a_file_that_is_not_the_one_in_the_manifest_is_refused() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    let mut steps = delivery(&stage.authority, 2, &TCP_POLICY.replace("shop-connects", "shop-calls"));
    let Step::File(file) = &mut steps[1] else { panic!() };
    file.content = for_stranger().into_bytes();

    stage.say.send(steps).unwrap();

    stage.reported(PolicyState::Refused, 2).await;
    assert!(stage.passes(STRANGER).await.is_none());
}

#[tokio::test]
async fn older_policies_are_refused_even_after_a_restart() {
    let stage = Stage::ready(|authority| delivery(authority, 5, TCP_POLICY)).await;
    stage.reported(PolicyState::InForce, 5).await;

    stage.say.send(delivery(&stage.authority, 4, &for_stranger())).unwrap();
    stage.reported(PolicyState::Refused, 4).await;
    assert!(stage.passes(SHOP).await.is_some());
    stage.sidecar.stop.cancel();
    stage.sidecar.ended.await.unwrap().unwrap();
    stage.reports.lock().unwrap().clear();
    let again = Sidecar::start(&stage.text).await;
    let find = || stage.reports.lock().unwrap().iter().any(|report| report.state() == PolicyState::Refused);

    assert!(eventually(async || find().then_some(())).await.is_some());
    assert_eq!(again.admin("/readyz").await.0, 503);
}

#[tokio::test]
async fn the_word_that_there_are_none_counts_only_where_there_never_were_any() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    stage.say.send(vec![Step::None(NoPolicies {})]).unwrap();
    stage.says("signed ones were taken before").await;
    assert!(stage.passes(SHOP).await.is_some());

    let none = Stage::ready(|_| vec![Step::None(NoPolicies {})]).await;

    none.reported(PolicyState::None, 0).await;
    assert!(none.passes(SHOP).await.is_none());
}

#[tokio::test]
async fn a_delivery_out_of_order_is_no_delivery() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    let end = delivery(&stage.authority, 2, &for_stranger()).split_off(2);

    stage.say.send(end).unwrap();

    stage.says("without a beginning").await;
    assert!(stage.passes(SHOP).await.is_some());
    assert!(stage.passes(STRANGER).await.is_none());
}

#[tokio::test]
async fn a_number_that_was_kept_and_cannot_be_read_is_not_forgotten() {
    let stage = Stage::start(|_| vec![Step::Waiting(WaitingForPolicies {})]).await;
    stage.says("does not know yet").await;
    stage.sidecar.stop.cancel();
    stage.sidecar.ended.await.unwrap().unwrap();
    std::fs::create_dir_all(stage.site.path("state")).unwrap();
    std::fs::write(stage.site.path("state/policy-seen.json"), "{").unwrap();
    stage.say.send(delivery(&stage.authority, 1, TCP_POLICY)).unwrap();

    let again = Sidecar::start(&stage.text).await;
    let told = eventually(async || again.admin("/readyz").await.1.contains("policy-seen.json").then_some(()));

    assert!(told.await.is_some());
    assert_eq!(again.admin("/readyz").await.0, 503);
}

#[tokio::test]
async fn local_files_refuse_more_and_a_broken_one_holds_up_no_withdrawal() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    let mut shop = stage.passes(SHOP).await.unwrap();
    stage.site.write_policy("nonsense");
    stage.says("policy_reload").await;

    stage.say.send(delivery(&stage.authority, 2, &for_stranger())).unwrap();

    assert!(read_all(&mut shop).await.is_err());
    stage.reported(PolicyState::InForce, 2).await;
    // The broken file is still told of.
    stage.says("policy_reload").await;
}

#[tokio::test]
async fn a_broken_local_file_at_the_start_is_mended_without_another_delivery() {
    let stage = Stage::start(|_| vec![Step::Waiting(WaitingForPolicies {})]).await;
    stage.site.write_policy("nonsense");
    stage.says("does not know yet").await;
    stage.say.send(delivery(&stage.authority, 1, TCP_POLICY)).unwrap();
    stage.reported(PolicyState::Refused, 1).await;
    let refused = stage.passes(SHOP).await;

    std::fs::remove_file(stage.site.path("policies/policy.yaml")).unwrap();

    assert!(refused.is_none());
    stage.sidecar.wait_ready(200).await;
    assert!(stage.passes(SHOP).await.is_some());
    stage.reported(PolicyState::InForce, 1).await;
}

#[tokio::test]
async fn a_local_file_with_the_name_of_a_later_central_policy_holds_up_no_withdrawal() {
    let stage = Stage::ready(|authority| delivery(authority, 1, TCP_POLICY)).await;
    let mut shop = stage.passes(SHOP).await.unwrap();
    stage.site.write_policy(
        "vouchsafe: policy/v1\nname: later\nprotects: spiffe://prod.test/web\nmode: enforce\ndeny:\n  \
         - name: nobody\n    from: [spiffe://prod.test/nobody]\n    tcp: {port: 1}\n",
    );
    let (_, before) = stage.sidecar.admin("/readyz").await;
    assert!(
        eventually(async || stage.sidecar.admin("/readyz").await.1.contains('+').then_some(()))
            .await
            .is_some(),
        "{before}"
    );
    let named = for_stranger().replacen("name: ", "name: later\n#", 1);

    stage.say.send(delivery(&stage.authority, 2, &named)).unwrap();

    stage.reported(PolicyState::InForce, 2).await;
    assert!(read_all(&mut shop).await.is_err());
}
