//! `nft` and `ip`, called without a shell: words of ours, and the rules on standard input.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Why a command did not do what it was called for.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("`{tool}` is not installed: install the package {package}")]
    Missing {
        /// The command.
        tool: &'static str,
        /// What brings it on Debian and most other systems.
        package: &'static str,
    },
    /// It cannot be run.
    #[error("`{tool}` cannot be run")]
    Run {
        /// The command.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The process has no right to.
    #[error(
        "the kernel does not let this process change the rules: run it as root in the workload's network namespace, or \
         with CAP_NET_ADMIN (in Kubernetes `capabilities: {{add: [NET_ADMIN]}}` of the init container)"
    )]
    NotPermitted,
    /// It refused, and said why.
    #[error("`{tool}` refused: {said}")]
    Refused {
        /// The command.
        tool: &'static str,
        /// What it said.
        said: String,
    },
    /// It said yes, and yet something is not as it should be.
    #[error("the {what} is not in force after all: {found}")]
    NotInForce {
        /// The thing.
        what: &'static str,
        /// What is wrong with it.
        found: String,
    },
}

/// Runs `nft` and returns what it printed.
pub(super) fn nft(words: &[&str], input: &str) -> Result<String, ToolError> {
    run("nft", "nftables", words, input)
}

/// Runs `ip` and returns what it printed.
pub(super) fn ip(words: &[&str]) -> Result<String, ToolError> {
    run("ip", "iproute2", words, "")
}

fn run(tool: &'static str, package: &'static str, words: &[&str], input: &str) -> Result<String, ToolError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ToolError::Missing { tool, package },
        _ => ToolError::Run { tool, source },
    };
    let mut command = Command::new(tool);
    // What it says is compared: in no other language.
    command
        .args(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read to the end says itself what is wrong.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Operation not permitted") {
        return Err(ToolError::NotPermitted);
    }
    let said: Vec<&str> =
        said.lines().map(str::trim).filter(|line| !line.is_empty()).take(MAX_SAID).collect();
    Err(ToolError::Refused { tool, said: said.join("; ") })
}

/// Lines of an error that are repeated.
const MAX_SAID: usize = 6;
