//! Children are started, awaited and ended, shown on a shell instead of the real binary.

use super::*;

#[tokio::test]
async fn a_child_that_announces_itself_is_ready() {
    let dir = dir();
    let mut processes = Processes::new(dir.path(), shell_binary());
    // The child holds no socket; the announcement comes from where it would.
    processes.start("sleeper", &shell("cat")).unwrap();

    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"STATUS=x\nREADY=1\n", dir.path().join("run/sleeper.ready")).await.unwrap();

    processes.ready(&["sleeper"]).await.unwrap();
    processes.end().await;
}

#[tokio::test]
async fn a_child_that_ends_early_is_reported_with_its_last_words() {
    let dir = dir();
    let mut processes = Processes::new(dir.path(), shell_binary());
    processes.start("doomed", &shell("echo disk on fire >&2; exit 7")).unwrap();

    let error = processes.ready(&["doomed"]).await.unwrap_err().to_string();

    assert!(error.contains("exit status: 7"), "{error}");
    assert!(error.contains("    disk on fire"), "{error}");
}

#[tokio::test]
async fn a_child_that_ends_later_is_noticed() {
    let dir = dir();
    let mut processes = Processes::new(dir.path(), shell_binary());
    processes.start("stays", &shell("cat")).unwrap();
    processes.start("leaves", &shell("exit 1")).unwrap();

    let error = processes.any_end().await;

    assert!(matches!(error, ProcessError::Ended { name, .. } if name == "leaves"));
    processes.end().await;
}

#[tokio::test]
async fn ending_closes_standard_input_and_waits() {
    let dir = dir();
    let gone = dir.path().join("gone");
    let mut processes = Processes::new(dir.path(), shell_binary());
    processes.start("cat", &shell(&format!("cat; touch {}", gone.display()))).unwrap();

    processes.end().await;

    assert!(gone.exists());
}

#[tokio::test]
async fn a_failing_command_tells_what_it_said() {
    let error = shell_binary().run(&shell("echo out; echo err >&2; exit 1")).await.err().unwrap();

    assert!(error.to_string().contains("out\nerr\n"), "{error}");
}

#[tokio::test]
async fn a_denial_is_an_answer_and_not_a_failure() {
    let printed = shell_binary().run(&shell("echo denied; exit 4")).await.unwrap();

    assert_eq!((printed.status.code(), printed.text.as_str()), (Some(4), "denied\n"));
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let dir = dir();
    let mut processes = Processes::new(dir.path(), Binary("/no/such/binary".into()));

    let error = processes.start("ca", &shell("")).unwrap_err();

    assert_eq!(error.to_string(), "ca cannot be started as /no/such/binary");
}

#[tokio::test]
async fn a_program_that_may_not_be_run_is_not_blamed_on_the_user() {
    let dir = dir();
    let program = dir.path().join("api");
    std::fs::write(&program, "").unwrap();
    let mut processes = Processes::new(dir.path(), Binary(program));

    let error = processes.start("api", &shell("")).unwrap_err();

    assert!(error.to_string().contains("noexec"), "{error}");
}

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["run", "log"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    dir
}

fn shell_binary() -> Binary {
    Binary("/bin/sh".into())
}

fn shell(script: &str) -> Invocation {
    Invocation { program: None, arguments: vec!["-c".to_owned(), script.to_owned()] }
}
