use std::{os::unix::fs::symlink, path::Path};

use super::{
    reading::{MAX_FILE, MAX_FILES, MAX_TOTAL, Snapshot, read},
    *,
};
use crate::config::Istio;

const POLICY: &str = "vouchsafe: policy/v1\nname: web\nprotects: spiffe://prod.test/web\nallow:\n  - name: shop\n    from: [spiffe://prod.test/shop]\n    tcp: {port: 1}\n";

/// Reads and compiles a directory that stands alone.
fn load(directory: &Path) -> Result<PolicySet, LoadError> {
    check(directory, &Istio::default(), None, true)
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.keys().map(String::as_str).collect()
}

#[test]
fn only_policies_and_key_sets_are_read_and_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", "keys.json", "notes.txt", ".hidden.yaml", "c.yaml.bak"] {
        std::fs::write(directory.path().join(name), name).unwrap();
    }

    let snapshot = read(directory.path()).unwrap();

    assert_eq!(names(&snapshot), ["a.yml", "b.yaml", "keys.json"]);
    assert!(snapshot.ignored.is_empty());
}

#[test]
fn what_looks_meant_and_is_not_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["deny.YAML", "keys.Json", "notes.txt", ".hidden.YML"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    std::fs::create_dir(directory.path().join("team")).unwrap();
    std::fs::create_dir(directory.path().join("..2026_11_23")).unwrap();

    let snapshot = read(directory.path()).unwrap();

    assert!(snapshot.files.is_empty());
    assert_eq!(*snapshot.ignored, ["deny.YAML", "keys.Json", "team"]);
}

#[test]
fn a_swap_of_a_kubernetes_volume_is_read_before_or_after_and_never_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    for version in ["one", "two"] {
        std::fs::create_dir(path.join(format!("..{version}"))).unwrap();
        for number in 0..40 {
            std::fs::write(path.join(format!("..{version}/{number}.yaml")), version).unwrap();
        }
    }
    symlink("..one", path.join("..data")).unwrap();
    (0..40).for_each(|number| {
        symlink(format!("..data/{number}.yaml"), path.join(format!("{number}.yaml"))).unwrap();
    });
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let swapped = path.clone();
    let swapping = std::thread::spawn(move || {
        let mut versions = ["..two", "..one"].into_iter().cycle();
        let pause = std::time::Duration::from_millis(7);
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            symlink(versions.next().unwrap(), swapped.join("..tmp")).unwrap();
            std::fs::rename(swapped.join("..tmp"), swapped.join("..data")).unwrap();
        }
    });

    let mut whole = 0;
    for _ in 0..200 {
        // One that never comes to rest is refused, which is right as well.
        let Ok(snapshot) = read(&path) else { continue };
        let mut contents: Vec<_> = snapshot.files.values().collect();
        contents.dedup();
        assert_eq!((snapshot.files.len(), contents.len()), (40, 1), "a mixture: {contents:?}");
        whole += 1;
    }

    drop(stop);
    swapping.join().unwrap();
    assert!(whole > 0);
}

#[test]
fn a_link_to_itself_and_links_in_a_circle_are_refused_with_their_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), POLICY).unwrap();
    symlink("c.yaml", directory.path().join("b.yaml")).unwrap();
    symlink("b.yaml", directory.path().join("c.yaml")).unwrap();

    let refused = load(directory.path());

    assert!(
        matches!(refused, Err(LoadError::Read { path, .. }) if path.ends_with("b.yaml") || path.ends_with("c.yaml"))
    );
}

#[test]
fn a_folder_that_is_named_like_a_policy_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("a.yaml")).unwrap();

    assert!(matches!(load(directory.path()), Err(LoadError::Read { .. })));
}

#[test]
fn a_link_to_a_device_is_refused_and_not_read() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/dev/zero", directory.path().join("a.yaml")).unwrap();

    assert!(matches!(load(directory.path()), Err(LoadError::Read { .. })));
}

#[test]
fn a_name_that_is_no_text_is_refused_where_the_file_is_meant_to_be_read() {
    use std::os::unix::ffi::OsStrExt;

    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "").unwrap();
    assert!(load(directory.path()).is_ok());

    std::fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff.yaml")), POLICY).unwrap();

    assert!(matches!(load(directory.path()), Err(LoadError::Name { .. })));
}

#[test]
fn a_nul_in_a_policy_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), POLICY.replace("name: web", "name: w\0b")).unwrap();

    let error = load(directory.path()).unwrap_err().to_string();

    assert!(error.contains("a.yaml"), "{error}");
}

#[test]
fn a_file_of_a_hundred_megabytes_is_refused_without_being_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("a.yaml")).unwrap();
    file.set_len(100 * 1024 * 1024).unwrap();

    let snapshot = read(directory.path()).unwrap();

    assert_eq!(snapshot.files["a.yaml"].len(), MAX_FILE + 1);
    assert!(matches!(load(directory.path()), Err(LoadError::Problems(_))));
}

#[test]
fn files_that_vanish_while_they_are_read_leave_a_whole_reading_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let emptied = path.clone();
    let emptying = std::thread::spawn(move || {
        let pause = std::time::Duration::from_millis(3);
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            (0..30)
                .for_each(|number| std::fs::write(emptied.join(format!("{number}.yaml")), POLICY).unwrap());
            std::thread::sleep(pause);
            (0..30).for_each(|number| std::fs::remove_file(emptied.join(format!("{number}.yaml"))).unwrap());
        }
    });

    for _ in 0..200 {
        match read(&path) {
            // What was read at one moment has whole files; how many the writer had laid down is for settling to judge.
            Ok(snapshot) => {
                assert!(snapshot.files.values().all(|bytes| bytes == POLICY.as_bytes() || bytes.is_empty()))
            }
            Err(error) => {
                assert!(matches!(error, LoadError::Restless { .. } | LoadError::Read { .. }), "{error}")
            }
        }
    }

    drop(stop);
    emptying.join().unwrap();
}

#[test]
fn stamps_are_believed_only_of_files_that_nobody_had_touched_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), POLICY).unwrap();
    assert!(!read(directory.path()).unwrap().is_untouched(directory.path()));
    let rested = || read(directory.path()).ok().filter(|snapshot| snapshot.is_untouched(directory.path()));
    let end = std::time::Instant::now() + crate::testing::PATIENCE;
    let snapshot = loop {
        if let Some(snapshot) = rested() {
            break snapshot;
        }
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(reading::REST / 10);
    };

    std::fs::write(directory.path().join("a.yaml"), POLICY.replace("port: 1", "port: 2")).unwrap();

    assert!(!snapshot.is_untouched(directory.path()));
}

#[test]
fn links_are_followed_and_one_that_leads_nowhere_fails_the_whole_load() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("..data")).unwrap();
    std::fs::write(directory.path().join("..data/a.yaml"), POLICY).unwrap();
    symlink("..data/a.yaml", directory.path().join("a.yaml")).unwrap();
    assert!(load(directory.path()).is_ok());

    symlink("nowhere", directory.path().join("b.yaml")).unwrap();

    assert!(matches!(load(directory.path()), Err(LoadError::Read { path, .. }) if path.ends_with("b.yaml")));
}

#[test]
fn one_bad_file_fails_all() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), POLICY).unwrap();
    std::fs::write(directory.path().join("b.yaml"), "nonsense").unwrap();

    let error = load(directory.path()).unwrap_err().to_string();

    assert!(error.contains("b.yaml:1"), "{error}");
}

#[test]
fn a_file_that_is_not_text_or_too_large_is_a_problem_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), [0xff]).unwrap();
    assert!(load(directory.path()).unwrap_err().to_string().contains("a.yaml"));

    std::fs::write(directory.path().join("a.yaml"), vec![b'#'; MAX_FILE + 1]).unwrap();

    assert!(load(directory.path()).unwrap_err().to_string().contains("a.yaml"));
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (tell, told) = std::sync::mpsc::channel();
    let held = directory.path().to_owned();

    std::thread::spawn(move || tell.send(load(&held).is_err()));

    assert_eq!(told.recv_timeout(crate::testing::PATIENCE), Ok(true));
}

#[test]
fn a_directory_that_is_not_there_says_so() {
    assert!(matches!(load(Path::new("/nowhere")), Err(LoadError::Read { .. })));
}

#[test]
fn all_files_together_have_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let most = std::fs::File::create(directory.path().join("0.yaml")).unwrap();
    most.set_len(MAX_FILE as u64).unwrap();
    for number in 1..=MAX_TOTAL / MAX_FILE {
        symlink("0.yaml", directory.path().join(format!("{number}.yaml"))).unwrap();
    }

    assert!(matches!(load(directory.path()), Err(LoadError::TooLarge { .. })));
}

#[test]
fn a_directory_of_countless_files_is_refused_before_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..=MAX_FILES {
        std::fs::File::create(directory.path().join(format!("{number}.yaml"))).unwrap();
    }

    assert!(matches!(load(directory.path()), Err(LoadError::TooMany { .. })));
}
