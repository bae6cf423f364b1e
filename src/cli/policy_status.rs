//! Arguments of `vouchsafe policy status`.

use clap::Args;

use super::Output;
use super::ca::Admin;

/// Arguments of `policy status`.
#[derive(Debug, Args)]
pub(crate) struct PolicyStatus {
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}
