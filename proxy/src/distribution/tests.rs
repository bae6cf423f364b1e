use identity::{TrustDomain, manifest::Seen};
use proto::vouchsafe::v1::{DeliveredWorkload, DeliveryBegin, PolicyFile, SignedManifest};

use super::{
    assembly::{Assembly, DeliveryFlaw, Held},
    seen::{FILE, Kept, KeptError},
};

fn begin(files: &[&str]) -> DeliveryBegin {
    DeliveryBegin {
        manifest: Some(SignedManifest::default()),
        files: files.iter().map(|&name| name.to_owned()).collect(),
        workloads: Vec::new(),
    }
}

fn file(name: &str, bytes: usize) -> PolicyFile {
    PolicyFile { name: name.to_owned(), content: vec![b'#'; bytes] }
}

#[test]
fn a_delivery_takes_each_announced_file_once_and_no_other() {
    let mut assembly = Assembly::begin(begin(&["a.yaml"])).unwrap();

    assert!(matches!(assembly.add(file("b.yaml", 1)), Err(DeliveryFlaw::Unexpected { .. })));
    assembly.add(file("a.yaml", 1)).unwrap();
    assert!(matches!(assembly.add(file("a.yaml", 1)), Err(DeliveryFlaw::Unexpected { .. })));
}

#[test]
fn a_delivery_is_bounded_before_anything_is_believed() {
    let names: Vec<String> = (0..20).map(|number| format!("{number}.yaml")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut assembly = Assembly::begin(begin(&names)).unwrap();
    let most = 4 * 1024 * 1024;
    assert_eq!(assembly.add(file("0.yaml", most + 1)), Err(DeliveryFlaw::TooMuch));

    let mut assembly2 = Assembly::begin(begin(&names)).unwrap();
    let flaw = names.iter().find_map(|name| assembly2.add(file(name, most)).err());

    assert_eq!(flaw, Some(DeliveryFlaw::TooMuch));
    let many: Vec<String> = (0..=20_000).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(Assembly::begin(begin(&many)), Err(DeliveryFlaw::TooMuch)));
    let long = SignedManifest { manifest: vec![0; 8 * 1024 * 1024 + 1], ..SignedManifest::default() };
    let long = DeliveryBegin { manifest: Some(long), ..begin(&[]) };
    assert!(matches!(Assembly::begin(long), Err(DeliveryFlaw::Manifest)));
    let workloads = vec![DeliveredWorkload::default(); 257];
    assert!(matches!(
        Assembly::begin(DeliveryBegin { workloads, ..begin(&[]) }),
        Err(DeliveryFlaw::Workloads)
    ));
}

#[test]
fn a_delivery_without_a_manifest_or_with_a_workload_of_no_identity_is_none() {
    let bare = DeliveryBegin { manifest: None, ..begin(&[]) };
    assert!(matches!(Assembly::begin(bare), Err(DeliveryFlaw::NoManifest)));

    let workload = DeliveredWorkload { spiffe_id: "web".to_owned(), ..DeliveredWorkload::default() };

    let begin = DeliveryBegin { workloads: vec![workload], ..begin(&[]) };
    assert!(matches!(Assembly::begin(begin), Err(DeliveryFlaw::Id)));
}

#[test]
fn a_manifest_that_cannot_be_read_still_ends_and_is_left_to_verification() {
    let mut held = Held::default();

    let assembled = Assembly::begin(begin(&[])).unwrap().end(3, &mut held).unwrap();

    assert_eq!(assembled.number, 3);
    assert!(held.hashes().is_empty());
}

fn own() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

fn seen(number: u64) -> Seen {
    Seen { number, generation: "ab".repeat(32) }
}

#[tokio::test]
async fn the_highest_number_is_found_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("new");
    let mut kept = Kept::new(Some(&state));
    kept.load(&own()).await.unwrap();

    kept.keep(&own(), seen(7)).await.unwrap();
    let mut again = Kept::new(Some(&state));
    again.load(&own()).await.unwrap();

    assert_eq!(again.seen(), Some(&seen(7)));
    let mut elsewhere = Kept::new(Some(&state));
    elsewhere.load(&TrustDomain::parse("other.test").unwrap()).await.unwrap();
    assert_eq!(elsewhere.seen(), None);
}

#[tokio::test]
async fn a_file_that_is_broken_is_no_reason_to_forget() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "{\"vouchsafe\":\"policy-seen/v1\"").unwrap();
    let mut kept = Kept::new(Some(directory.path()));

    assert!(matches!(kept.load(&own()).await, Err(KeptError::Content { .. })));
    assert!(kept.load(&own()).await.is_err(), "a second look finds the same");
}

#[tokio::test]
async fn without_a_directory_the_number_is_kept_in_memory() {
    let mut kept = Kept::new(None);
    kept.load(&own()).await.unwrap();

    kept.keep(&own(), seen(2)).await.unwrap();

    assert_eq!(kept.seen(), Some(&seen(2)));
}

#[test]
fn the_contents_of_what_is_no_manifest_are_not_kept() {
    let mut held = Held::default();
    let mut assembly = Assembly::begin(begin(&["a.yaml"])).unwrap();
    assembly.add(file("a.yaml", 100)).unwrap();

    let assembled = assembly.end(1, &mut held);

    assert!(assembled.is_ok());
    assert!(held.hashes().is_empty());
}
