//! A reader takes any bytes and goes on.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{
    Config, MIN_ROTATE_BYTES, Reason,
    fixtures::{config, denied},
    start,
};

fn write(config: Config, events: usize) {
    let (log, writer) = start(config).unwrap();
    (0..events).for_each(|_| log.open(denied(Reason::NoPolicy)));
    writer.close().unwrap();
}

fn sequences(paths: Vec<PathBuf>) -> Vec<u64> {
    files(paths).flatten().map(|entry| entry.record.metadata.sequence).collect()
}

fn small(path: &Path) -> Config {
    let mut small = config(path);
    (small.rotate_bytes, small.keep_files) = (MIN_ROTATE_BYTES, 100);
    small
}

#[test]
fn a_log_is_read_oldest_first_with_the_files_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(small(&path), 2_000);

    let found = find(&path).unwrap();

    assert!(found.len() > 2);
    let read = sequences(found);
    assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_directory_and_a_pattern_name_the_same_files_as_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(small(&path), 2_000);
    fs::write(dir.path().join("notes.txt"), "nothing\n").unwrap();

    let expected = find(&path).unwrap();

    assert_eq!(find(dir.path()).unwrap(), expected);
    assert_eq!(find(&dir.path().join("audit*")).unwrap(), expected);
    assert_eq!(find(&expected[0]).unwrap(), expected[..1]);
}

#[test]
fn a_log_whose_live_file_is_gone_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(small(&path), 2_000);
    let all = find(&path).unwrap();
    fs::remove_file(&path).unwrap();

    assert_eq!(find(&path).unwrap(), all[..all.len() - 1]);
}

#[test]
fn foreign_torn_and_gigantic_lines_are_named_by_place_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(config(&path), 1);
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes.extend_from_slice(b"Nov 23 kernel: hello\n\n{\"time\":1}\n\xff\xfe\n");
    bytes.extend(vec![b'['; 10 * crate::MAX_LINE]);
    bytes.push(b'\n');
    bytes.extend(vec![b'['; 1_000]);
    bytes.push(b'\n');
    bytes.extend_from_slice(&good);
    bytes.extend_from_slice(&good[..100]);
    fs::write(&path, &bytes).unwrap();

    let read: Vec<_> = files(vec![path.clone()]).collect();

    let problems: Vec<_> = read.iter().filter_map(|item| item.as_ref().err()).collect();
    assert_eq!(read.iter().filter(|item| item.is_ok()).count(), 6);
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [4, 6, 7, 8, 9, 13]);
    assert!(matches!(problems[3].cause, ProblemCause::Line(ParseError::TooLong)));
    assert!(problems[0].to_string().starts_with(&format!("{}:4: not an audit record", path.display())));
}

#[test]
fn a_file_that_cannot_be_read_does_not_keep_the_next_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(config(&path), 1);

    let read: Vec<_> = files(vec![dir.path().join("gone"), dir.path().to_owned(), path]).collect();

    assert!(matches!(&read[0], Err(Problem { cause: ProblemCause::Unreadable(_), .. })));
    assert!(matches!(&read[1], Err(Problem { cause: ProblemCause::Unreadable(_), .. })));
    assert_eq!(read.len(), 2 + 3);
}

#[test]
fn a_record_of_another_make_is_no_record_of_ours() {
    for line in [
        &b""[..],
        b"null",
        b"{}",
        b"[]",
        br#"{"class_uid":4001,"time":1}"#,
        br#"{"time":"now","unmapped":{"vouchsafe":{}}}"#,
    ] {
        assert!(matches!(parse(line), Err(ParseError::NotARecord(_))), "{}", line.escape_ascii());
    }
    assert!(matches!(parse(&vec![b' '; crate::MAX_LINE + 1]), Err(ParseError::TooLong)));
}

#[test]
fn the_raw_line_is_the_one_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(config(&path), 2);

    let raw: String = files(vec![path.clone()]).flatten().map(|entry| entry.raw + "\n").collect();

    assert_eq!(raw, fs::read_to_string(&path).unwrap());
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        write(config(&path), 2);
        fs::read(&path).unwrap()
    };
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (Just(good()), prop::collection::vec(change, 0..40)).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();

        prop_assert_eq!(stream("bytes", &bytes[..]).count(), lines);
    }

    #[test]
    fn damaged_logs_are_read_filtered_grouped_and_shown_without_a_panic(bytes in damaged()) {
        let mut groups = Groups::by(Field::ALL.to_vec());
        for entry in stream("bytes", &bytes[..]).flatten() {
            Filter::default().matches(&entry.record);
            groups.add(&entry.record);
            prop_assert!(!row(&entry.record).contains(crate::text::acts));
        }
        groups.top(3);
    }
}
