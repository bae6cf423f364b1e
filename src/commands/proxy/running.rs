//! The sidecar that runs: where it answers, and what becomes of a question that it does not answer.

use std::path::{Path, PathBuf};

use proxy::Config;
use proxy::lifecycle::Address;
use proxy::reload::AskError;

use crate::cli::proxy::lifecycle::Running;
use crate::commands::config;
use crate::exit::{Exit, Failure};

/// Where the sidecar answers to anybody.
pub(super) fn address(running: &Running) -> Result<Address, Failure> {
    if let Some(admin) = &running.admin {
        let address = admin.to_str().and_then(|text| text.parse().ok());
        return Ok(address.map_or_else(|| Address::Unix(path(admin)), Address::Tcp));
    }
    let file = file(running)?;
    let admin = config::load(file, Config::parse)?.admin;
    of(&admin).ok_or_else(|| {
        let message = format!("{} names no admin interface: add `admin: {{socket: PATH}}`", file.display());
        Failure::because(Exit::Unacceptable, message)
    })
}

/// Where a sidecar of this configuration answers.
pub(super) fn of(admin: &proxy::config::Admin) -> Option<Address> {
    admin.socket.clone().map(Address::Unix).or(admin.listen.map(Address::Tcp))
}

/// Where the sidecar answers to operators.
pub(super) fn socket(running: &Running) -> Result<PathBuf, Failure> {
    if let Some(admin) = &running.admin {
        return Ok(path(admin));
    }
    let file = file(running)?;
    config::load(file, Config::parse)?.admin.socket.ok_or_else(|| {
        let message = format!(
            "{} names no admin socket: add `admin: {{socket: PATH}}` and restart the sidecar",
            file.display()
        );
        Failure::because(Exit::Unacceptable, message)
    })
}

fn file(running: &Running) -> Result<&Path, Failure> {
    let missing = || Failure::because(Exit::Unacceptable, "name the sidecar with --admin or --config");
    running.config.as_deref().ok_or_else(missing)
}

/// The form in which sockets are named elsewhere is understood as well.
fn path(admin: &Path) -> PathBuf {
    let written = admin.to_str().and_then(|text| text.strip_prefix("unix:"));
    let path = written.map(|path| path.strip_prefix("//").unwrap_or(path));
    path.map_or_else(|| admin.to_owned(), PathBuf::from)
}

/// What becomes of a question without an answer.
pub(super) fn failure(cause: AskError) -> Failure {
    let exit = match &cause {
        AskError::Unreachable { .. } | AskError::Timeout | AskError::Broken(_) => Exit::Unreachable,
        AskError::Denied { .. } => Exit::Denied,
        AskError::Failed { .. } | AskError::Body { .. } | AskError::Answer(_) => Exit::Failed,
    };
    Failure::new(exit, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(admin: &str) -> Running {
        Running { admin: Some(PathBuf::from(admin)), config: None }
    }

    #[test]
    fn the_socket_may_be_written_as_an_address() {
        for admin in ["/run/a.sock", "unix:///run/a.sock", "unix:/run/a.sock"] {
            assert_eq!(socket(&running(admin)).unwrap(), PathBuf::from("/run/a.sock"), "{admin}");
            assert_eq!(address(&running(admin)).unwrap(), Address::Unix("/run/a.sock".into()), "{admin}");
        }
    }

    #[test]
    fn an_address_on_loopback_is_no_path() {
        let admin = address(&running("127.0.0.1:15000")).unwrap();

        assert_eq!(admin, Address::Tcp(([127, 0, 0, 1], 15_000).into()));
    }
}
