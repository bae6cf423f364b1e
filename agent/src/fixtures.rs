//! What tests share: an authority that issues certificates, entries, states, and a scripted CA.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{PrivateKey, TrustBundle, TrustDomain, X509Svid};
use proto::spire::api::types;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

use crate::attestor;
use crate::config::{Bootstrap, CaAddress, Config, Metrics};
use crate::entry::Entry;
use crate::selector::{Selector, SelectorSet};
use crate::state::{Held, Phase, State};
use crate::wire;

pub(crate) mod caller;
pub(crate) mod scripted_ca;

/// The trust domain of these tests.
pub(crate) const DOMAIN: &str = "prod.test";

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse(DOMAIN).unwrap()
}

/// A root that issues what it is asked for.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(86_400)).into();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// Issues a leaf for a public key, valid from `age` ago for `ttl`.
    pub(crate) fn issue(
        &self,
        id: &str,
        spki: &[u8],
        age: Duration,
        ttl: Duration,
    ) -> CertificateDer<'static> {
        let begin = SystemTime::now() - age;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(identity::crypto::random::<16>().unwrap().to_vec()));
        params.use_authority_key_identifier_extension = true;
        params.not_before = begin.into();
        params.not_after = (begin + ttl).into();
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    /// Issues an SVID that is valid from `age` ago for `ttl`.
    pub(crate) fn svid_aged(&self, id: &str, age: Duration, ttl: Duration) -> X509Svid {
        let key = PrivateKey::generate().unwrap();
        let leaf = self.issue(id, key.public_key_spki(), age, ttl);
        X509Svid::from_chain(vec![leaf], key, None).unwrap()
    }

    /// Issues an SVID that is valid for an hour.
    pub(crate) fn svid(&self, path: &str) -> Arc<X509Svid> {
        Arc::new(self.svid_aged(&format!("spiffe://{DOMAIN}{path}"), Duration::ZERO, HOUR))
    }

    pub(crate) fn bundle(&self, sequence: u64) -> TrustBundle {
        TrustBundle::new(domain(), vec![self.der.clone()]).unwrap().with_sequence(sequence)
    }
}

/// Returns an entry as the CA sends it: id, path and `unix` selector values.
pub(crate) fn wire_entry(id: &str, path: &str, selectors: &[&str]) -> types::Entry {
    let spiffe_id =
        |path: &str| Some(types::Spiffeid { trust_domain: DOMAIN.to_owned(), path: path.to_owned() });
    types::Entry {
        id: id.to_owned(),
        spiffe_id: spiffe_id(path),
        parent_id: spiffe_id("/spire/agent/join_token/x"),
        selectors: selectors
            .iter()
            .map(|value| types::Selector { r#type: "unix".to_owned(), value: (*value).to_owned() })
            .collect(),
        created_at: 1,
        ..types::Entry::default()
    }
}

pub(crate) fn entry(id: &str, path: &str, selectors: &[&str]) -> Entry {
    wire::entry(wire_entry(id, path, selectors), &domain()).unwrap()
}

pub(crate) fn selectors(values: &[&str]) -> SelectorSet {
    values.iter().map(|value| Selector::new("unix", *value).unwrap()).collect()
}

/// Returns a state that serves `entries`, each with its SVID.
pub(crate) fn serving(authority: &Authority, entries: Vec<Entry>) -> State {
    let mut state = State::empty(domain());
    state.phase = Phase::Serving;
    state.agent_id = Some(format!("spiffe://{DOMAIN}/spire/agent/join_token/x").parse().unwrap());
    state.bundles.insert(authority.bundle(1));
    for entry in &entries {
        let svid = Arc::new(authority.svid_aged(entry.spiffe_id.as_str(), Duration::ZERO, HOUR));
        let renew_at = SystemTime::now() + HOUR / 2;
        state.svids.insert(entry.id.clone(), Held { svid, renew_at, revision: entry.revision });
    }
    state.entries = entries.into_iter().map(Arc::new).collect();
    state
}

/// Returns the selector that every process of these tests has.
pub(crate) fn own_uid() -> String {
    format!("uid:{}", rustix::process::geteuid().as_raw())
}

/// Returns a configuration that keeps everything below `home`.
pub(crate) fn config(home: &Path, bootstrap: Bootstrap) -> Config {
    Config {
        trust_domain: domain(),
        ca: CaAddress::FromJoinString,
        data_dir: home.join("data"),
        socket: home.join("run/agent.sock"),
        admin_socket: home.join("data/admin.sock"),
        bootstrap,
        attestor: attestor::Options::default(),
        metrics: Metrics::Off,
        credentials_directory: None,
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
