//! Directories of policies that nobody should accept: each is refused whole, in little time and memory, by every command,
//! by a sidecar that starts with it and by one that is asked to reload it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::command::{Ended, binary, clean, ended, run};
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::sidecar::{CALLER, Callee, SERVER, Setup, TRUST_DOMAIN, allow_all};
use crate::support::tls;
use crate::support::wait::{eventually, within};

/// A flaw: what it is called, what every refusal says of it, how it comes into a directory, and when it shows.
struct Flaw {
    name: &'static str,
    said: &'static str,
    make: fn(&Path),
    shows: Shows,
}

/// What it takes to see a flaw.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// Reading the file.
    Read,
    /// Reading all of them together.
    Together,
    /// Trying what the files promise, which a comparison leaves to others.
    Tried,
}

const FLAWS: [Flaw; 17] = [
    read("an alias bomb", "bad.yaml:2", |dir| put(dir, &bomb())),
    read("deep brackets", "bad.yaml:1", |dir| put(dir, &"[".repeat(200_000))),
    read("deep braces", "bad.yaml:1", |dir| put(dir, &"{a: ".repeat(100_000))),
    read("deep blocks", "bad.yaml", |dir| put(dir, &deep_blocks())),
    read("countless values", "bad.yaml", |dir| put(dir, &format!("a: [{}]\n", "a,".repeat(600_000)))),
    read("a hundred megabytes", "bad.yaml", |dir| {
        File::create(dir.join("bad.yaml")).unwrap().set_len(100 * 1024 * 1024).unwrap();
    }),
    read("a file without end", "bad.yaml", |dir| symlink("/dev/zero", dir.join("bad.yaml")).unwrap()),
    read("bytes that are no text", "bad.yaml:3", |dir| {
        fs::write(dir.join("bad.yaml"), b"vouchsafe: policy/v1\nname: bad\nowner: \xff\xfe\n").unwrap();
    }),
    read("a NUL", "bad.yaml:2", |dir| put(dir, "vouchsafe: policy/v1\nname: \"b\0d\"\n")),
    read("a link to itself", "bad.yaml", |dir| symlink("bad.yaml", dir.join("bad.yaml")).unwrap()),
    read("links in a circle", "bad", |dir| {
        symlink("bad2.yaml", dir.join("bad.yaml")).unwrap();
        symlink("bad.yaml", dir.join("bad2.yaml")).unwrap();
    }),
    // Whoever may open this cannot read its first byte, root neither.
    read("a file that cannot be read", "bad.yaml", |dir| {
        symlink("/proc/self/mem", dir.join("bad.yaml")).unwrap();
    }),
    read("a folder", "bad.yaml", |dir| fs::create_dir(dir.join("bad.yaml")).unwrap()),
    read("a pipe", "bad.yaml", |dir| {
        assert!(Command::new("mkfifo").arg(dir.join("bad.yaml")).status().unwrap().success());
    }),
    read("a name that is no text", "UTF-8", |dir| {
        fs::write(dir.join(OsStr::from_bytes(b"bad\xff.yaml")), "x: y\n").unwrap();
    }),
    Flaw {
        name: "a name that another file has",
        said: "good.yaml",
        make: |dir| put(dir, &fs::read_to_string(dir.join("good.yaml")).unwrap()),
        shows: Shows::Together,
    },
    Flaw {
        name: "a guarantee and a test that cannot both hold",
        said: "guarantee",
        make: |dir| put(dir, CONTRADICTION),
        shows: Shows::Tried,
    },
];

const fn read(name: &'static str, said: &'static str, make: fn(&Path)) -> Flaw {
    Flaw { name, said, make, shows: Shows::Read }
}

fn put(dir: &Path, text: &str) {
    fs::write(dir.join("bad.yaml"), text).unwrap();
}

/// Nine lists of nine of the list before.
fn bomb() -> String {
    let mut text = "vouchsafe: policy/v1\na0: &a0 [x, x]\n".to_owned();
    for number in 1..40 {
        let before = format!("*a{}", number - 1);
        text.push_str(&format!("a{number}: &a{number} [{}]\n", [before.as_str(); 9].join(", ")));
    }
    text
}

fn deep_blocks() -> String {
    (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()
}

const CONTRADICTION: &str = "\
vouchsafe: policy/v1
name: bad
protects: spiffe://prod.test/ns/shop/sa/db
allow:
  - name: dev
    from: [spiffe://prod.test/ns/dev/sa/x]
    tcp: {port: 5432}
guarantees:
  - never: {from: [\"spiffe://prod.test/ns/dev/**\"]}
tests:
  - {from: spiffe://prod.test/ns/dev/sa/x, tcp: 5432, expect: allow}
";

/// No refusal takes longer, on a busy machine and with a slow build.
const SOON: Duration = Duration::from_secs(20);
/// Address space of a command that reads a bad directory.
const ENOUGH_BYTES: u64 = 1 << 30;
/// Kilobytes that a sidecar has needed at most, whatever it was given.
const PEAK_KILOBYTES: u64 = 400_000;

fn good() -> String {
    let id = |path: &str| format!("spiffe://{TRUST_DOMAIN}{path}");
    allow_all("good", &id(SERVER), &id(CALLER), "http", 8443)
}

/// A directory with a good policy and a flaw.
fn flawed(root: &Path, flaw: &Flaw) -> PathBuf {
    let dir = root.join(flaw.name.replace(' ', "-")).join("policies");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("good.yaml"), good()).unwrap();
    (flaw.make)(&dir);
    dir
}

/// Runs a command with little memory.
fn confined(words: &[&str]) -> Ended {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={ENOUGH_BYTES}")).arg(binary());
    ended(clean(command, words))
}

#[test]
fn every_command_refuses_a_flawed_directory_whole_and_soon_and_in_little_memory() {
    let root = tempfile::tempdir().unwrap();
    let sound = root.path().join("sound");
    fs::create_dir(&sound).unwrap();
    fs::write(sound.join("good.yaml"), good()).unwrap();
    let (sound, out) = (sound.display().to_string(), root.path().join("out").display().to_string());

    for flaw in &FLAWS {
        let dir = flawed(root.path(), flaw).display().to_string();
        let trying: [&[&str]; 7] = [
            &["check", &dir],
            &["test", &dir],
            &["reach", &dir],
            &["lint", &dir],
            &["graph", &dir],
            &["bench", &dir],
            &["eval", "--policies", &dir, "--requests", "/dev/null"],
        ];
        let comparing: [&[&str]; 2] = [&["diff", &dir, &sound], &["diff", &sound, &dir]];
        let reading: [&[&str]; 2] = [&["fmt", "--check", &dir], &["import", &dir, "--out", &out]];
        let comparing = comparing.iter().filter(|_| flaw.shows != Shows::Tried);
        let reading = reading.iter().filter(|_| flaw.shows == Shows::Read);
        for words in trying.iter().chain(comparing).chain(reading) {
            let start = Instant::now();
            let told = confined(&[&["policy"], *words].concat());

            let (name, all) = (flaw.name, format!("{}{}", told.stdout, told.stderr));
            assert_eq!(told.code, 2, "{name}: {words:?}: {all}");
            assert!(told.stderr.contains(flaw.said), "{name}: {words:?}: no {:?} in {all}", flaw.said);
            assert_eq!(told.stdout, "", "{name}: {words:?}");
            assert!(all.len() < 64 * 1024, "{name}: {words:?} says {} bytes", all.len());
            assert!(start.elapsed() < SOON, "{name}: {words:?} took {:?}", start.elapsed());
        }
    }
    assert!(!Path::new(&out).exists(), "something was written");
}

#[test]
fn a_sidecar_that_starts_with_a_flawed_directory_lets_nothing_pass_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    let backend = Backend::http();
    let caller = authority.svid(CALLER);

    for flaw in &FLAWS {
        let name = flaw.name.replace(' ', "-");
        flawed(root.path(), flaw);
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let setup =
            Setup::new(&name).pem(&root.path().join("pem")).inbound("http", inbound, backend.address());
        let mut sidecar = setup.spawn(root.path());

        within(SOON, &format!("{name}: readiness tells of the flaw"), || {
            sidecar.policy_problem().filter(|problem| problem.contains(flaw.said))
        });
        eventually("it knows who it is", || sidecar.readiness().1["identity"].is_string().then_some(()));
        let answer = tls::get(inbound, &caller, "/");

        assert_eq!(sidecar.readiness().0, 503, "{name}");
        assert!(!matches!(&answer, Ok(answer) if answer.status < 400), "{name}: {answer:?}");
        assert!(peak(sidecar.process.pid()) < PEAK_KILOBYTES, "{name}: {}", peak(sidecar.process.pid()));
        let config = root.path().join(&name).join("proxy.yaml").display().to_string();
        let told = run(&["proxy", "check", "--config", &config]);
        assert!(matches!(told.code, 2 | 3), "{name}: {}", told.code);
        assert!(format!("{}{}", told.stdout, told.stderr).contains(flaw.said), "{name}: {}", told.stdout);
        assert_eq!(sidecar.process.terminate().code(), Some(0), "{name}");
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_reload_of_a_flawed_directory_is_refused_whole_and_disturbs_nobody() {
    let callee = Callee::http();
    let directory = callee.sidecar.directory().join("policies");
    let (to, from) = (callee.authority.id(SERVER), callee.authority.id(CALLER));
    callee.sidecar.policy("good.yaml", &allow_all("good", &to, &from, "http", callee.inbound.port()));
    let socket = callee.sidecar.admin_socket().display().to_string();
    let reload = || run(&["proxy", "reload", "--admin", &socket]);
    reload().expect(0);
    let generation = callee.sidecar.generation();

    for flaw in &FLAWS {
        (flaw.make)(&directory);
        let start = Instant::now();
        let told = reload();

        let (name, all) = (flaw.name, format!("{}{}", told.stdout, told.stderr));
        assert_eq!(told.code, 2, "{name}: {all}");
        assert!(all.contains(flaw.said), "{name}: no {:?} in {all}", flaw.said);
        assert!(start.elapsed() < SOON, "{name} took {:?}", start.elapsed());
        assert_eq!(tls::get(callee.inbound, &callee.caller, "/").unwrap().status, 200, "{name}");
        assert_eq!(callee.sidecar.generation(), generation, "{name}");
        remove_flaw(&directory);
        reload().expect(0);
    }
    let peak = peak(callee.sidecar.process.pid());
    assert!(peak < PEAK_KILOBYTES, "{peak} kB");
}

fn remove_flaw(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if !entry.file_name().as_bytes().starts_with(b"bad") {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
}

/// The most memory that a process has needed, in kilobytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_file_that_this_user_may_not_read_is_named_and_nothing_of_the_directory_counts() {
    let root = tempfile::tempdir().unwrap();
    let closed = root.path().join("closed.yaml");
    fs::write(root.path().join("good.yaml"), good()).unwrap();
    fs::write(&closed, good().replace("name: good", "name: closed")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();

    let told = ended(unprivileged(&["policy", "check", &root.path().display().to_string()])).expect(2);

    assert!(told.stderr.contains("closed.yaml: cannot be read"), "{}", told.stderr);
    assert_eq!(told.stdout, "");
}

/// A command without root's right to read every file.
fn unprivileged(words: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return clean(Command::new(binary()), words);
    }
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]).arg(binary());
    clean(command, words)
}

#[test]
fn a_directory_that_is_emptied_and_filled_while_it_is_read_is_read_whole_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let emptied = path.clone();
    let emptying = std::thread::spawn(move || {
        let policy = |number: usize| good().replace("name: good", &format!("name: p{number}"));
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            (0..50).for_each(|number| {
                let (hidden, shown) = (emptied.join(".new"), emptied.join(format!("{number}.yaml")));
                fs::write(&hidden, policy(number)).unwrap();
                fs::rename(hidden, shown).unwrap();
            });
            std::thread::sleep(Duration::from_millis(40));
            (0..50).for_each(|number| fs::remove_file(emptied.join(format!("{number}.yaml"))).unwrap());
        }
    });

    for _ in 0..40 {
        let told = run(&["policy", "check", &path.display().to_string(), "-o", "jsonl"]);

        match told.code {
            0 => assert!(!told.json_lines().is_empty()),
            2 => assert!(
                !told.stderr.is_empty() || told.json_lines().iter().all(|line| line["message"].is_string())
            ),
            code => panic!("{code}: {}", told.stderr),
        }
    }

    drop(stop);
    emptying.join().unwrap();
}

/// What is read, what is not and what it comes to is the same offline.
#[test]
fn a_check_reads_a_directory_as_the_sidecar_does_key_sets_and_mounts_included() {
    let callee = Callee::http();
    let directory = callee.sidecar.directory().join("policies");
    let mount = directory.join("..2026_11_23");
    fs::create_dir(&mount).unwrap();
    fs::write(mount.join("keys.json"), KEYS).unwrap();
    fs::write(
        mount.join("tokens.yml"),
        format!(
            "vouchsafe: policy/v1\nname: tokens\nprotects: {}\nissuers: [{{issuer: \"https://i.test\", keys: {{file: keys.json}}}}]\n",
            callee.authority.id("/ns/shop/sa/other")
        ),
    )
    .unwrap();
    symlink("..2026_11_23", directory.join("..data")).unwrap();
    for name in ["tokens.yml", "keys.json"] {
        symlink(format!("..data/{name}"), directory.join(name)).unwrap();
    }
    for name in [".hidden.yaml", "notes.txt", "old.yaml~", "old.yaml.bak"] {
        fs::write(directory.join(name), "nonsense: [").unwrap();
    }
    let socket = callee.sidecar.admin_socket().display().to_string();
    run(&["proxy", "reload", "--admin", &socket]).expect(0);

    let told = run(&["policy", "check", &directory.display().to_string(), "-o", "json"]).expect(0).json();

    assert_eq!(told["generation"], callee.sidecar.generation());
    let files: Vec<_> = told["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(files, ["api", "tokens"]);
    fs::write(mount.join("keys.json"), "{\"keys\": [").unwrap();
    let told = run(&["policy", "check", &directory.display().to_string()]).expect(2);
    assert!(told.stderr.contains("keys.json"), "{}", told.stderr);
    let refused = run(&["proxy", "reload", "--admin", &socket]).expect(2);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("keys.json"), "{}", refused.stdout);
}

/// The key of RFC 7515, A.3.
const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "a",
 "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
