//! Telling a program that its identity was renewed: by a command, or by a signal.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::process::Command;
use tracing::{error, info};

/// What is done after each new set of files.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Nothing.
    Silent,
    /// A command is run and waited for.
    Exec(String),
    /// The process whose number stands in the file is signalled.
    Signal(Signal, PathBuf),
    /// Both, the command first.
    Both(String, Signal, PathBuf),
}

/// A signal that programs reload on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Signal {
    /// SIGHUP
    Hup,
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGTERM
    Term,
}

/// Why a program was not told.
#[derive(Debug, thiserror::Error)]
enum NoticeError {
    #[error("`{command}` cannot be run: {cause}")]
    Run { command: String, cause: std::io::Error },
    #[error("`{command}` ended with {status}")]
    Ended { command: String, status: std::process::ExitStatus },
    #[error("`{command}` took longer than {} s and was ended", COMMAND_DEADLINE.as_secs())]
    Endless { command: String },
    #[error("{} cannot be read: {cause}", path.display())]
    PidFile { path: PathBuf, cause: std::io::Error },
    #[error("{} holds no process number", path.display())]
    NoPid { path: PathBuf },
    #[error("process {pid} cannot be signalled: {cause}")]
    Signal { pid: i32, cause: rustix::io::Errno },
}

impl Notice {
    /// What the arguments ask for.
    pub(crate) fn new(exec: Option<String>, signal: Option<Signal>, pid_file: Option<PathBuf>) -> Self {
        match (exec, signal.zip(pid_file)) {
            (None, None) => Self::Silent,
            (Some(command), None) => Self::Exec(command),
            (None, Some((signal, file))) => Self::Signal(signal, file),
            (Some(command), Some((signal, file))) => Self::Both(command, signal, file),
        }
    }

    /// Gives notice. What fails is logged: the next renewal gives notice again.
    pub(crate) async fn give(&self) {
        let outcome = match self {
            Self::Silent => return,
            Self::Exec(command) => exec(command).await,
            Self::Signal(wanted, file) => signal(*wanted, file),
            Self::Both(command, wanted, file) => exec(command).await.and_then(|()| signal(*wanted, file)),
        };
        match outcome {
            Ok(()) => info!("program was told of its new identity"),
            Err(cause) => error!(%cause, "program could not be told of its new identity"),
        }
    }
}

async fn exec(command: &str) -> Result<(), NoticeError> {
    let command = command.to_owned();
    let ended = Command::new("/bin/sh")
        .args(["-c", &command])
        .stdin(Stdio::null())
        // Standard output carries our data.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status();
    match tokio::time::timeout(COMMAND_DEADLINE, ended).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(NoticeError::Ended { command, status }),
        Ok(Err(cause)) => Err(NoticeError::Run { command, cause }),
        Err(_) => Err(NoticeError::Endless { command }),
    }
}

fn signal(signal: Signal, file: &PathBuf) -> Result<(), NoticeError> {
    let text =
        std::fs::read_to_string(file).map_err(|cause| NoticeError::PidFile { path: file.clone(), cause })?;
    let number = text.trim().parse::<i32>().ok().filter(|number| *number > 0);
    let pid = number.and_then(Pid::from_raw).ok_or_else(|| NoticeError::NoPid { path: file.clone() })?;
    let failed = |cause| NoticeError::Signal { pid: pid.as_raw_nonzero().get(), cause };
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(process, signal.into()).map_err(failed)
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Hup => Self::HUP,
            Signal::Usr1 => Self::USR1,
            Signal::Usr2 => Self::USR2,
            Signal::Term => Self::TERM,
        }
    }
}

/// How long a command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_run_and_its_failure_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");

        exec(&format!("touch {}", told.display())).await.unwrap();
        let failed = exec("exit 3").await.unwrap_err();

        assert!(told.exists());
        assert_eq!(failed.to_string(), "`exit 3` ended with exit status: 3");
    }

    #[tokio::test]
    async fn the_process_in_the_file_is_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(&file, format!("{}\n", child.id())).unwrap();

        signal(Signal::Term, &file).unwrap();

        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_file_without_a_process_number_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        for text in ["", "0", "-1", "one", "1 2"] {
            std::fs::write(&file, text).unwrap();
            assert!(matches!(signal(Signal::Hup, &file), Err(NoticeError::NoPid { .. })), "{text:?}");
        }
    }
}
