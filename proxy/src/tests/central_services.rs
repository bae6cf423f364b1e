//! Services of the CA: what an agent hands out is used only where the CA has signed it as services, and never an older set.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use futures_util::{StreamExt, stream, stream::Stream};
use identity::manifest::{Kind, Manifest, ManifestFile, Seen, signer_id};
use proto::{
    vouchsafe::v1::{
        Delivery, DeliveryBegin, DeliveryReport, DeliveryReportResponse, EndOfSet, NoPolicies, PolicyFile,
        PolicyState, PolicyStatus, SignedManifest, WatchDeliveryRequest,
        delivery::Step,
        service_delivery_server::{ServiceDelivery, ServiceDeliveryServer},
    },
    workload::spiffe_workload_api_server::SpiffeWorkloadApiServer,
};
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status};

use super::sources;
use crate::testing::{Authority, DOMAIN, Sidecar, Site, WEB, eventually};

const SHOP: &str = "{\"vouchsafe\":\"services/v1\",\"services\":[{\"name\":\"shop\",\"hosts\":[\"shop\"],\"ports\":[80],\"protocol\":\"tcp\",\"expect\":[\"spiffe://prod.test/shop\"],\"visible_to\":[\"spiffe://prod.test/web\"]}]}";

#[tokio::test]
async fn what_the_ca_has_signed_is_used_and_the_agent_hears_of_it() {
    let stage = Stage::start(|authority| delivery(authority, Kind::Services, 3, SHOP)).await;

    stage.reported(PolicyState::InForce, 3).await;

    let (status, ready) = stage.sidecar.admin("/readyz").await;
    assert!(status == 200 && !ready.contains("service_delivery"), "{ready}");
    let (_, metrics) = stage.sidecar.admin("/metrics").await;
    assert!(metrics.contains("vouchsafe_proxy_service_set_number 3\n"), "{metrics}");
}

#[tokio::test]
async fn an_older_set_is_refused_also_after_a_restart() {
    let stage = Stage::start(|authority| delivery(authority, Kind::Services, 3, SHOP)).await;
    stage.reported(PolicyState::InForce, 3).await;

    stage.say.send(delivery(&stage.authority, Kind::Services, 2, SHOP)).unwrap();
    let live = stage.reported(PolicyState::Refused, 2).await;
    let stage = stage.restart().await;
    let fresh = stage.reported(PolicyState::Refused, 2).await;

    assert!(live.reason.contains("older") && fresh.reason.contains("older"), "{live:?} {fresh:?}");
    assert_eq!(
        (live.number_in_force, fresh.number_in_force),
        (3, 0),
        "nothing is in force after the restart"
    );
    stage.says("service_delivery").await;
}

#[tokio::test]
async fn a_set_of_policies_is_no_set_of_services() {
    let stage = Stage::start(|authority| delivery(authority, Kind::Policies, 3, SHOP)).await;

    let refused = stage.reported(PolicyState::Refused, 3).await;

    assert!(refused.reason.contains("meant for \"sidecars\""), "{refused:?}");
}

#[tokio::test]
async fn a_set_with_a_flawed_entry_leaves_the_last_good_one() {
    let stage = Stage::start(|authority| delivery(authority, Kind::Services, 3, SHOP)).await;
    stage.reported(PolicyState::InForce, 3).await;

    let flawed = SHOP.replace("\"tcp\"", "\"udp\"");
    stage.say.send(delivery(&stage.authority, Kind::Services, 4, &flawed)).unwrap();
    let refused = stage.reported(PolicyState::Refused, 4).await;
    stage.say.send(delivery(&stage.authority, Kind::Services, 5, SHOP)).unwrap();
    stage.reported(PolicyState::InForce, 5).await;

    assert!(refused.reason.contains("tcp, http, auto"), "{refused:?}");
    assert_eq!(refused.number_in_force, 3);
}

#[tokio::test]
async fn the_unsigned_word_that_there_are_none_is_believed_only_where_there_never_were_any() {
    let stage = Stage::start(|_| vec![Step::None(NoPolicies {})]).await;
    stage.reported(PolicyState::None, 0).await;

    stage.say.send(delivery(&stage.authority, Kind::Services, 1, SHOP)).unwrap();
    stage.reported(PolicyState::InForce, 1).await;
    stage.say.send(vec![Step::None(NoPolicies {})]).unwrap();
    let refused = stage.reported(PolicyState::Refused, 0).await;

    assert!(refused.reason.contains("signed ones were taken before"), "{refused:?}");
    assert_eq!(refused.number_in_force, 1);
}

/// An agent that hands out what a test has it hand out.
#[derive(Clone)]
struct Agent {
    says: watch::Receiver<Vec<Step>>,
    reports: Arc<Mutex<Vec<PolicyStatus>>>,
}

#[tonic::async_trait]
impl ServiceDelivery for Agent {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Delivery, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchDeliveryRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let one =
            |steps: Vec<Step>| stream::iter(steps.into_iter().map(|step| Ok(Delivery { step: Some(step) })));
        Ok(Response::new(Box::pin(WatchStream::new(self.says.clone()).flat_map(one))))
    }

    async fn report(
        &self,
        request: Request<DeliveryReport>,
    ) -> Result<Response<DeliveryReportResponse>, Status> {
        self.reports.lock().unwrap().push(request.into_inner().status.unwrap());
        Ok(Response::new(DeliveryReportResponse {}))
    }
}

/// A sidecar whose services come from an agent.
struct Stage {
    authority: Authority,
    _site: Site,
    text: String,
    sidecar: Sidecar,
    say: watch::Sender<Vec<Step>>,
    reports: Arc<Mutex<Vec<PolicyStatus>>>,
    _identities: watch::Sender<sources::Answer>,
}

impl Stage {
    async fn start(first: impl FnOnce(&Authority) -> Vec<Step>) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, super::TCP_POLICY);
        let (say, says) = watch::channel(first(&authority));
        let (identities, answers) = watch::channel(sources::answer(&authority, &[WEB]));
        let reports: Arc<Mutex<Vec<PolicyStatus>>> = Arc::default();
        let agent = Agent { says, reports: Arc::clone(&reports) };
        let listener = UnixListener::bind(site.path("agent.sock")).unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(SpiffeWorkloadApiServer::new(sources::Agent { answers, seen: Arc::default() }))
                .add_service(ServiceDeliveryServer::new(agent))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        let dir = site.directory.path().display();
        let text = format!(
            "vouchsafe: proxy/v1\nsource: {{workload_api: \"unix://{dir}/agent.sock\"}}\n\
             services_from: agent\nservices_state_dir: {dir}/state\n\
             audit: {{file: {dir}/audit.jsonl}}\nadmin: {{listen: 127.0.0.1:0}}\noutbound:\n  \
             - {{name: shop, listen: 127.0.0.1:0, service: shop}}\n"
        );
        let sidecar = Sidecar::ready(&text).await;
        Self { authority, _site: site, text, sidecar, say, reports, _identities: identities }
    }

    /// The sidecar starts anew on the same disk.
    async fn restart(mut self) -> Self {
        self.sidecar.stop.cancel();
        (&mut self.sidecar.ended).await.unwrap().unwrap();
        self.reports.lock().unwrap().clear();
        let fresh = Sidecar::ready(&self.text.replace("audit.jsonl", "audit-2.jsonl")).await;
        self.sidecar = fresh;
        self
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

/// A whole delivery of one entry beside another one that is somebody else's.
fn delivery(authority: &Authority, kind: Kind, number: u64, entry: &str) -> Vec<Step> {
    let domain = identity::TrustDomain::parse(DOMAIN).unwrap();
    let svid = authority.svid(signer_id(&domain).unwrap().as_str());
    let files = vec![ManifestFile::of("4711", entry.as_bytes()), ManifestFile::of("0815", b"another's")];
    let generation = identity::crypto::hex(&identity::crypto::sha256(entry.as_bytes()));
    let seen = Seen { number, generation };
    let manifest = Manifest::of(kind, domain, seen, files, SystemTime::now()).unwrap();
    let signed = manifest.sign(svid.key(), svid.chain().to_vec()).unwrap();
    let manifest = SignedManifest {
        manifest: signed.manifest,
        signature: signed.signature,
        signer_chain: signed.chain.iter().map(|der| der.to_vec()).collect(),
    };
    let begin =
        DeliveryBegin { manifest: Some(manifest), files: vec!["4711".to_owned()], workloads: Vec::new() };
    let file = PolicyFile { name: "4711".to_owned(), content: entry.into() };
    vec![Step::Begin(begin), Step::File(file), Step::End(EndOfSet { number })]
}
