//! What crosses the wire and what is refused there.

use super::*;
use crate::model::unix_seconds;

#[test]
fn an_entry_survives_the_way_there_and_back() {
    let entry = entry();

    assert_eq!(entry_from_wire(entry_to_wire(&entry, None)), Some(entry));
}

#[test]
fn a_mask_leaves_the_name_and_what_it_names() {
    let mask = types::EntryMask { spiffe_id: true, hint: true, ..Default::default() };

    let masked = entry_to_wire(&entry(), Some(&mask));

    let only = types::Entry {
        id: "e1".into(),
        spiffe_id: Some(types::Spiffeid { trust_domain: "prod.test".into(), path: "/web".into() }),
        hint: "internal".into(),
        ..Default::default()
    };
    assert_eq!(masked, only);
}

#[test]
fn a_patch_holds_only_what_the_mask_names() {
    let wire = types::Entry { id: "e1".into(), hint: "new".into(), x509_svid_ttl: 9, ..Default::default() };
    let mask = types::EntryMask { hint: true, ..Default::default() };

    let (id, patch) = entry_patch(wire, Some(mask), &domain()).unwrap();

    assert_eq!(id.as_str(), "e1");
    assert_eq!((patch.hint.as_deref(), patch.x509_svid_ttl), (Some("new"), None));
}

#[test]
fn each_flawed_entry_is_an_invalid_argument() {
    let flaws: [fn(&mut types::Entry); 9] = [
        |e| e.id = "a b".into(),
        |e| e.spiffe_id = None,
        |e| e.parent_id = None,
        |e| e.spiffe_id.as_mut().unwrap().trust_domain = "other.test".into(),
        |e| e.spiffe_id.as_mut().unwrap().path = "web".into(),
        |e| e.spiffe_id.as_mut().unwrap().path = "/a//b".into(),
        |e| e.selectors.clear(),
        |e| e.selectors[0].r#type.clear(),
        |e| e.federates_with = vec!["not a domain".into()],
    ];
    for spoil in flaws {
        let mut wire = entry_to_wire(&entry(), None);
        spoil(&mut wire);
        let refused = entry_spec(wire.clone(), &domain()).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wire:?}");
    }
}

#[test]
fn federation_is_read_with_and_without_the_scheme() {
    let mut wire = entry_to_wire(&entry(), None);
    wire.federates_with = vec!["spiffe://other.test".into()];

    let (_, spec) = entry_spec(wire, &domain()).unwrap();

    assert_eq!(spec.federates_with, [TrustDomain::parse("other.test").unwrap()]);
}

#[test]
fn a_denial_carries_the_reason_that_agents_look_for() {
    let status = denied(Reason::AgentBanned, "agent is banned");

    let rich = RichStatus::decode(status.details()).unwrap();
    assert_eq!((rich.code, rich.message.as_str()), (7, "agent is banned"));
    assert_eq!(rich.details[0].type_url, "type.googleapis.com/spire.api.types.PermissionDeniedDetails");
    let details = types::PermissionDeniedDetails::decode(rich.details[0].value.as_slice()).unwrap();
    assert_eq!(details.reason(), Reason::AgentBanned);
}

#[test]
fn serial_numbers_are_shown_in_decimal() {
    assert_eq!(decimal("ff"), "255");
    assert_eq!(decimal("7fffffffffffffffffffffffffffffff"), i128::MAX.to_string());
}

#[test]
fn lifetimes_have_bounds() {
    let default = std::time::Duration::from_secs(7);

    assert_eq!(lifetime(0, default).unwrap(), default);
    assert_eq!(lifetime(60, default).unwrap().as_secs(), 60);
    assert!(lifetime(-1, default).is_err());
    assert!(lifetime(i32::MAX, default).is_err());
    assert!(now_seconds() <= unix_seconds(SystemTime::now()));
}

fn entry() -> Entry {
    let id = |path: &str| SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap();
    let selectors = ["unix:gid:7", "unix:uid:1"].map(|text| Selector::parse(text).unwrap()).to_vec();
    let mut spec = EntrySpec::new(id("/web"), id("/node/a"), selectors);
    spec.x509_svid_ttl = 60;
    spec.jwt_svid_ttl = 30;
    spec.dns_names = vec!["web.prod.test".into()];
    spec.federates_with = vec![TrustDomain::parse("other.test").unwrap()];
    spec.hint = "internal".into();
    spec.admin = true;
    spec.downstream = true;
    spec.on_demand = true;
    spec.expires_at = 99;
    Entry { id: EntryId::parse("e1").unwrap(), spec, revision: 3, created_at: 4, origin: Origin::Api }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}
