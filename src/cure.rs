//! What to do about the errors that the operating system gives most often.

use std::error::Error;
use std::io;

/// The advice for an error, taken from the first cause that is known.
pub(crate) fn of<'a>(causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> Option<&'static str> {
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(|cause| of_kind(cause.kind()))
}

fn of_kind(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::AddrInUse => Some(
            "`ss -ltnp` shows who listens there: stop it, or choose another address in the configuration",
        ),
        io::ErrorKind::AddrNotAvailable => {
            Some("`ip address` shows this machine's addresses: choose one of them in the configuration")
        }
        io::ErrorKind::PermissionDenied => {
            Some("run it as the user that owns these files, or change their owner or mode")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("`df -h` shows what is full: free some space; nothing was half written")
        }
        io::ErrorKind::ReadOnlyFilesystem => Some("choose a directory that can be written to"),
        io::ErrorKind::ConnectionRefused => {
            Some("nothing listens there: is the daemon running, and is this its address or socket?")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_the_command_that_shows_by_whom() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::AddrInUse)).context("cannot listen");

        assert!(of(error.chain()).unwrap().contains("ss -ltnp"));
    }

    #[test]
    fn an_error_without_a_known_cause_gets_no_advice() {
        assert_eq!(of(anyhow::anyhow!("no").chain()), None);
    }
}
