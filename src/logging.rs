//! Where log lines go: to standard error, as text or JSON, filtered as VOUCHSAFE_LOG says.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;

use crate::cli::{Colour, Global, LogFormat};
use crate::exit::{Exit, Failure, OrExit as _};

/// Starts logging; called once. `usual` is the filter where none is given.
pub(crate) fn start(global: &Global, usual: &str) -> Result<(), Failure> {
    let wanted = global.log.as_deref().unwrap_or(usual);
    let filter = EnvFilter::try_new(wanted)
        .map_err(|cause| {
            anyhow::Error::new(cause).context(format!("log filter {wanted:?} is not understood"))
        })
        .or_exit(Exit::Unacceptable)?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => lines.with_ansi(coloured(global.color)).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|cause| Failure::because(Exit::Failed, format!("logging cannot start: {cause}")))
}

/// Applies the wish for colours to everything that is printed.
pub(crate) fn colours(wish: Colour) {
    match wish {
        Colour::Auto => anstream::ColorChoice::Auto,
        Colour::Always => anstream::ColorChoice::Always,
        Colour::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

fn coloured(wish: Colour) -> bool {
    match wish {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// What daemons log unless told otherwise.
pub(crate) const DAEMON: &str = "info";

/// What other commands log unless told otherwise.
pub(crate) const COMMAND: &str = "warn";
