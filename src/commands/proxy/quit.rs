//! `vouchsafe proxy quit`: has a sidecar drain and end, as a Job does when its work is done.

use proxy::lifecycle::quit;

use super::running;
use crate::cli::proxy::lifecycle::ProxyQuit;
use crate::commands::block_on;
use crate::exit::{Exit, Failure};

/// Asks.
pub(super) fn run(args: &ProxyQuit) -> Result<Exit, Failure> {
    let socket = running::socket(&args.running)?;
    block_on(async { quit(&socket).await.map_err(running::failure) })?;
    Ok(Exit::Done)
}
