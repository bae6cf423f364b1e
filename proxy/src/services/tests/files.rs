//! A directory of services: one transaction, and the last good ones stay.

use std::path::Path;

use tempfile::TempDir;

use super::super::directory::{Directory, Look};
use super::*;

const SHOP: &str = "vouchsafe: services/v1\nservices:\n  - {name: shop, ports: [80], protocol: http, expect: [spiffe://prod.test/shop]}\n";

fn own() -> SpiffeId {
    SpiffeId::parse("spiffe://prod.test/web").unwrap()
}

fn write(directory: &TempDir, name: &str, text: &str) {
    let fresh = directory.path().join("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, directory.path().join(name)).unwrap();
}

fn directory(path: &Path) -> Directory {
    Directory::new(path.to_owned())
}

fn names(look: Look) -> Vec<String> {
    match look {
        Look::Good(services) => services.into_iter().map(|service| service.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn refusal(look: Look) -> String {
    match look {
        Look::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_files_come_into_force_together_and_only_when_they_change() {
    let files = tempfile::tempdir().unwrap();
    write(&files, "shop.yaml", SHOP);
    write(&files, "db.yaml", &SHOP.replace("shop", "db").replace("http", "tcp"));
    let mut directory = directory(files.path());

    assert_eq!(names(directory.look(&own()).await), ["db", "shop"]);
    assert!(matches!(directory.look(&own()).await, Look::Same));
    write(&files, "db.yaml", &SHOP.replace("shop", "cache").replace("http", "tcp"));
    assert_eq!(names(directory.look(&own()).await), ["cache", "shop"]);
}

#[tokio::test]
async fn one_flaw_refuses_the_whole_directory_with_its_place() {
    let files = tempfile::tempdir().unwrap();
    write(&files, "a.yaml", SHOP);
    let mut directory = directory(files.path());
    directory.look(&own()).await;

    for (text, flaw) in [
        (SHOP.replace("http", "spdy"), "b.yaml:3"),
        (SHOP.to_owned(), "shop"),
        ("services: [".to_owned(), "b.yaml"),
        (SHOP.replace("ports: [80]", "ports: [0]"), "b.yaml:3"),
    ] {
        write(&files, "b.yaml", &text);
        let reason = refusal(directory.look(&own()).await);
        assert!(reason.contains(flaw), "{reason}");
    }
}

#[tokio::test]
async fn a_directory_that_empties_or_goes_away_takes_nothing_away() {
    let files = tempfile::tempdir().unwrap();
    let mut directory = directory(files.path());
    assert_eq!(names(directory.look(&own()).await), Vec::<String>::new());
    write(&files, "a.yaml", SHOP);
    assert_eq!(names(directory.look(&own()).await), ["shop"]);

    std::fs::remove_file(files.path().join("a.yaml")).unwrap();
    assert!(refusal(directory.look(&own()).await).contains("no file"));
    files.close().unwrap();

    assert!(refusal(directory.look(&own()).await).contains("cannot read"));
}

#[tokio::test]
async fn what_other_workloads_may_see_is_left_out() {
    let files = tempfile::tempdir().unwrap();
    let hidden = SHOP.replace("shop", "vault").replace("}\n", ", visible_to: [spiffe://prod.test/bank]}\n");
    write(&files, "a.yaml", SHOP);
    write(&files, "b.yaml", &hidden);

    assert_eq!(names(directory(files.path()).look(&own()).await), ["shop"]);
}
