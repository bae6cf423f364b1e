//! What is shown of entries and of their changes.

use ca::model::{EntryId, Origin, Selector};
use identity::SpiffeId;

use super::*;
use crate::output::{Format, list, one};

#[test]
fn an_entry_is_a_row_for_people() {
    let text = printed(|to| list(to, Format::Table, &[EntryRow::new(&entry())]));

    assert_eq!(
        text,
        "ENTRY  SPIFFE ID               PARENT                     SELECTORS      TTL\n\
         e1     spiffe://prod.test/web  spiffe://prod.test/node/a  unix:uid:7     default\n\
         \x20                                                         unix:user:www\n"
    );
}

#[test]
fn a_whole_entry_shows_its_rights_and_life_time() {
    let mut entry = entry();
    entry.spec.x509_svid_ttl = 1_800;
    entry.spec.admin = true;

    let text = printed(|to| one(to, Format::Table, &WholeEntry(EntryRow::new(&entry))));

    assert!(text.contains("certificates live  30m\n"), "{text}");
    assert!(text.contains("rights             admin\n"), "{text}");
    assert!(text.contains("expires            never\n"), "{text}");
}

#[test]
fn an_entry_as_data_names_its_schema() {
    let text = printed(|to| one(to, Format::Jsonl, &WholeEntry(EntryRow::new(&entry()))));

    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], "vouchsafe/entry/v1");
    assert_eq!(value["selectors"][1], "unix:user:www");
}

#[test]
fn an_update_shows_only_what_changes() {
    let mut spec = entry().spec;
    spec.selectors.remove(0);
    spec.hint = "web".to_owned();

    let row = ChangeRow::update(&entry(), &spec);

    assert_eq!(row.difference, ["-selector: unix:uid:7", "+hint: web"]);
}

#[test]
fn a_creation_and_a_deletion_show_everything() {
    let created = ChangeRow::create(&entry().spec).difference;
    let deleted = ChangeRow::delete(&entry()).difference;

    assert_eq!(created.first().unwrap(), "+spiffe_id: spiffe://prod.test/web");
    assert_eq!(created.len(), 4);
    assert!(deleted.iter().all(|line| line.starts_with('-')));
}

#[test]
fn a_selector_that_would_drive_the_terminal_is_escaped() {
    let mut entry = entry();
    entry.spec.selectors = vec![Selector { kind: "unix".to_owned(), value: "path:/\u{1b}[2J".to_owned() }];

    let text = printed(|to| list(to, Format::Table, &[EntryRow::new(&entry)]));

    assert!(!text.contains('\u{1b}'), "{text}");
}

fn printed(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    print(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn entry() -> Entry {
    let id = |text| SpiffeId::parse(text).unwrap();
    let selectors = ["unix:uid:7", "unix:user:www"].map(|text| Selector::parse(text).unwrap());
    Entry {
        id: EntryId::parse("e1").unwrap(),
        spec: EntrySpec::new(
            id("spiffe://prod.test/web"),
            id("spiffe://prod.test/node/a"),
            selectors.to_vec(),
        ),
        revision: 1,
        created_at: 1_700_000_000,
        origin: Origin::Api,
    }
}
