//! Following misses nothing and repeats nothing, whatever happens to the file.

use std::thread;

use super::*;
use crate::{
    Log, MIN_ROTATE_BYTES, Reason, Writer,
    fixtures::{config, denied},
    start,
};

fn open(path: &Path) -> (Log, Writer) {
    let mut small = config(path);
    (small.rotate_bytes, small.keep_files) = (MIN_ROTATE_BYTES, 1_000);
    start(small).unwrap()
}

fn all(follow: &mut Follow) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(entry) = follow.poll().unwrap() {
        found.push(entry.unwrap().record.metadata.sequence);
    }
    found
}

#[test]
fn a_log_is_followed_through_every_change_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, writer) = open(&path);
    let mut follow = Follow::new(&path, Start::Beginning).unwrap();

    let mut found = Vec::new();
    for _ in 0..20 {
        (0..300).for_each(|_| log.open(denied(Reason::NoPolicy)));
        thread::sleep(Duration::from_millis(10));
        found.extend(all(&mut follow));
    }
    writer.close().unwrap();
    found.extend(all(&mut follow));

    assert!(files::aside(&path).unwrap().len() > 5);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    assert!(found.len() > 6_000);
}

#[test]
fn several_changes_between_two_looks_are_caught_up_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let (log, writer) = open(&path);
    let mut follow = Follow::new(&path, Start::Beginning).unwrap();

    (0..3_000).for_each(|_| log.open(denied(Reason::NoPolicy)));
    writer.close().unwrap();

    assert!(files::aside(&path).unwrap().len() > 3);
    let found = all(&mut follow);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    assert!(found.len() > 3_000);
}

#[test]
fn following_from_the_end_shows_only_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    open(&path).1.close().unwrap();
    let mut follow = Follow::new(&path, Start::End).unwrap();
    assert!(follow.poll().unwrap().is_none());

    open(&path).1.close().unwrap();

    assert_eq!(all(&mut follow), [3, 4]);
}

#[test]
fn a_log_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut follow = Follow::new(&path, Start::End).unwrap();
    assert!(follow.poll().unwrap().is_none());

    open(&path).1.close().unwrap();

    assert_eq!(all(&mut follow), [1, 2]);
}

#[test]
fn a_line_half_written_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    open(&path).1.close().unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let mut follow = Follow::new(&path, Start::Beginning).unwrap();
    assert_eq!(all(&mut follow), [1]);

    use io::Write;
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&whole[whole.len() - 20..]).unwrap();

    assert_eq!(all(&mut follow), [2]);
}

#[test]
fn a_file_that_was_emptied_is_read_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    open(&path).1.close().unwrap();
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut follow = Follow::new(&path, Start::Beginning).unwrap();
    assert_eq!(all(&mut follow), [1, 2]);

    fs::write(&path, &whole[..first]).unwrap();

    assert_eq!(all(&mut follow), [1]);
}

#[test]
fn a_foreign_line_is_a_problem_and_following_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, "hello\n").unwrap();
    let mut follow = Follow::new(&path, Start::Beginning).unwrap();

    let problem = follow.poll().unwrap().unwrap().unwrap_err();

    assert_eq!(problem.line, 1);
    assert!(follow.poll().unwrap().is_none());
}
