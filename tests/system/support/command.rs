//! Running the `vouchsafe` command to its end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_vouchsafe"))
}

/// The binary under another path, so that the agent can tell its processes apart.
pub(crate) fn binary_as(path: &Path) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if std::fs::hard_link(binary(), path).is_err() {
        std::fs::copy(binary(), path).unwrap();
    }
    path.to_owned()
}

/// A `vouchsafe` command that sees none of this test's environment variables of its own.
pub(crate) fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    clean(Command::new(binary()), arguments)
}

/// Gives a command its arguments and takes the environment that configures vouchsafe away.
pub(crate) fn clean<S: AsRef<OsStr>>(mut command: Command, arguments: &[S]) -> Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("VOUCHSAFE_") || name_text == "SPIFFE_ENDPOINT_SOCKET" {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1").args(arguments);
    command
}

/// What a command that ended left.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?} {:?}", self.stdout, self.stderr))
    }

    /// One JSON value a line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Runs `vouchsafe` with these arguments until it ends.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    ended(command(arguments))
}

/// Runs a command until it ends; one that does not within the limit is killed and fails the test.
#[track_caller]
pub(crate) fn ended(mut command: Command) -> Ended {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = reader(child.stdout.take().unwrap());
    let stderr = reader(child.stderr.take().unwrap());
    let end = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => {
                let _gone = child.kill();
                let _gone = child.wait();
                panic!("{command:?} did not end: {} {}", stdout.join().unwrap(), stderr.join().unwrap());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Ended { code: status.code().unwrap_or(-1), stdout, stderr }
}

/// Reads all of a child's output, so that it never waits for a full pipe.
fn reader(mut from: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The longest that a command may take: the tour and the Go peer take longest.
const LIMIT: Duration = Duration::from_secs(200);
