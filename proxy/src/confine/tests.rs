//! What confines a process is looked at from within one: this program starts itself again for it.

use std::{
    fs::File,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, Stdio},
};

use policy::strict::Source;
use rustix::net::{AddressFamily, SocketType};

use super::*;

#[test]
fn a_confined_process_reads_writes_starts_and_opens_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let told = inside("confine::tests::within_the_walls", directory.path());

    let output = String::from_utf8_lossy(&told.stdout);
    assert!(output.contains("every wall holds"), "{output} {}", String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success());
}

#[test]
fn a_confined_process_that_runs_a_program_is_ended() {
    let directory = tempfile::tempdir().unwrap();

    let told = inside("confine::tests::a_program_within_the_walls", directory.path());

    assert_eq!(told.status.signal(), Some(libc::SIGSYS), "{}", String::from_utf8_lossy(&told.stdout));
}

#[test]
fn without_walls_nothing_is_in_force_and_nothing_is_wrong() {
    let off = "hardening: {landlock: danger_off, seccomp: danger_off, capabilities: danger_off}\n";
    let config = config(Path::new("/p"), off);

    let confinement = Confinement::put_on(&config, Path::new("/p/proxy.yaml"));

    assert!(confinement.walls().iter().all(|(_, outcome)| **outcome == Outcome::Off));
    assert!(File::open("/proc/self/status").is_ok());
    assert_eq!(confine(&config, &Confining::Nothing), None);
}

#[test]
fn what_the_kernel_cannot_do_is_said_and_what_nobody_wants_is_not() {
    let confinement = Confinement {
        landlock: Outcome::Impossible("no Landlock".to_owned()),
        seccomp: Outcome::Off,
        capabilities: Outcome::InForce("none".to_owned()),
        others: 2,
        missing: Vec::new(),
    };

    let problem = confinement.problem().unwrap();

    assert_eq!(problem, "landlock is not in force: no Landlock; 2 threads were there before");
}

#[test]
fn a_port_that_may_not_be_listened_on_waits_for_a_restart_only_where_something_was_given_up() {
    let denied = |kind: io::ErrorKind| RunError::Listen {
        name: "a".to_owned(),
        address: "0.0.0.0:1".to_owned(),
        source: kind.into(),
    };
    let here = Confining::ThisProcess { configuration: PathBuf::new() };

    assert!(explain(&denied(io::ErrorKind::PermissionDenied), &here).contains("needs a restart"));
    assert!(!explain(&denied(io::ErrorKind::AddrInUse), &here).contains("restart"));
    assert!(!explain(&denied(io::ErrorKind::PermissionDenied), &Confining::Nothing).contains("restart"));
}

#[test]
#[ignore = "it gives up what the other tests need: another test starts it"]
fn within_the_walls() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let confinement = put_on(&directory);
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;

    assert!(File::open(directory.join("proxy.yaml")).is_ok());
    std::fs::write(directory.join("log/audit.jsonl"), "x").unwrap();
    std::fs::rename(directory.join("log/audit.jsonl"), directory.join("log/audit-1.jsonl")).unwrap();
    std::fs::remove_file(directory.join("log/audit-1.jsonl")).unwrap();
    for unreadable in ["/etc/passwd", "/proc/self/status", "/etc"] {
        assert!(denied(File::open(unreadable).unwrap_err()), "{unreadable}");
    }
    assert!(denied(File::create(directory.join("new")).unwrap_err()));
    assert!(denied(std::fs::create_dir(directory.join("log/deeper")).unwrap_err()));
    std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::thread::spawn(|| assert!(File::open("/etc/passwd").is_err())).join().unwrap();
    for family in [AddressFamily::PACKET, AddressFamily::VSOCK] {
        let refused = rustix::net::socket(family, SocketType::DGRAM, None);
        assert_eq!(refused.unwrap_err(), rustix::io::Errno::PERM, "{family:?}");
    }
    let run = Command::new("/bin/true").stdin(Stdio::null()).status();
    assert!(denied(run.unwrap_err()), "a process was made");
    let debugged = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    assert_eq!(debugged.unwrap_err(), rustix::io::Errno::PERM);
    assert_eq!(confinement.walls().iter().filter(|(_, wall)| matches!(wall, Outcome::InForce(_))).count(), 3);
    assert!(confinement.missing.contains(&directory.join("policies")));
    println!("every wall holds");
}

#[test]
#[ignore = "it ends its process: another test starts it"]
fn a_program_within_the_walls() {
    put_on(&PathBuf::from(std::env::var_os(DIRECTORY).unwrap()));
    let failed = Command::new("/bin/true").exec();
    println!("it lives on: {failed}");
}

/// Runs one of the tests here in a process of its own.
fn inside(test: &str, directory: &Path) -> std::process::Output {
    std::fs::write(directory.join("proxy.yaml"), "").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).env(DIRECTORY, directory).output().unwrap()
}

fn put_on(directory: &Path) -> Confinement {
    Confinement::put_on(&config(directory, ""), &directory.join("proxy.yaml"))
}

fn config(directory: &Path, more: &str) -> Config {
    let directory = directory.display();
    let text = format!(
        "vouchsafe: proxy/v1\npolicies: {directory}/policies\naudit: {{file: {directory}/log/audit.jsonl}}\n{more}inbound:\n  \
         - {{name: a, listen: 0.0.0.0:8443, protocol: tcp, application: 127.0.0.1:8080}}\n"
    );
    Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
}

const DIRECTORY: &str = "VOUCHSAFE_TEST_CONFINED_TO";
