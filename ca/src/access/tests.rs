//! The table and the rules behind it.

use std::{sync::Arc, time::Duration};

use identity::{Anchors, BundleSet, PrivateKey, Role, TrustBundle, TrustDomain, verify::verify};

use super::*;
use crate::{
    authority::Authority,
    issue::{RequestedKey, Subject},
    model::{Change, Entry, EntryId, EntrySpec, Node, Origin as EntryOrigin, Selector, SvidRecord},
};

#[test]
fn a_stranger_may_attest_and_read_the_bundle_and_nothing_else() {
    let registry = SharedRegistry::default();
    let stranger = Origin::Remote { source: source(), peer: None };

    let open: Vec<_> = TABLE
        .iter()
        .map(|(method, _)| *method)
        .filter(|method| authorise(method, &stranger, &registry, now()).is_ok())
        .collect();

    assert_eq!(
        open,
        ["/spire.api.server.agent.v1.Agent/AttestAgent", "/spire.api.server.bundle.v1.Bundle/GetBundle"]
    );
}

#[test]
fn what_an_agent_may_call_and_an_operator_may_not_are_apart() {
    let (registry, agent) = attested(Standing::Active);
    let local = Origin::Local { uid: 0, gid: 0 };

    for (method, classes) in TABLE {
        let by_agent = authorise(method, &agent, &registry, now()).is_ok();
        let by_operator = authorise(method, &local, &registry, now()).is_ok();
        assert_eq!(by_agent, classes.contains(&Class::Agent) || classes.contains(&Class::Any), "{method}");
        assert_eq!(by_operator, classes.contains(&Class::Local) || classes.contains(&Class::Any), "{method}");
        let writes = ["Create", "Update", "Delete", "Ban", "Mint"].iter().any(|verb| method.contains(verb));
        assert!(!(writes && by_agent), "an agent may call {method}");
    }
}

#[test]
fn a_method_that_is_not_in_the_table_does_not_exist() {
    let local = Origin::Local { uid: 0, gid: 0 };

    for method in
        ["", "/", "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA", "/grpc.health.v1.Health/Check"]
    {
        let outcome = authorise(method, &local, &SharedRegistry::default(), now());
        assert_eq!(outcome.err(), Some(Refusal::Unknown), "{method}");
    }
}

#[test]
fn an_agent_counts_only_while_its_certificate_does() {
    let (registry, origin) = attested(Standing::Active);
    let Origin::Remote { peer: Some(peer), .. } = &origin else { panic!("no peer") };
    let ask = |serial: &str, now| agent(peer.id(), serial, peer.not_after(), &registry, now).err();

    assert_eq!(ask(peer.serial(), now()), None);
    assert_eq!(ask("deadbeef", now()), Some(Refusal::Agent(Reason::AgentNotActive)));
    assert_eq!(ask(peer.serial(), peer.not_after()), Some(Refusal::Agent(Reason::AgentExpired)));
    let (banned, origin) = attested(Standing::Banned);
    assert_eq!(call_as_agent(&banned, &origin), Some(Refusal::Agent(Reason::AgentBanned)));
    let nobody = SharedRegistry::default();
    assert_eq!(call_as_agent(&nobody, &origin), Some(Refusal::Agent(Reason::AgentNotAttested)));
}

#[test]
fn both_certificates_of_a_renewal_count_and_the_newer_is_told_apart() {
    let (registry, origin) = attested(Standing::Active);
    let Origin::Remote { peer: Some(peer), .. } = &origin else { panic!("no peer") };
    let mut node = registry.read(|registry| registry.node(peer.id()).unwrap().as_ref().clone());
    node.renewed = Some(SvidRecord { serial: "beef".into(), expires_at: i64::MAX });
    registry.apply(vec![Change::NodePut(Arc::new(node))]);

    let phase = |serial: &str| match agent(peer.id(), serial, peer.not_after(), &registry, now()) {
        Ok(Caller::Agent { phase, .. }) => Some(phase),
        _ => None,
    };

    assert_eq!(phase(peer.serial()), Some(Phase::Current));
    assert_eq!(phase("beef"), Some(Phase::Renewed));
}

#[test]
fn a_workload_is_nobody_unless_an_entry_makes_it_admin() {
    let create = "/spire.api.server.entry.v1.Entry/BatchCreateEntry";
    let origin = remote("/ops");
    let registry = SharedRegistry::default();

    assert_eq!(authorise(create, &origin, &registry, now()).err(), Some(Refusal::NotAllowed));
    registry.apply(vec![admin_entry("/ops")]);
    assert!(matches!(authorise(create, &origin, &registry, now()), Ok(Caller::Admin { .. })));
    let late = now() + Duration::from_secs(3600);
    assert_eq!(authorise(create, &origin, &registry, late).err(), Some(Refusal::NotAllowed));
}

fn call_as_agent(registry: &SharedRegistry, origin: &Origin) -> Option<Refusal> {
    authorise("/spire.api.server.agent.v1.Agent/RenewAgent", origin, registry, now()).err()
}

fn attested(standing: Standing) -> (SharedRegistry, Origin) {
    let origin = remote("/spire/agent/join_token/x");
    let Origin::Remote { peer: Some(peer), .. } = &origin else { panic!("no peer") };
    let registry = SharedRegistry::default();
    registry.apply(vec![Change::NodePut(Arc::new(Node {
        id: peer.id().clone(),
        attestor: "join_token".into(),
        svid: SvidRecord { serial: peer.serial().into(), expires_at: unix_seconds(peer.not_after()) },
        renewed: None,
        standing,
        selectors: vec![],
        version: String::new(),
    }))]);
    (registry, origin)
}

/// A connection whose certificate the real verifier accepted.
fn remote(path: &str) -> Origin {
    let domain = TrustDomain::parse("prod.test").unwrap();
    let ca =
        Authority::make(&domain, &PrivateKey::generate().unwrap(), Duration::from_secs(600), now()).unwrap();
    let key = RequestedKey::from_csr(&PrivateKey::generate().unwrap().csr(None).unwrap()).unwrap();
    let subject = Subject {
        id: SpiffeId::new(&domain, path).unwrap(),
        dns_names: vec![],
        ttl: Duration::from_secs(300),
    };
    let leaf = ca.issue(&key, &subject, now()).unwrap().chain.remove(0).into();
    let bundle = TrustBundle::new(domain, vec![ca.certificate().clone()]).unwrap();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    let peer = verify(&leaf, &[], &anchors, Role::Client, now()).unwrap();
    Origin::Remote { source: source(), peer: Some(peer) }
}

fn admin_entry(path: &str) -> Change {
    let id = |path: &str| SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap();
    let mut spec = EntrySpec::new(id(path), id("/node"), vec![Selector::parse("unix:uid:0").unwrap()]);
    spec.admin = true;
    let id = EntryId::parse("1").unwrap();
    Change::EntryPut(Arc::new(Entry { id, spec, revision: 0, created_at: 0, origin: EntryOrigin::Api }))
}

fn source() -> std::net::SocketAddr {
    "10.0.0.1:1".parse().unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}
