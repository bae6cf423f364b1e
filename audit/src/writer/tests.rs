//! The file is a chain without a gap, through rotation, restarts, torn lines, kill -9 and a full disk.

use std::{
    env,
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use super::*;
use crate::{
    Kind, Lifecycle, MAX_LINE, MIN_ROTATE_BYTES, QUEUE_CAPACITY, Reason, Stage, files,
    fixtures::{assert_one_chain, config, connection, denied, full, records, sums, totals},
    read,
};

fn log_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("audit.jsonl")
}

fn run(config: Config, events: usize) -> Log {
    let (log, writer) = start(config).unwrap();
    for _ in 0..events {
        log.open(denied(Reason::NoPolicy));
    }
    writer.close().unwrap();
    log
}

fn changes(path: &Path) -> Vec<Change> {
    records(path).into_iter().filter_map(|record| record.unmapped.vouchsafe.change).collect()
}

fn append(path: &Path, bytes: &[u8]) {
    use io::Write;
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn closing_writes_everything() {
    let dir = tempfile::tempdir().unwrap();

    let log = run(config(&log_in(&dir)), 1_000);

    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
    assert_eq!(changes(&log_in(&dir)).last().unwrap().what, "log_closed");
    assert!(log.healthy());
}

#[test]
fn dropping_the_writer_writes_everything_too() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = start(config(&log_in(&dir))).unwrap();
    log.open(denied(Reason::NoPolicy));

    drop(writer);

    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
}

#[test]
fn the_chain_goes_on_over_restarts() {
    let dir = tempfile::tempdir().unwrap();

    for _ in 0..3 {
        run(config(&log_in(&dir)), 10);
    }

    assert_one_chain(&log_in(&dir));
    assert_eq!(records(&log_in(&dir)).len(), 3 * 12);
    assert!(changes(&log_in(&dir)).iter().all(|change| change.unclean_shutdown.is_none()));
}

#[test]
fn the_chain_goes_on_over_full_files_and_none_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(&log_in(&dir));
    (small.rotate_bytes, small.keep_files) = (MIN_ROTATE_BYTES, 1_000);

    let log = run(small, 5_000);

    let files = read::find(&log_in(&dir)).unwrap();
    assert!(files.len() > 5, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= MIN_ROTATE_BYTES));
    assert_one_chain(&log_in(&dir));
    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
}

#[test]
fn the_chain_goes_on_from_a_file_put_aside_when_the_live_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    run(config(&log_in(&dir)), 10);
    fs::rename(log_in(&dir), files::aside_name(&log_in(&dir), 1)).unwrap();

    run(config(&log_in(&dir)), 10);

    assert_one_chain(&log_in(&dir));
    assert_eq!(records(&log_in(&dir)).len(), 24);
}

#[test]
fn only_so_many_full_files_are_kept_and_each_removal_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(&log_in(&dir));
    (small.rotate_bytes, small.keep_files) = (MIN_ROTATE_BYTES, 2);

    run(small, 5_000);

    assert_eq!(files::aside(&log_in(&dir)).unwrap().len(), 2);
    let last_two: Vec<_> =
        changes(&log_in(&dir)).into_iter().filter(|change| change.what == "log_file_removed").collect();
    assert!(!last_two.is_empty());
    assert!(last_two.iter().all(|change| !dir.path().join(change.file.as_ref().unwrap()).exists()));
}

#[test]
fn a_file_with_events_is_changed_when_it_is_old_and_one_without_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut young = config(&log_in(&dir));
    young.rotate_age = Duration::from_millis(50);
    let (log, writer) = start(young).unwrap();
    thread::sleep(Duration::from_millis(150));
    assert_eq!(read::find(&log_in(&dir)).unwrap().len(), 1);

    log.open(denied(Reason::NoPolicy));

    wait_until(|| read::find(&log_in(&dir)).unwrap().len() == 2);
    thread::sleep(Duration::from_millis(150));
    assert_eq!(read::find(&log_in(&dir)).unwrap().len(), 2);
    writer.close().unwrap();
    assert_one_chain(&log_in(&dir));
}

#[test]
fn a_torn_last_line_is_cut_off_and_the_next_record_says_so() {
    let dir = tempfile::tempdir().unwrap();
    run(config(&log_in(&dir)), 3);
    let whole = fs::read(log_in(&dir)).unwrap();
    fs::write(log_in(&dir), &whole[..whole.len() - 10]).unwrap();

    run(config(&log_in(&dir)), 3);

    assert_one_chain(&log_in(&dir));
    let opened =
        changes(&log_in(&dir)).into_iter().filter(|change| change.what == "log_opened").nth(1).unwrap();
    assert!(opened.torn_bytes.unwrap() > 100);
    assert_eq!(opened.unclean_shutdown, Some(true));
}

#[test]
fn a_last_line_that_lacks_only_its_line_feed_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    run(config(&log_in(&dir)), 3);
    let whole = fs::read(log_in(&dir)).unwrap();
    fs::write(log_in(&dir), &whole[..whole.len() - 1]).unwrap();

    run(config(&log_in(&dir)), 3);

    assert_one_chain(&log_in(&dir));
    assert_eq!(records(&log_in(&dir)).len(), 2 * 5);
}

#[test]
fn any_torn_length_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    run(config(&log_in(&dir)), 1);
    let whole = fs::read(log_in(&dir)).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;

    for torn in (0..second + 300).step_by(37) {
        fs::write(log_in(&dir), &whole[..torn]).unwrap();

        run(config(&log_in(&dir)), 1);

        assert_one_chain(&log_in(&dir));
    }
}

#[test]
fn foreign_bytes_at_the_end_are_left_alone_and_the_chain_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    for foreign in [&b"somebody was here\n"[..], &vec![b'x'; MAX_LINE + 1], b"\0\0\0\n\n{}\n"] {
        let _ = fs::remove_file(log_in(&dir));
        run(config(&log_in(&dir)), 1);
        append(&log_in(&dir), foreign);

        run(config(&log_in(&dir)), 1);

        let read: Vec<_> = read::files(vec![log_in(&dir)]).collect();
        let sequences: Vec<_> = read.iter().flatten().map(|entry| entry.record.metadata.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
        assert!(read.iter().any(Result::is_err));
    }
}

#[test]
fn a_log_in_use_by_another_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _writer) = start(config(&log_in(&dir))).unwrap();

    assert!(matches!(start(config(&log_in(&dir))), Err(StartError::InUse { .. })));
}

#[test]
fn a_log_that_anybody_could_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    fs::write(log_in(&dir), "").unwrap();
    fs::set_permissions(log_in(&dir), Permissions::from_mode(0o666)).unwrap();

    for path in [open.join("audit.jsonl"), log_in(&dir)] {
        assert!(matches!(start(config(&path)), Err(StartError::WorldWritable { .. })), "{path:?}");
    }
}

#[test]
fn what_is_not_a_plain_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();

    for path in [dir.path(), Path::new("/dev/null")] {
        let refused = start(config(path)).unwrap_err();

        assert!(matches!(refused, StartError::NotAFile { .. }), "{refused}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();

    let refused = start(config(&dir.path().join("file/audit.jsonl"))).unwrap_err();

    assert!(matches!(refused, StartError::Open { .. }));
    assert!(std::error::Error::source(&refused).is_some());
}

#[test]
fn only_the_owner_reads_and_writes_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/audit.jsonl");

    run(config(&path), 1);

    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o027, 0);
}

#[test]
fn a_file_put_aside_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let aside = files::aside_name(&log_in(&dir), 1);
    let mut small = config(&log_in(&dir));
    small.rotate_bytes = MIN_ROTATE_BYTES;
    let (log, writer) = start(small).unwrap();
    fs::write(&aside, "evidence").unwrap();

    (0..1_000).for_each(|_| log.open(denied(Reason::NoPolicy)));
    writer.close().unwrap();

    assert_eq!(fs::read_to_string(&aside).unwrap(), "evidence");
    fs::remove_file(&aside).unwrap();
    assert_one_chain(&log_in(&dir));
    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
}

#[test]
fn a_file_taken_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = start(config(&log_in(&dir))).unwrap();
    log.open(denied(Reason::NoPolicy));
    wait_until(|| records(&log_in(&dir)).len() == 2);

    fs::rename(log_in(&dir), files::aside_name(&log_in(&dir), 1)).unwrap();

    wait_until(|| {
        log.open(denied(Reason::NoPolicy));
        log_in(&dir).exists()
    });
    writer.close().unwrap();
    assert_one_chain(&log_in(&dir));
    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
}

#[test]
fn the_largest_events_fit_the_smallest_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(&log_in(&dir));
    (small.rotate_bytes, small.keep_files) = (1, 1_000);
    let (log, writer) = start(small).unwrap();

    (0..50).for_each(|_| log.open(full("\u{1}")));
    writer.close().unwrap();

    assert_one_chain(&log_in(&dir));
    assert_eq!(sums(&records(&log_in(&dir))), totals(&log.counts()));
}

#[test]
fn a_daemons_own_changes_are_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = start(config(&log_in(&dir))).unwrap();

    log.open(Event::lifecycle(SystemTime::now(), Lifecycle::Started, "g1".into()));
    writer.close().unwrap();

    let whats: Vec<_> = changes(&log_in(&dir)).into_iter().map(|change| change.what).collect();
    assert_eq!(whats, ["log_opened", "started", "log_closed"]);
}

#[test]
fn an_identity_learnt_late_is_in_every_record_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut nameless = config(&log_in(&dir));
    nameless.product.id = None;
    let (log, writer) = start(nameless).unwrap();
    wait_until(|| read::find(&log_in(&dir)).is_ok_and(|files| read::files(files).count() == 1));

    log.identify("spiffe://prod.test/db");
    log.open(denied(Reason::NoPolicy));
    writer.close().unwrap();

    let ids: Vec<_> = records(&log_in(&dir)).into_iter().map(|record| record.metadata.product.uid).collect();
    let known = || Some("spiffe://prod.test/db".to_owned());
    assert_eq!(ids, [None, known(), known()]);
}

#[test]
fn a_target_that_fails_is_tried_at_a_slow_pace() {
    let (reader, pipe) = io::pipe().unwrap();
    let (log, writer) = start_on(Config::stdout(crate::fixtures::product()), Box::new(pipe)).unwrap();
    let task = writer.task().unwrap();
    drop(reader);
    log.open(denied(Reason::NoPolicy));
    wait_until(|| !log.healthy());

    let before = crate::fixtures::switches(task);
    thread::sleep(Duration::from_secs(2));

    assert!(crate::fixtures::switches(task) - before < 20);
}

#[test]
fn an_event_after_the_end_is_counted_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = run(config(&log_in(&dir)), 1);
    let len = fs::metadata(log_in(&dir)).unwrap().len();

    (0..2 * QUEUE_CAPACITY).for_each(|_| log.open(denied(Reason::NoPolicy)));

    assert_eq!(totals(&log.counts()).values().sum::<u64>(), 2 * QUEUE_CAPACITY as u64 + 1);
    assert_eq!(fs::metadata(log_in(&dir)).unwrap().len(), len);
}

#[test]
fn a_target_that_is_gone_is_reported_when_closing() {
    let (reader, pipe) = io::pipe().unwrap();
    let (log, writer) = start_on(Config::stdout(crate::fixtures::product()), Box::new(pipe)).unwrap();
    drop(reader);
    log.open(denied(Reason::NoPolicy));
    log.open(connection(Kind::Opened, Stage::Connect));

    let failed = writer.close().unwrap_err();

    assert!(matches!(failed, CloseError::Unwritten { events: 2, .. }), "{failed}");
    assert!(!log.healthy());
}

#[test]
fn a_target_that_takes_nothing_does_not_hold_up_the_end_for_ever() {
    let (_reader, pipe) = io::pipe().unwrap();
    let (log, mut writer) = start_on(Config::stdout(crate::fixtures::product()), Box::new(pipe)).unwrap();
    (0..QUEUE_CAPACITY).for_each(|_| log.open(denied(Reason::NoPolicy)));

    let failed = writer.finish_within(Duration::from_millis(100)).unwrap_err();

    assert!(matches!(failed, CloseError::Stuck { .. }));
}

/// A small file system of its own, gone with the value.
struct SmallDisk {
    at: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let at = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "vouchsafe-test"])
            .arg(at.path())
            .output();
        let output = mounted.expect("mount can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "cannot mount a small file system, which this test needs root for (VOUCHSAFE_QUICK=1 leaves it out): {said}"
        );
        Self { at }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.at.path()).status();
    }
}

#[test]
fn a_full_disk_loses_no_count_and_leaves_a_gap_record() {
    if env::var_os("VOUCHSAFE_QUICK").is_some_and(|quick| quick == "1") {
        eprintln!("left out: VOUCHSAFE_QUICK=1");
        return;
    }
    let disk = SmallDisk::mount();
    let path = disk.at.path().join("audit.jsonl");
    let ballast = disk.at.path().join("ballast");
    fs::write(&ballast, vec![0; 700 * 1024]).unwrap();
    let (log, writer) = start(config(&path)).unwrap();

    // Fill the disk, and go on while it is full.
    wait_until(|| {
        (0..200).for_each(|_| log.open(denied(Reason::NoPolicy)));
        !log.healthy()
    });
    for _ in 0..500 {
        log.open(denied(Reason::ExplicitDeny));
        log.open(connection(Kind::Opened, Stage::Connect));
    }
    fs::remove_file(&ballast).unwrap();
    wait_until(|| log.healthy());
    log.open(denied(Reason::NoAllowMatched));
    writer.close().unwrap();

    assert_one_chain(&path);
    assert_eq!(sums(&records(&path)), totals(&log.counts()));
    let gap = changes(&path).into_iter().find(|change| change.what == "audit_gap").expect("a gap record");
    assert!(gap.aggregated.unwrap() > 0 && gap.since.is_some());
    assert!(gap.error.unwrap().contains("No space left"));
}

#[test]
fn kill_9_leaves_a_chain_that_the_next_start_continues() {
    let dir = tempfile::tempdir().unwrap();

    for _ in 0..3 {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--ignored", "writer::tests::writes_until_it_is_killed"])
            .env(VICTIM_LOG, log_in(&dir))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let before = fs::metadata(log_in(&dir)).map_or(0, |log| log.len());
        wait_until(|| fs::metadata(log_in(&dir)).is_ok_and(|log| log.len() > before + 500_000));
        victim.kill().unwrap();
        victim.wait().unwrap();

        run(config(&log_in(&dir)), 1);

        assert_one_chain(&log_in(&dir));
        let mut opened = changes(&log_in(&dir)).into_iter().filter(|change| change.what == "log_opened");
        assert_eq!(opened.next_back().unwrap().unclean_shutdown, Some(true));
    }
}

#[test]
#[ignore = "the process that the test above kills"]
fn writes_until_it_is_killed() {
    let Some(path) = env::var_os(VICTIM_LOG) else { return };
    let (log, _writer) = start(config(Path::new(&path))).unwrap();
    loop {
        (0..100).for_each(|_| log.open(denied(Reason::NoPolicy)));
        thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long");
        thread::sleep(Duration::from_millis(10));
    }
}

const VICTIM_LOG: &str = "VOUCHSAFE_TEST_VICTIM_LOG";
