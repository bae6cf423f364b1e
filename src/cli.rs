//! The command line as types. Nothing here does anything: each command's arguments are handed
//! to the function of the same name under `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod daemon;
pub(crate) mod dev;
pub(crate) mod duration;
pub(crate) mod entry;
pub(crate) mod moment;
pub(crate) mod policy;
pub(crate) mod policy_status;
pub(crate) mod proxy;
pub(crate) mod service;
pub(crate) mod svid;
pub(crate) mod why;

use crate::output::Format;

/// SPIFFE identity and a zero-trust sidecar in one binary.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", version, max_term_width = 100)]
#[command(after_help = AFTER_HELP)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// When to use colours: `auto`, which honours NO_COLOR, `always` or `never`
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    #[arg(hide_possible_values = true, help_heading = COMMON)]
    pub(crate) color: Colour,
    /// Which log lines are written to stderr, as `level` or `target=level,...`
    // Not `--log`: that is the audit log of the commands that read one.
    #[arg(long = "log-filter", global = true, env = "VOUCHSAFE_LOG", value_name = "FILTER")]
    #[arg(help_heading = COMMON)]
    pub(crate) log: Option<String>,
    /// How log lines are written: `text` or `json`
    #[arg(long, global = true, env = "VOUCHSAFE_LOG_FORMAT", value_enum)]
    #[arg(default_value_t = LogFormat::Text, value_name = "FORMAT")]
    #[arg(hide_possible_values = true, help_heading = COMMON)]
    pub(crate) log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The control plane: attests nodes, keeps the registry, issues identities
    Ca(ca::Ca),
    /// One per host: proves itself to the CA and local processes to itself
    Agent(agent::Agent),
    /// One per workload: mutual TLS on the wire, a decision on every connection and request
    Proxy(proxy::Proxy),
    /// Fetch this process's identity from the agent
    Svid(svid::Svid),
    /// Show how the agent sees a process, and why it has the identities it has
    Whoami(agent::Whoami),
    /// Check, test and explain policy files, offline
    Policy(policy::Policy),
    /// Say why a call passes or not: registration, SVID, bundle, listener and rule in one answer
    ///
    /// What could not be asked is said. Exits 0 when nothing that was asked stops the call, 4 when something does, and 1 when the
    /// policies could not be asked.
    Why(Box<why::Why>),
    /// Read the audit log
    Audit(audit::Audit),
    /// Run everything on this machine and watch one call pass and another be refused
    Dev(dev::Dev),
    /// The HTTP services of `vouchsafe dev`
    #[command(hide = true)]
    DevService(dev::DevService),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  vouchsafe completion bash > /etc/bash_completion.d/vouchsafe")]
    Completion(Completion),
    /// Print the manual page, or write one page per command
    #[command(after_help = "Example:\n  vouchsafe man --out /usr/local/share/man/man1")]
    Man(Man),
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// The shells that a completion script can be printed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for every command into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// How to print: `table` for people, `json` for one document, `jsonl` for one object a line
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    #[arg(env = "VOUCHSAFE_OUTPUT", value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) format: Format,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal that wants them
    Auto,
    /// Whatever the output is
    Always,
    /// Not at all
    Never,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

const COMMON: &str = "Common options";

const AFTER_HELP: &str = "\
Start here:
  vouchsafe dev --once

Exit codes:
  0  done
  1  failed
  2  wrong usage, or an input that cannot be accepted; nothing was changed
  3  a check or comparison found something
  4  denied
  5  the CA, the agent or another peer cannot be reached

A flag beats an environment variable VOUCHSAFE_*, which beats the configuration file, which
beats the default.";

#[cfg(test)]
mod tests;
