//! How a command ends: the exit codes, and a failure that carries one.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

/// The ways a command ends, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for was done.
    Done,
    /// It was tried and did not work.
    Failed,
    /// The command line or an input cannot be accepted; nothing was changed.
    Unacceptable,
    /// A check or a comparison found something.
    Found,
    /// The answer is: denied.
    Denied,
    /// The CA, the agent or another peer cannot be reached.
    Unreachable,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Unacceptable => 2,
            Self::Found => 3,
            Self::Denied => 4,
            Self::Unreachable => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do what was asked, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

impl Failure {
    /// A failure with its code.
    pub(crate) fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> Self {
        Self { exit, cause: cause.into() }
    }

    /// A failure that is only a sentence.
    pub(crate) fn because(exit: Exit, sentence: impl Into<String>) -> Self {
        Self::new(exit, anyhow::Error::msg(sentence.into()))
    }

    /// The code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// True when the reader of our output went away, which is not worth a message.
    ///
    /// Writing output fails with the bare error. One that lies deeper is a peer that went away in the
    /// middle of a call, and what was asked of it may not have been done.
    pub(crate) fn is_closed_output(&self) -> bool {
        let output = self.cause.downcast_ref::<std::io::Error>();
        self.cause.source().is_none()
            && output.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// What to do about it, where that is known.
    pub(crate) fn cure(&self) -> Option<&'static str> {
        crate::cure::of(self.cause.chain())
    }

    /// The message and, below it, each cause that adds something.
    pub(crate) fn describe(&self) -> String {
        describe(self.cause.as_ref())
    }
}

/// Spells an error and its causes, one a line, leaving out a cause that its parent repeats.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let sentence = next.to_string();
        if !text.contains(&sentence) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  because {sentence}");
        }
        cause = next.source();
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self::new(Exit::Failed, cause)
    }
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::new(Exit::Failed, cause)
    }
}

/// Gives an error its exit code.
pub(crate) trait OrExit<T> {
    /// Turns the error into a failure that exits with `exit`.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(exit, cause))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_codes_are_those_of_the_manual() {
        let codes =
            [Exit::Done, Exit::Failed, Exit::Unacceptable, Exit::Found, Exit::Denied, Exit::Unreachable]
                .map(Exit::code);

        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn an_error_without_a_code_exits_1() {
        assert_eq!(Failure::from(anyhow::anyhow!("no")).exit(), Exit::Failed);
    }

    #[test]
    fn every_cause_is_told_once() {
        let error = Err::<(), _>(io::Error::other("disk on fire"))
            .context("cannot write key.pem")
            .or_exit(Exit::Failed)
            .unwrap_err();

        assert_eq!(error.describe(), "cannot write key.pem\n  because disk on fire");
    }

    #[test]
    fn a_cause_that_the_message_repeats_is_left_out() {
        let error = Err::<(), _>(io::Error::other("disk on fire"))
            .context("cannot write: disk on fire")
            .or_exit(Exit::Failed)
            .unwrap_err();

        assert_eq!(error.describe(), "cannot write: disk on fire");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));

        assert!(error.is_closed_output());
    }

    #[test]
    fn a_peer_that_went_away_in_a_call_is_a_failure() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe))
            .context("the CA did not answer")
            .or_exit(Exit::Unreachable)
            .unwrap_err();

        assert!(!error.is_closed_output());
    }
}
