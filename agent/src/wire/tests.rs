use super::*;
use crate::fixtures::{Authority, DOMAIN, HOUR, domain, wire_entry};

fn refused(change: impl FnOnce(&mut types::Entry)) -> EntryError {
    let mut entry = wire_entry("e", "/a", &["uid:1"]);
    change(&mut entry);
    super::entry(entry, &domain()).expect_err("the flaw was accepted")
}

#[test]
fn an_entry_survives_the_way_out_and_back() {
    let mut sent = wire_entry("e", "/a", &["uid:1", "path:/x"]);
    sent.federates_with = vec!["other.test".to_owned()];
    sent.dns_names = vec!["a.test".to_owned()];
    sent.hint = "internal".to_owned();
    sent.expires_at = 4_000_000_000;
    sent.revision_number = 7;
    sent.store_svid = true;
    sent.x509_svid_ttl = 60;

    let read = entry(sent, &domain()).unwrap();

    assert_eq!(entry(to_entry(&read), &domain()).unwrap(), read);
    assert_eq!((read.revision, read.delivery, read.x509_svid_ttl), (7, Delivery::ExternalStore, 60));
}

#[test]
fn a_trust_domain_is_read_with_and_without_its_scheme() {
    let mut sent = wire_entry("e", "/a", &["uid:1"]);
    sent.federates_with = vec!["spiffe://other.test".to_owned(), "third.test".to_owned()];

    let read = entry(sent, &domain()).unwrap();

    assert_eq!(
        read.federates_with.iter().map(TrustDomain::as_str).collect::<Vec<_>>(),
        ["other.test", "third.test"]
    );
}

#[test]
fn flawed_entries_are_refused() {
    assert!(matches!(refused(|entry| entry.id.clear()), EntryError::Id));
    assert!(matches!(refused(|entry| entry.id = "e".repeat(MAX_ENTRY_ID_BYTES + 1)), EntryError::Id));
    assert!(matches!(refused(|entry| entry.hint = "h".repeat(MAX_HINT_BYTES + 1)), EntryError::Hint));
    assert!(matches!(refused(|entry| entry.spiffe_id = None), EntryError::SpiffeId(_)));
    assert!(matches!(refused(|entry| entry.parent_id = None), EntryError::SpiffeId(_)));
    assert!(matches!(
        refused(|entry| entry.spiffe_id.as_mut().unwrap().path = "/a/../b".to_owned()),
        EntryError::SpiffeId(_)
    ));
    assert!(matches!(
        refused(|entry| entry.spiffe_id.as_mut().unwrap().path.clear()),
        EntryError::Foreign { .. }
    ));
    assert!(matches!(
        refused(|entry| entry.spiffe_id.as_mut().unwrap().trust_domain = "other.test".to_owned()),
        EntryError::Foreign { .. }
    ));
    assert!(matches!(refused(|entry| entry.selectors[0].value.clear()), EntryError::Selector(_)));
    let many = wire_entry("e", "/a", &["uid:1"]).selectors[0].clone();
    assert!(matches!(
        refused(|entry| entry.selectors = vec![many; MAX_ENTRY_SELECTORS + 1]),
        EntryError::Selectors { found } if found == MAX_ENTRY_SELECTORS + 1
    ));
    assert!(matches!(
        refused(|entry| entry.federates_with = vec!["Other".to_owned()]),
        EntryError::SpiffeId(_)
    ));
}

#[test]
fn an_end_before_the_epoch_is_an_end_after_the_way_out_and_back() {
    let mut sent = wire_entry("e", "/a", &["uid:1"]);
    sent.expires_at = -5;

    let read = entry(sent, &domain()).unwrap();

    assert_eq!(read.expires, Expiry::At(UNIX_EPOCH + Duration::from_secs(1)));
    assert_eq!(entry(to_entry(&read), &domain()).unwrap(), read);
}

#[test]
fn a_bundle_is_read_with_its_tainted_authorities() {
    let (good, bad) = (Authority::new("good"), Authority::new("bad"));
    let certificate =
        |authority: &Authority, tainted| types::X509Certificate { asn1: authority.der.to_vec(), tainted };
    let sent = types::Bundle {
        trust_domain: DOMAIN.to_owned(),
        x509_authorities: vec![certificate(&good, false), certificate(&bad, true)],
        sequence_number: 4,
        refresh_hint: 120,
        ..types::Bundle::default()
    };

    let read = bundle(sent, &domain()).unwrap();

    assert_eq!(read.bundle.x509_authorities().len(), 2);
    assert_eq!(
        (read.bundle.sequence(), read.bundle.refresh_hint()),
        (Some(4), Some(Duration::from_secs(120)))
    );
    assert_eq!(read.tainted.into_iter().collect::<Vec<_>>(), [bad.der.to_vec()]);
}

#[test]
fn a_foreign_or_unreadable_bundle_is_refused() {
    let of = |trust_domain: &str, asn1: Vec<u8>| types::Bundle {
        trust_domain: trust_domain.to_owned(),
        x509_authorities: vec![types::X509Certificate { asn1, tainted: false }],
        ..types::Bundle::default()
    };
    let root = Authority::new("root").der.to_vec();

    assert!(matches!(
        bundle(of("other.test", root.clone()), &domain()),
        Err(ReceiveBundleError::OtherDomain { .. })
    ));
    assert!(matches!(bundle(of("", root), &domain()), Err(ReceiveBundleError::Name(_))));
    assert!(matches!(bundle(of(DOMAIN, vec![1, 2, 3]), &domain()), Err(ReceiveBundleError::Bundle(_))));
}

#[test]
fn an_svid_for_another_key_or_identity_is_refused() {
    let authority = Authority::new("root");
    let key = PrivateKey::generate().unwrap();
    let leaf = authority.issue("spiffe://prod.test/a", key.public_key_spki(), Duration::ZERO, HOUR);
    let key = Arc::new(key);
    let sent = |path: &str| types::X509svid {
        cert_chain: vec![leaf.to_vec()],
        id: Some(types::Spiffeid { trust_domain: DOMAIN.to_owned(), path: path.to_owned() }),
        ..types::X509svid::default()
    };

    assert_eq!(svid(sent("/a"), key.clone()).unwrap().id().path(), "/a");
    assert!(matches!(svid(sent("/b"), key), Err(ReceiveSvidError::OtherId { .. })));
    assert!(matches!(svid(sent("/a"), PrivateKey::generate().unwrap()), Err(ReceiveSvidError::Svid(_))));
    assert!(svid(types::X509svid::default(), PrivateKey::generate().unwrap()).is_err());
}

#[test]
fn a_denial_is_read_only_from_its_own_type() {
    assert_eq!(denial(&to_denial(Reason::AgentBanned)), Some(Reason::AgentBanned));
    assert_eq!(denial(b""), None);
    let any = prost_types::Any { type_url: "type.googleapis.com/other".to_owned(), value: vec![8, 4] };
    let other = RpcStatus { code: 7, message: String::new(), details: vec![any] };
    assert_eq!(denial(&prost::Message::encode_to_vec(&other)), None);
}
