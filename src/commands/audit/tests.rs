//! The commands on a log that the real writer wrote.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use audit::{
    Config, ConnectionId, Denial, DenialId, Effect, Endpoint, Event, Http, Kind, NearMiss, PolicyRef,
    Product, Reason, Stage,
};

use super::*;

#[test]
fn a_denial_is_found_by_the_id_its_caller_was_given() {
    let log = Written::new(&["/reports/q3", "/admin"]);

    let found: Vec<Entry> = log.matching(Filter { denial: Some(log.denials[1]), ..Filter::default() });

    assert_eq!(found.len(), 1);
    let text = printed(|to| detail(to, &found[0]).unwrap());
    for wanted in [
        "no_allow_matched",
        "spiffe://prod.test/web at 10.0.0.1",
        "GET /admin",
        "api.yaml#web-reads (line 7): path is",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

#[test]
fn a_record_that_is_not_there_yet_is_waited_for_and_no_longer_than_said() {
    let dir = tempfile::tempdir().unwrap();
    let late = dir.path().join("audit.jsonl");
    let log = Written::new(&["/a"]);
    let filter = Filter { denial: Some(log.denials[0]), ..Filter::default() };
    let (text, path) = (std::fs::read(&log.path).unwrap(), late.clone());
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        std::fs::write(path, text).unwrap();
    });

    await_record(std::slice::from_ref(&late), &filter, Duration::from_secs(30));
    let found = matching(&[late], filter).unwrap().count();
    writer.join().unwrap();
    await_record(&[dir.path().join("none")], &Filter::default(), Duration::ZERO);

    assert_eq!(found, 1);
}

#[test]
fn lines_are_printed_as_they_were_written() {
    let log = Written::new(&["/a"]);
    let found = log.matching(Filter { denial: Some(log.denials[0]), ..Filter::default() });

    let text = printed(|to| print(to, Format::Jsonl, &found).unwrap());

    assert!(std::fs::read_to_string(&log.path).unwrap().contains(&text));
}

#[test]
fn equal_denials_are_counted_together() {
    let log = Written::new(&["/a", "/a", "/b"]);
    let found = || log.matching(Filter { port: Some(8443), ..Filter::default() }).into_iter();

    let text = printed(|to| {
        count(to, Format::Table, vec![Field::Path], found(), None).unwrap();
    });
    let first = printed(|to| {
        count(to, Format::Jsonl, vec![Field::Path], found(), Some(1)).unwrap();
    });

    assert_eq!(text, "COUNT  PATH\n2      /a\n1      /b\n");
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((first["path"].as_str(), first["count"].as_u64()), (Some("/a"), Some(2)));
}

#[test]
fn only_the_newest_are_kept() {
    let log = Written::new(&["/a", "/b", "/c"]);
    let found = log.matching(Filter { port: Some(8443), ..Filter::default() });

    let kept = newest(found.into_iter(), 2);

    let paths: Vec<_> = kept.iter().map(|entry| Field::Path.of(&entry.record)).collect();
    assert_eq!(paths, ["/b", "/c"]);
    assert!(newest(kept.into_iter(), 0).is_empty());
}

#[test]
fn a_log_that_is_not_there_exits_2() {
    let failure = find(&["/no/such/audit.jsonl".into()]).unwrap_err();

    assert_eq!(failure.exit(), Exit::Unacceptable);
}

#[test]
fn a_log_that_is_to_come_can_be_followed_and_a_directory_cannot() {
    let dir = tempfile::tempdir().unwrap();

    assert!(follower(&dir.path().join("audit.jsonl")).is_ok());
    assert_eq!(follower(dir.path()).unwrap_err().exit(), Exit::Unacceptable);
}

/// A log with one denial for each path.
struct Written {
    path: PathBuf,
    denials: Vec<DenialId>,
    _dir: tempfile::TempDir,
}

impl Written {
    fn new(paths: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let product = Product { daemon: "proxy".to_owned(), id: None, version: "0".to_owned() };
        let (log, writer) = audit::start(Config::file(&path, product)).unwrap();
        let denials = paths.iter().map(|path| deny(&log, path)).collect();
        writer.close().unwrap();
        Self { path, denials, _dir: dir }
    }

    fn matching(&self, filter: Filter) -> Vec<Entry> {
        matching(std::slice::from_ref(&self.path), filter).unwrap().collect()
    }
}

fn deny(log: &audit::Log, path: &str) -> DenialId {
    let now = SystemTime::now();
    let id = DenialId::new(now);
    let denial = Denial { id, reason: Reason::NoAllowMatched, effect: Effect::Enforced };
    let mut event = Event::new(now, Kind::Denied(denial), Stage::Request, ConnectionId::new(now));
    event.source = Endpoint {
        ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
        id: Some("spiffe://prod.test/web".into()),
        ..Endpoint::default()
    };
    event.destination =
        Endpoint { port: Some(8443), id: Some("spiffe://prod.test/api".into()), ..Endpoint::default() };
    event.http = Some(Http { method: "GET".to_owned(), path: path.to_owned(), ..Http::default() });
    let rule = PolicyRef { policy: "api".into(), rule: "web-reads".into(), file: "api.yaml".into(), line: 7 };
    let (failed, wanted, found) = ("path".to_owned(), "/accounts/**".to_owned(), path.to_owned());
    event.near_misses = vec![NearMiss { rule, failed, wanted, found }];
    log.open(event);
    id
}

fn printed(print: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = Vec::new();
    print(&mut bytes);
    String::from_utf8(bytes).unwrap()
}
