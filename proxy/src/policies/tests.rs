use std::os::unix::fs::symlink;

use super::*;
use crate::testing::eventually;

const POLICY: &str = "vouchsafe: policy/v1\nname: web\nprotects: spiffe://prod.test/web\nallow:\n  - name: shop\n    from: [spiffe://prod.test/shop]\n    tcp: {port: 1}\n";

#[test]
fn only_policy_files_are_read_and_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", "notes.txt", ".hidden.yaml", "c.yaml.bak"] {
        std::fs::write(directory.path().join(name), name).unwrap();
    }

    let files = read(directory.path()).unwrap();

    assert_eq!(files.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a.yml", "b.yaml"]);
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

#[tokio::test]
async fn a_change_is_told_once_and_a_touch_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), POLICY).unwrap();
    let (tell, mut told) = mpsc::channel(8);
    let reload = Arc::new(Notify::new());
    let watching = tokio::spawn(watch(directory.path().to_owned(), Arc::clone(&reload), tell));
    assert!(matches!(told.recv().await, Some(Loaded::Set(_))));

    std::fs::write(directory.path().join("a.yaml"), POLICY).unwrap();
    reload.notify_one();
    tokio::time::sleep(crate::watching::SETTLE * 4).await;
    assert!(told.is_empty());
    std::fs::write(directory.path().join("a.yaml"), POLICY.replace("port: 1", "port: 2")).unwrap();
    let changed = eventually(async || told.try_recv().ok()).await;

    assert!(matches!(changed, Some(Loaded::Set(_))));
    drop(told);
    watching.await.unwrap();
}
