//! Promises of durable files.

use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use super::*;

#[test]
fn a_file_gets_its_bytes_and_exactly_its_permissions() {
    let directory = tempfile::tempdir().unwrap();

    // The last two are what a usual umask would take permissions from.
    for mode in [0o600, 0o640, 0o644, 0o400, 0o666, 0o770] {
        let path = directory.path().join(format!("{mode:o}"));

        write(&path, mode, b"secret").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(permissions(&path), mode);
    }
    assert_eq!(entries(directory.path()), 6);
}

#[test]
fn a_file_is_never_wider_than_it_ends() {
    let directory = tempfile::tempdir().unwrap();

    for mode in [0o600, 0o640, 0o400] {
        let path = directory.path().join(format!("{mode:o}"));
        create(&path, mode).unwrap();

        assert_eq!(permissions(&path) & !mode, 0);
    }
}

#[test]
fn a_file_that_is_there_already_is_not_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("planted");
    fs::write(&path, "").unwrap();

    assert_eq!(create(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn an_older_file_is_replaced_with_its_permissions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "a much longer older text").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();

    write(&path, 0o600, b"new").unwrap();

    assert_eq!((fs::read(&path).unwrap().as_slice(), permissions(&path)), (b"new".as_slice(), 0o600));
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn who_holds_the_older_file_open_keeps_reading_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, 0o600, b"old").unwrap();
    let held = File::open(&path).unwrap();

    write(&path, 0o600, b"new").unwrap();

    assert_ne!(held.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    assert_eq!(io::read_to_string(held).unwrap(), "old");
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (target, path) = (directory.path().join("target"), directory.path().join("key"));
    fs::write(&target, "precious").unwrap();
    symlink(&target, &path).unwrap();

    write(&path, 0o600, b"new").unwrap();

    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(!path.symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("taken");
    fs::create_dir_all(path.join("full")).unwrap();

    let error = write(&path, 0o600, b"new").unwrap_err();

    assert!(matches!(&error, DurableError::Write { path: named, .. } if *named == path), "{error}");
    assert_eq!(entries(directory.path()), 1);
    assert!(path.join("full").is_dir());
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/key");

    let error = write(&path, 0o600, b"new").unwrap_err();

    assert!(error.to_string().contains("missing/key"), "{error}");
}

#[test]
fn a_path_without_file_name_is_refused() {
    for path in ["/", "..", ""] {
        assert!(
            matches!(write(Path::new(path), 0o600, b""), Err(DurableError::NoFileName { .. })),
            "{path:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_bytes_read_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");

        write(&path, 0o600, &bytes).unwrap();

        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

fn permissions(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}
