//! What an identity costs: reading an ID, verifying a chain, one handshake with both sides on this thread.
//!
//! `cargo bench -p identity` prints the figures.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use identity::tls::{self, ClientAuth, ExpectedServer};
use identity::{
    BundleSet, Credentials, PrivateKey, Role, SpiffeId, TrustBundle, TrustDomain, X509Svid, verify,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

fn main() -> Result<(), Box<dyn Error>> {
    let credentials = credentials()?;
    let mut criterion = Criterion::default().configure_from_args();
    parsing(&mut criterion);
    verification(&mut criterion, &credentials);
    handshake(&mut criterion, &credentials)?;
    criterion.final_summary();
    Ok(())
}

fn parsing(criterion: &mut Criterion) {
    criterion.bench_function("parse a SPIFFE ID", |bencher| bencher.iter(|| SpiffeId::parse(black_box(ID))));
}

fn verification(criterion: &mut Criterion, credentials: &Credentials) {
    let now = SystemTime::now();
    let [leaf, intermediates @ ..] = credentials.svid().chain() else { return };
    criterion.bench_function("verify a leaf below its root", |bencher| {
        bencher.iter(|| verify(black_box(leaf), intermediates, credentials.anchors(), Role::Client, now));
    });
}

fn handshake(criterion: &mut Criterion, credentials: &Credentials) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let server = tls::server_config(credentials, ClientAuth::Required, &[])?;
    let expected = ExpectedServer::AnyOf(vec![SpiffeId::parse(ID)?]);
    let client = tls::client_config(credentials, expected, &[])?;
    criterion.bench_function("mutual TLS handshake, both sides", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::join!(tls::accept(server.clone(), far), tls::connect(client.clone(), near))
        });
    });
    Ok(())
}

fn credentials() -> Result<Credentials, Box<dyn Error>> {
    let root_key = KeyPair::generate()?;
    let mut root = params();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = root.self_signed(&root_key)?.der().clone();
    let key = PrivateKey::generate()?;
    let mut leaf = params();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.subject_alt_names = vec![SanType::URI(ID.try_into()?)];
    let chain = vec![leaf.signed_by(&key.rcgen()?, &Issuer::new(root, root_key))?.der().clone()];
    let bundles: BundleSet =
        [TrustBundle::new(TrustDomain::parse("prod.test")?, vec![authority])?].into_iter().collect();
    Ok(Credentials::new(Arc::new(X509Svid::from_chain(chain, key, None)?), bundles)?)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params
}

const ID: &str = "spiffe://prod.test/ns/default/sa/web";
