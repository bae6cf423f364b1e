//! Attack case 49: the clock of a running sidecar steps forth and back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::command::{binary, clean, ended};
use crate::support::pki::{Authority, Identity, ago, hence, leaf};
use crate::support::port;
use crate::support::process::Process;
use crate::support::sidecar::{CALLER, SERVER, Setup, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::tls;
use crate::support::wait::{eventually, throughout};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_clock_that_steps_an_hour_forth_and_back_accepts_nobody_it_should_not_and_ends_nothing() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    let spanning = |path: &str, before: u32, after: u32| -> Identity {
        let mut params = leaf(&authority.id(path));
        (params.not_before, params.not_after) = (ago(HOUR * before), hence(HOUR * after));
        authority.issue(params)
    };
    let half = |path: &str| {
        let mut params = leaf(&authority.id(path));
        (params.not_before, params.not_after) = (ago(HOUR / 2), hence(HOUR / 2));
        authority.issue(params)
    };
    spanning(SERVER, 1, 10).write(&root.path().join("pem"), &authority);
    let (lasting, brief) = (spanning(CALLER, 1, 10), half(CALLER));
    let (inbound, echo) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port::free())), Backend::echo());
    let policy = allow_all("api", &authority.id(SERVER), &authority.id(CALLER), "tcp", inbound.port());
    write_policy(&root.path().join("api"), "api.yaml", &policy);
    let setup = Setup::new("api").pem(&root.path().join("pem")).inbound("tcp", inbound, echo.address());
    setup.start(root.path()).process.terminate();
    let step = root.path().join("api/policies/step");
    set(&step, "+0");
    let mut stepping =
        Process::start("stepping", root.path(), stepping(&step, &root.path().join("api/proxy.yaml")));
    let mut long = eventually("the sidecar serves", || reach(inbound, &lasting).ok());
    assert!(reach(inbound, &brief).is_ok());

    set(&step, "+3600");

    eventually("whoever has expired is refused", || reach(inbound, &brief).err());
    throughout(Duration::from_secs(1), "others are served, and none of the expired", || {
        reach(inbound, &lasting).is_ok() && reach(inbound, &brief).is_err() && ping(&mut long).is_ok()
    });
    set(&step, "-3000");
    eventually("whoever is of the future is refused", || reach(inbound, &brief).err());
    throughout(Duration::from_secs(1), "what lives goes on", || ping(&mut long).is_ok());
    set(&step, "+0");

    eventually("everybody is served again", || {
        (reach(inbound, &brief).is_ok() && reach(inbound, &lasting).is_ok()).then_some(())
    });
    ping(&mut long).unwrap();
    stepping.must_run();
    assert!(!stepping.log().contains("panicked"), "{}", stepping.log());
}

fn reach(inbound: SocketAddr, identity: &Identity) -> std::io::Result<tls::Client> {
    let mut client = tls::connect(inbound, Some(identity))?;
    ping(&mut client)?;
    Ok(client)
}

fn ping(client: &mut tls::Client) -> std::io::Result<()> {
    client.write_all(b"ping")?;
    client.flush()?;
    client.read_exact(&mut [0; 4])
}

/// Replaces the difference to the true time, in seconds.
fn set(file: &Path, seconds: &str) {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, seconds).unwrap();
    std::fs::rename(&partial, file).unwrap();
}

/// A sidecar whose wall clock is what the file says whenever it is read; time that passes passes truly.
fn stepping(file: &Path, config: &Path) -> Command {
    // The command `faketime` fixes one difference for good; its library reads the file again and again.
    let told = ended(clean(Command::new("faketime"), &["-m", "-f", "+0", "printenv", "LD_PRELOAD"]));
    assert_eq!(told.code, 0, "faketime: {}", told.stderr);
    let mut command =
        clean(Command::new(binary()), &["proxy", "run", "--config", &config.display().to_string()]);
    command.env("LD_PRELOAD", told.stdout.trim()).env("FAKETIME_TIMESTAMP_FILE", file);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    command
}
