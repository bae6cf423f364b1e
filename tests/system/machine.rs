//! What only root can arrange on a machine: a full disk, a wrong clock, the service manager's judgement.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::audit::AuditLog;
use crate::support::backend::Backend;
use crate::support::cluster::{Ca, id};
use crate::support::command::{binary, clean, command, ended};
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::process::Process;
use crate::support::sidecar::{CALLER, SERVER, Setup, TRUST_DOMAIN, allow_path, write_policy};
use crate::support::tls;
use crate::support::wait::{eventually, throughout};

#[test]
fn a_full_disk_costs_no_decision_and_no_count() {
    let root = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(root.path().join("small"));
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    let caller = authority.svid(CALLER);
    let inbound = SocketAddr::from(([127, 0, 0, 1], port::free()));
    let policy = allow_path("api", &authority.id(SERVER), &authority.id(CALLER), inbound.port());
    write_policy(&disk.path.join("api"), "api.yaml", &policy);
    let backend = Backend::http();
    let setup = Setup::new("api").pem(&root.path().join("pem")).inbound("http", inbound, backend.address());
    let mut sidecar = setup.start(&disk.path);
    let status = |path: &str| tls::get(inbound, &caller, path).unwrap().status;
    assert_eq!(status("/forbidden"), 403);

    disk.fill();
    for _ in 0..50 {
        assert_eq!(
            (status("/forbidden"), status("/allowed/x")),
            (403, 200),
            "a full disk changed a decision"
        );
    }
    sidecar.process.must_run();
    disk.free();

    eventually("every denial is counted once the disk has room", || {
        let _more = status("/allowed/x");
        (AuditLog::at(&disk.path.join("api/audit.jsonl")).denied() == 51).then_some(())
    });
}

#[test]
fn a_ca_on_a_full_disk_acknowledges_nothing_that_it_cannot_keep() {
    let root = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(root.path().join("small"));
    let mut ca = Ca::start(&disk.path, "");
    let create = |ca: &Ca, name: &str| {
        ca.admin(&[
            "entry",
            "create",
            "--id",
            &id(name),
            "--parent",
            &id("/node/x"),
            "--selector",
            "unix:uid:1",
        ])
    };
    create(&ca, "/before").expect(0);

    disk.fill();
    let mut acknowledged = vec![id("/before")];
    let mut refused = None;
    for number in 0..5000 {
        let told = create(&ca, &format!("/full/{number}"));
        if told.code != 0 {
            refused = Some(told);
            break;
        }
        acknowledged.push(id(&format!("/full/{number}")));
    }
    let refused = refused.expect("a full disk takes entries for ever");
    assert!(!refused.stderr.is_empty(), "the refusal has no reason");
    disk.free();
    ca.process.kill();
    ca.restart();

    let listed = ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).stdout;
    for entry in acknowledged {
        assert!(listed.contains(&entry), "{entry} was acknowledged and is lost");
    }
    create(&ca, "/after").expect(0);
}

/// A sidecar whose clock is years behind sees a certificate that is not valid yet: it must not serve.
#[test]
fn a_clock_in_the_past_fails_closed_with_a_reason() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    let inbound = SocketAddr::from(([127, 0, 0, 1], port::free()));
    let backend = Backend::http();
    let policy = allow_path("api", &authority.id(SERVER), &authority.id(CALLER), inbound.port());
    write_policy(&root.path().join("api"), "api.yaml", &policy);
    let setup = Setup::new("api").pem(&root.path().join("pem")).inbound("http", inbound, backend.address());
    let mut sound = setup.start(root.path());
    sound.process.terminate();
    let config = root.path().join("api/proxy.yaml").display().to_string();

    let mut behind =
        Process::start("behind", root.path(), at_time("-3650d", &["proxy", "run", "--config", &config]));

    let told = eventually("it says that its identity is not usable", || {
        let log = behind.log().to_lowercase();
        (log.contains("valid") || log.contains("expire") || log.contains("clock")).then_some(log)
    });
    throughout(
        Duration::from_secs(1),
        "nothing passes",
        || !matches!(tls::get(inbound, &authority.svid(CALLER), "/allowed/x"), Ok(answer) if answer.status == 200),
    );
    assert_eq!(backend.connections(), 0, "{told}");
    behind.kill();
}

/// The CA's authority is not valid yet, or no longer, by its own clock: it must not issue.
#[test]
fn a_ca_whose_clock_fell_years_behind_says_so_and_issues_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut ca = Ca::start(root.path(), "");
    let bundle = ca.admin(&["bundle", "show", "-o", "pem"]).expect(0).stdout;
    ca.process.terminate();
    let config = root.path().join("ca/ca.yaml").display().to_string();

    let mut behind =
        Process::start("behind", root.path(), at_time("-3650d", &["ca", "run", "--config", &config]));
    let told = eventually("it says that its clock and its authority disagree", || {
        let log = behind.log().to_lowercase();
        (log.contains("clock")
            || log.contains("not valid")
            || log.contains("not yet valid")
            || !behind.is_running())
        .then_some(log)
    });
    assert!(told.contains("clock") || told.contains("valid"), "{told}");
    behind.kill();

    ca.restart();
    assert_eq!(
        ca.admin(&["bundle", "show", "-o", "pem"]).expect(0).stdout,
        bundle,
        "another authority was made in the past"
    );
}

fn at_time(offset: &str, words: &[&str]) -> Command {
    let program = binary().display().to_string();
    let all: Vec<&str> = ["-f", offset, &program].iter().copied().chain(words.iter().copied()).collect();
    let mut command = clean(Command::new("faketime"), &all);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

#[test]
fn the_units_pass_the_service_managers_own_check() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let units: Vec<PathBuf> = walk(&deploy)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "service"))
        .collect();
    assert!(units.len() >= 3, "{units:?}");

    for unit in units {
        // The unit names the installed binary; the check wants one that exists.
        let root = tempfile::tempdir().unwrap();
        let copy = root.path().join(unit.file_name().unwrap());
        let text = std::fs::read_to_string(&unit).unwrap();
        let installed = "/usr/local/bin/vouchsafe";
        assert!(
            text.contains(&format!("ExecStart={installed} ")) || text.contains("/usr/bin/vouchsafe"),
            "{}",
            unit.display()
        );
        let text = text.replace(installed, &binary().display().to_string());
        std::fs::write(&copy, text.replace("/usr/bin/vouchsafe", &binary().display().to_string())).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy);

        let told = ended(verify);

        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{}: {}", unit.display(), told.stdout);
        for wanted in ["Type=notify", "Restart=", "ProtectSystem="] {
            assert!(text_of(&unit).contains(wanted), "{} lacks {wanted}", unit.display());
        }
    }
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// systemd counts a daemon as started when it says so, not before.
#[test]
fn a_daemon_tells_the_service_manager_when_it_is_ready() {
    let root = tempfile::tempdir().unwrap();
    let notify = root.path().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let config = root.path().join("ca.yaml");
    let text = format!(
        "vouchsafe: ca/v1\ntrust_domain: cluster.test\ndata_dir: {}/data\nlisten: \"127.0.0.1:0\"\n",
        root.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = command(&["ca", "run", "--config", &config.display().to_string()]);
    daemon.env("NOTIFY_SOCKET", &notify);
    let mut process = Process::start("ca", root.path(), daemon);

    let mut told = String::new();
    while !told.contains("READY=1") {
        let mut buffer = [0; 4096];
        let count = manager.recv(&mut buffer).expect("READY=1 before the time is up");
        told.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(process.terminate().code(), Some(0));
}

/// A file system of one megabyte.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&path);
        let told = ended(mount);
        assert_eq!(told.code, 0, "mount: {} (a small file system needs root)", told.stderr);
        Self { path }
    }

    /// Leaves no byte free.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path.join("filler")).unwrap();
        for size in [65_536, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
