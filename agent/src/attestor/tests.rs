use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::fixtures::caller::{Caller, Role, program};

/// A listening socket, and the program that its callers run.
struct Scene {
    home: tempfile::TempDir,
    listener: UnixListener,
    program: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let program = program(home.path());
        let path = home.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self { home, listener, program }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    fn caller(&self, role: Role<'_>) -> Caller {
        Caller::start(&self.program, &self.socket(), role)
    }

    async fn accept(&self) -> (UnixStream, Result<Process, ProcessError>) {
        let (socket, _) = self.listener.accept().await.unwrap();
        let process = Process::of_peer(&socket);
        (socket, process)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn attestor() -> Attestor {
    Attestor::new(Options::default())
}

fn values(selectors: &SelectorSet) -> Vec<&str> {
    selectors.iter().map(Selector::value).collect()
}

fn only<'a>(selectors: &'a SelectorSet, key: &str) -> Vec<&'a str> {
    values(selectors).into_iter().filter_map(|value| value.strip_prefix(key)?.strip_prefix(':')).collect()
}

#[tokio::test]
async fn a_caller_is_described_as_spire_would() {
    let scene = Scene::new();
    let _caller = scene.caller(Role::Stay);
    let (_socket, process) = scene.accept().await;

    let selectors = attestor().attest(&Arc::new(process.unwrap()), Depth::ALL).await.unwrap();

    assert!(selectors.iter().all(|selector| selector.kind() == "unix"));
    assert_eq!(only(&selectors, "uid"), [rustix::process::geteuid().as_raw().to_string()]);
    assert_eq!(only(&selectors, "gid"), [rustix::process::getegid().as_raw().to_string()]);
    let user = User::from_uid(Uid::effective()).unwrap().map(|user| user.name);
    assert_eq!(only(&selectors, "user"), user.iter().map(String::as_str).collect::<Vec<_>>());
    let group = Group::from_gid(Gid::effective()).unwrap().map(|group| group.name);
    assert_eq!(only(&selectors, "group"), group.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(only(&selectors, "path"), [scene.program.to_str().unwrap()]);
    let digest = identity::crypto::hex(&identity::crypto::sha256(&std::fs::read(&scene.program).unwrap()));
    assert_eq!(only(&selectors, "sha256"), [digest]);
}

#[tokio::test]
async fn the_order_of_selectors_is_stable() {
    let scene = Scene::new();
    let _caller = scene.caller(Role::Stay);
    let process = Arc::new(scene.accept().await.1.unwrap());

    let first = attestor().attest(&process, Depth::ALL).await.unwrap();
    let second = attestor().attest(&process, Depth::ALL).await.unwrap();

    assert_eq!(values(&first), values(&second));
    assert!(values(&first).is_sorted());
}

#[tokio::test]
async fn nothing_is_looked_up_that_nobody_asks_for() {
    let scene = Scene::new();
    let _caller = scene.caller(Role::Stay);
    let process = Arc::new(scene.accept().await.1.unwrap());

    let shallow = attestor().attest(&process, Depth::default()).await.unwrap();
    let off = Options { path: Switch::Off, ..Options::default() };
    let pathless = Attestor::new(off).attest(&process, Depth::ALL).await.unwrap();
    let small = Options { sha256_limit: 10, ..Options::default() };
    let hashless = Attestor::new(small).attest(&process, Depth::ALL).await.unwrap();

    assert!(values(&shallow).iter().all(|value| value.contains("id:")), "{shallow:?}");
    assert!(only(&pathless, "path").is_empty() && only(&pathless, "sha256").is_empty());
    assert!(!only(&hashless, "path").is_empty() && only(&hashless, "sha256").is_empty());
}

#[tokio::test]
async fn supplementary_groups_are_seen_by_number_and_name() {
    assert!(is_root(), "this test changes its groups and has to run as root");
    let scene = Scene::new();
    let setpriv = ["setpriv", "--reuid", "12345", "--regid", "4", "--groups", "1,23456"];
    let _caller = Caller::start_wrapped(&setpriv, &scene.program, &scene.socket(), Role::Stay);
    let process = Arc::new(scene.accept().await.1.unwrap());

    let selectors = attestor().attest(&process, Depth::ALL).await.unwrap();

    assert_eq!(only(&selectors, "uid"), ["12345"]);
    assert_eq!(only(&selectors, "user"), Vec::<&str>::new(), "a uid without a name has no user selector");
    assert_eq!(only(&selectors, "gid"), ["4"]);
    assert_eq!(only(&selectors, "supplementary_gid"), ["1", "23456"]);
    let daemon = Group::from_gid(Gid::from_raw(1)).unwrap().unwrap().name;
    assert_eq!(only(&selectors, "supplementary_group"), [daemon.as_str()]);
}

#[tokio::test]
async fn a_process_that_changes_its_user_after_connecting_is_refused() {
    assert!(is_root(), "this test changes its user and has to run as root");
    let scene = Scene::new();
    let _caller = scene.caller(Role::ChangeUser);
    let (mut socket, process) = scene.accept().await;
    socket.read_exact(&mut [0; 1]).await.unwrap();

    let refused = attestor().attest(&Arc::new(process.unwrap()), Depth::default()).await;

    assert!(matches!(refused, Err(AttestError::Process { source: ProcessError::OtherUser })), "{refused:?}");
}

#[tokio::test]
async fn a_caller_that_is_gone_is_nobody() {
    let scene = Scene::new();
    let mut caller = scene.caller(Role::Stay);
    let process = Arc::new(scene.accept().await.1.unwrap());

    caller.child.kill().unwrap();
    caller.child.wait().unwrap();

    assert!(matches!(process.check_alive(), Err(ProcessError::Gone)));
    assert!(attestor().attest(&process, Depth::default()).await.is_err());
}

#[tokio::test]
async fn a_zombie_is_nobody_though_its_pid_is_still_taken() {
    let scene = Scene::new();
    let mut caller = scene.caller(Role::Stay);
    let process = Arc::new(scene.accept().await.1.unwrap());

    caller.child.kill().unwrap();
    while std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap().split(' ').nth(2)
        != Some("Z")
    {
        tokio::task::yield_now().await;
    }

    let refused = attestor().attest(&process, Depth::default()).await;
    assert!(matches!(refused, Err(AttestError::Process { source: ProcessError::Gone })), "{refused:?}");
}

#[tokio::test]
async fn a_caller_that_was_gone_before_it_was_accepted_is_nobody() {
    let scene = Scene::new();
    let mut caller = scene.caller(Role::Exit);
    caller.child.wait().unwrap();

    let (_socket, process) = scene.accept().await;

    assert!(process.is_err());
}

#[tokio::test]
async fn the_connection_names_who_connected_and_not_who_holds_the_socket() {
    let scene = Scene::new();
    let mut caller = scene.caller(Role::Exit);
    caller.child.wait().unwrap();
    rustix::io::write(&caller.socket, b"x").unwrap();

    let (mut socket, refused) = scene.accept().await;

    socket.read_exact(&mut [0; 1]).await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn another_start_time_is_another_process() {
    let process = Process::open(std::process::id()).unwrap();
    let mut facts = Facts::read(std::process::id(), false).unwrap();
    assert!(process.check_unchanged(&facts).is_ok());

    facts.started += 1;

    assert!(matches!(process.check_unchanged(&facts), Err(ProcessError::Gone)));
}

#[test]
fn a_pid_that_nobody_has_is_refused() {
    assert!(matches!(Process::open(0), Err(ProcessError::Gone)));
    assert!(matches!(Process::open(u32::MAX), Err(ProcessError::Gone)));
    assert!(matches!(Process::open(4_194_304), Err(ProcessError::Gone)));
}

#[tokio::test]
async fn a_program_started_after_connecting_is_seen_as_what_it_is() {
    let scene = Scene::new();
    let copy = scene.home.path().join("other");
    std::fs::copy(which("sleep"), &copy).unwrap();
    let _caller = scene.caller(Role::Exec(&copy));
    let process = Arc::new(scene.accept().await.1.unwrap());

    let seen = loop {
        let seen = attestor().attest(&process, Depth { path: true, ..Depth::default() }).await;
        match seen {
            Ok(seen) if only(&seen, "path") == [scene.program.to_str().unwrap()] => {
                tokio::task::yield_now().await
            }
            // Caught in the middle of exec, where the kernel shows no program for a moment: an error, never a mixture.
            Err(AttestError::Changed | AttestError::Read { .. }) => {}
            other => break other.unwrap(),
        }
    };

    assert_eq!(only(&seen, "path"), [copy.to_str().unwrap()]);
}

#[tokio::test]
async fn a_replaced_executable_keeps_the_hash_of_what_runs() {
    let scene = Scene::new();
    let copy = scene.home.path().join("sleeper");
    std::fs::copy(which("sleep"), &copy).unwrap();
    let running = identity::crypto::hex(&identity::crypto::sha256(&std::fs::read(&copy).unwrap()));
    let mut sleeper = crate::fixtures::caller::spawn(Command::new(&copy).arg("60"));
    let process = Arc::new(Process::open(sleeper.id()).unwrap());
    while Facts::read(sleeper.id(), true).unwrap().executable.unwrap().path != copy.as_os_str() {
        tokio::task::yield_now().await;
    }

    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "something else").unwrap();
    let seen = attestor().attest(&process, Depth::ALL).await.unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();

    assert_eq!(only(&seen, "sha256"), [running]);
    assert!(only(&seen, "path").is_empty(), "the path is that of another file");
}

#[tokio::test]
async fn a_program_that_its_user_mounted_over_another_does_not_have_that_ones_path() {
    let scene = Scene::new();
    let (guarded, evil) = (scene.home.path().join("guarded"), scene.home.path().join("evil"));
    std::fs::copy(which("sleep"), &guarded).unwrap();
    std::fs::copy(which("sleep"), &evil).unwrap();
    let script = format!("mount --bind {} {} && exec {1} 60", evil.display(), guarded.display());
    let own_namespace = ["--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let mut sleeper = crate::fixtures::caller::spawn(Command::new(which("unshare")).args(own_namespace));
    let process = Arc::new(Process::open(sleeper.id()).unwrap());
    let exe = format!("/proc/{}/exe", sleeper.id());
    while std::fs::read_link(&exe).ok().as_deref() != Some(&guarded) {
        assert!(sleeper.try_wait().unwrap().is_none(), "these tests need user namespaces");
        tokio::task::yield_now().await;
    }

    let seen = attestor().attest(&process, Depth::ALL).await.unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();

    assert!(only(&seen, "path").is_empty(), "{seen:?}");
    assert_eq!(only(&seen, "sha256").len(), 1);
}

#[test]
fn depth_is_what_the_selectors_ask_for() {
    let of = |values: &[&str]| Depth::of(crate::fixtures::selectors(values).iter());

    assert_eq!(of(&["uid:1", "gid:2", "supplementary_gid:3"]), Depth::default());
    for name in ["user:x", "group:x", "supplementary_group:x"] {
        assert_eq!(of(&[name]), Depth { names: true, ..Depth::default() });
    }
    assert_eq!(of(&["path:/x"]), Depth { path: true, ..Depth::default() });
    assert_eq!(of(&["sha256:x"]), Depth { digest: true, ..Depth::default() });
    assert!(Depth::ALL.covers(of(&["user:x", "path:/x", "sha256:x"])));
    assert!(!Depth::default().covers(of(&["path:/x"])));
}

fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("these tests need {name}")).canonicalize().unwrap()
}
