//! The data path never waits, and nothing it hands over is lost from the count.

use std::{
    io::{self, PipeReader, Read},
    thread,
};

use proptest::prelude::*;

use super::*;
use crate::{
    Effect, Http, Kind, NearMiss, Reason, Record, Stage, Writer,
    event::LONGEST_TEXT,
    fixtures::{
        assert_one_chain, closed, config, connection, denied, http, product, records, rule, sums, switches,
        totals,
    },
    read, start,
    strangers::OF_ONE_NETWORK,
    writer::start_on,
};

/// A log into a pipe that nobody reads until asked to.
fn into_pipe() -> (Log, Writer, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let (log, pen) = start_on(crate::Config::stdout(product()), Box::new(writer)).unwrap();
    (log, pen, reader)
}

fn read_all(mut from: PipeReader, pace: Duration) -> thread::JoinHandle<Vec<Record>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer).unwrap() {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
            thread::sleep(pace);
        }
        read::stream("pipe", &bytes[..]).map(|entry| entry.unwrap().record).collect()
    })
}

#[test]
fn the_caller_never_waits_for_a_target_that_takes_nothing() {
    let (log, writer, reader) = into_pipe();

    for _ in 0..3 * QUEUE_CAPACITY {
        log.open(denied(Reason::NoPolicy));
    }

    assert!(log.queued() <= QUEUE_CAPACITY);
    assert!(log.aggregated() > 0);
    let reading = read_all(reader, Duration::ZERO);
    writer.close().unwrap();
    assert_eq!(sums(&reading.join().unwrap()), totals(&log.counts()));
}

#[test]
fn many_threads_and_a_slow_reader_lose_no_count() {
    let (log, writer, reader) = into_pipe();
    let reasons = [Reason::NoPolicy, Reason::ExplicitDeny, Reason::HandshakeFailed("expired")];

    let reading = thread::scope(|scope| {
        for (thread, reason) in (0..6_u32).zip(reasons.into_iter().cycle()) {
            let log = log.clone();
            scope.spawn(move || flood(&log, reason, thread));
        }
        // The pipe is read once the queue has been full, while the flood goes on.
        while log.aggregated() == 0 {
            thread::yield_now();
        }
        read_all(reader, Duration::from_millis(1))
    });
    writer.close().unwrap();

    let records = reading.join().unwrap();
    assert_eq!(totals(&log.counts()).values().sum::<u64>(), 6 * 22_000);
    assert_eq!(sums(&records), totals(&log.counts()));
    let sequences: Vec<_> = records.iter().map(|record| record.metadata.sequence).collect();
    assert_eq!(sequences, (1..=records.len() as u64).collect::<Vec<_>>());
}

fn flood(log: &Log, reason: Reason, thread: u32) {
    for n in 0..10_000 {
        let mut event = denied(reason);
        event.source.id = Some(format!("spiffe://prod.test/{}", (n + thread) % 5_000).into());
        log.open(event);
        log.open(connection(Kind::Allowed, Stage::Request));
        if n % 5 == 0 {
            log.open(closed(1, 1));
        }
    }
}

#[test]
fn with_room_on_the_queue_every_denial_has_a_record_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, writer) = start(config(&path)).unwrap();

    for _ in 0..100 {
        log.open(denied(Reason::NoPolicy));
    }
    writer.close().unwrap();

    assert_eq!(log.aggregated(), 0);
    let denials = records(&path).into_iter().filter(|record| record.status_detail.is_some());
    assert!(denials.map(|record| record.count).eq([None; 100]));
    assert_one_chain(&path);
}

#[test]
fn a_flood_of_strangers_leaves_few_records_and_the_exact_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, writer) = start(config(&path)).unwrap();

    for n in 0..5_000_u32 {
        let mut event = denied(Reason::HandshakeFailed("not_tls"));
        (event.source.id, event.source.port) = (None, u16::try_from(n).ok());
        log.open(event);
    }
    log.open(denied(Reason::NoAllowMatched));
    writer.close().unwrap();

    let found = records(&path);
    let denials = found.iter().filter(|record| record.status_detail.is_some()).count();
    assert_eq!(
        denials,
        OF_ONE_NETWORK as usize + 2,
        "each of the allowance, the sum of the others, and ours"
    );
    assert_eq!(sums(&found), totals(&log.counts()));
}

#[test]
fn allowed_requests_are_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, writer) = start(config(&path)).unwrap();

    for _ in 0..1_000 {
        log.open(connection(Kind::Allowed, Stage::Request));
    }
    writer.close().unwrap();

    let found = records(&path);
    let allowed: Vec<_> =
        found.iter().filter(|record| record.unmapped.vouchsafe.decision == "allowed").collect();
    assert_eq!(allowed.len(), 1);
    assert_eq!(allowed[0].count, Some(1_000));
}

#[test]
fn shadow_and_enforced_denials_are_counted_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = start(config(&dir.path().join("audit.jsonl"))).unwrap();
    let mut shadow = denied(Reason::ExplicitDeny);
    if let Kind::Denied(denial) = &mut shadow.kind {
        denial.effect = Effect::Shadow;
    }

    log.open(shadow);
    log.open(denied(Reason::ExplicitDeny));
    log.open(denied(Reason::ExplicitDeny));

    let reason = Some("explicit_deny");
    assert_eq!(
        log.counts(),
        [
            Count { decision: Decision::Denied, reason, total: 2 },
            Count { decision: Decision::WouldDeny, reason, total: 1 },
        ]
    );
}

#[test]
fn a_record_is_in_the_file_soon_without_closing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, _writer) = start(config(&path)).unwrap();
    thread::sleep(Duration::from_millis(1_500)); // the writer sleeps without a timer

    log.open(denied(Reason::NoPolicy));

    let deadline = Instant::now() + Duration::from_secs(10);
    while records(&path).iter().all(|record| record.status_detail.is_none()) {
        assert!(Instant::now() < deadline, "no record in the file");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_queue_is_a_few_mebibytes() {
    assert!(size_of::<Event>() * QUEUE_CAPACITY <= 8 << 20, "{} bytes an event", size_of::<Event>());
}

#[test]
fn an_idle_writer_does_not_wake_up() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = start(config(&dir.path().join("audit.jsonl"))).unwrap();
    let task = writer.task().expect("the thread has told its number");
    log.open(denied(Reason::NoPolicy));
    thread::sleep(Duration::from_millis(2_500)); // longer than the batch and the sync take

    let before = switches(task);
    thread::sleep(Duration::from_secs(2));

    assert_eq!(switches(task), before);
}

#[test]
fn what_waits_for_the_writer_is_as_long_as_a_record_and_the_record_says_that_it_was_cut() {
    let (log, writer, reader) = into_pipe();
    let long = "/\u{e9}".repeat(100_000);
    let mut event = denied(Reason::NoAllowMatched);
    let raw = Some(long.clone().into_bytes());
    event.http = Some(Http { path_raw: raw, user_agent: Some(long.clone()), ..http("GET", &long) });
    let miss = NearMiss { rule: rule("r"), failed: "path".into(), wanted: long.clone(), found: long.clone() };
    event.near_misses = vec![miss; 3];

    let mut slim = event.clone();
    slim.slim();
    log.open(event);
    let reading = read_all(reader, Duration::ZERO);
    writer.close().unwrap();

    let request = slim.http.unwrap();
    let kept = [request.path.capacity(), request.user_agent.unwrap().capacity()];
    let kept = kept.into_iter().chain([request.path_raw.unwrap().capacity()]);
    let near = slim.near_misses.iter().flat_map(|miss| [miss.wanted.capacity(), miss.found.capacity()]);
    assert!(kept.chain(near).all(|bytes| bytes <= LONGEST_TEXT));
    let records = reading.join().unwrap();
    let cut: Vec<_> = records.iter().filter(|record| record.metadata.is_truncated == Some(true)).collect();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].http_request.as_ref().unwrap().url.path, long[..1_024]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_sum_over_the_records_is_the_counter(kinds in prop::collection::vec(0_u8..6, 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let (log, writer) = start(config(&path)).unwrap();

        for kind in kinds {
            log.open(match kind {
                0 => connection(Kind::Opened, Stage::Connect),
                1 => connection(Kind::Allowed, Stage::Request),
                2 => closed(1, 2),
                3 => denied(Reason::MalformedRequest("bare_cr")),
                4 => denied(Reason::MalformedRequest("bare_lf")),
                _ => denied(Reason::NoAllowMatched),
            });
        }
        writer.close().unwrap();

        prop_assert_eq!(sums(&records(&path)), totals(&log.counts()));
    }
}
