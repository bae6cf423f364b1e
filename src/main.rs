//! The `vouchsafe` binary: the command line, and the wiring of the crates under it.
//!
//! No rule of the domain lives here; a command reads its arguments, calls one crate and prints.

mod cli;
mod commands;
mod cure;
mod daemon;
mod dev;
mod exit;
mod logging;
mod output;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use owo_colors::OwoColorize as _;

use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    identity::crypto::install_default();
    let cli = cli::Cli::parse();
    logging::colours(cli.global.color);
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_closed_output() => Exit::Done.into(),
        Err(failure) => {
            report(&failure);
            failure.exit().into()
        }
    }
}

fn report(failure: &Failure) {
    let mut to = output::stderr();
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(to, "{} {}", "error:".red().bold(), failure.describe());
    if let Some(cure) = failure.cure() {
        let _ = writeln!(to, "{} {cure}", "try:".green().bold());
    }
}
