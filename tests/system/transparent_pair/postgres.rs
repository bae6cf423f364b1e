//! PostgreSQL of the distribution, and its own clients.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::command::{Ended, ended};
use crate::support::process::Process;
use crate::support::wait::eventually;

/// A running server on every address of the host where it was started.
pub(super) struct Postgres {
    bin: PathBuf,
    _process: Process,
}

impl Postgres {
    pub(super) fn start(root: &Path) -> Self {
        let bin = bin();
        let data = root.join("postgres");
        std::fs::create_dir(&data).unwrap();
        // It does not run as root, and has to reach its own directory.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711)).unwrap();
        let [user, group] = ["-u", "-g"].map(number);
        chown(&data, Some(user), Some(group)).unwrap();
        let as_postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
                .arg(bin.join(program));
            command.current_dir("/").arg("-D").arg(&data);
            command
        };
        let mut made = as_postgres("initdb");
        made.args(["--auth=trust", "--username=postgres", "--no-sync"]);
        ended(made).expect(0);
        std::fs::write(data.join("pg_hba.conf"), "host all all all trust\n").unwrap();
        let mut server = as_postgres("postgres");
        server.args([
            "-p",
            &PORT.to_string(),
            "-c",
            "listen_addresses=0.0.0.0,::",
            "-c",
            "unix_socket_directories=",
        ]);
        server.args(["-c", "fsync=off"]);
        let mut process = Process::start("postgres", root, server);
        eventually("PostgreSQL takes connections", || {
            process.must_run();
            process.log().contains("ready to accept connections").then_some(())
        });
        Self { bin, _process: process }
    }

    /// Runs one statement at `address`.
    pub(super) fn psql(&self, address: SocketAddr, statement: &str) -> Ended {
        let mut command = self.client("psql", address);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        ended(command)
    }

    /// Fills tables and runs transactions of several connections at once.
    pub(super) fn bench(&self, address: SocketAddr) -> Ended {
        let mut fill = self.client("pgbench", address);
        fill.args(["--initialize", "--quiet"]);
        ended(fill).expect(0);
        let mut run = self.client("pgbench", address);
        run.args(["--client=4", "--transactions=50"]);
        ended(run)
    }

    fn client(&self, name: &str, address: SocketAddr) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-U", "postgres"]);
        command.env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "20");
        command
    }
}

/// Where the programs of the newest installed version lie.
fn bin() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: tests/run.sh installs it");
    let mut all: Vec<_> = versions
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    all.sort();
    all.pop().expect("a server of PostgreSQL")
}

/// The number of the user, or the group, of PostgreSQL.
fn number(of: &str) -> u32 {
    let mut command = Command::new("id");
    command.args([of, "postgres"]);
    ended(command).expect(0).stdout.trim().parse().unwrap()
}

/// Where it listens.
pub(super) const PORT: u16 = 5432;
