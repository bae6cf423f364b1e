//! The control plane: attests nodes, keeps the registry, issues X.509-SVIDs and publishes the trust bundle.
//!
//! Speaks SPIRE's server API, so that SPIRE's agents, command line and controllers work against it,
//! and a push stream of its own. [`run`] is the daemon, [`client`] talks to its admin socket.

use std::time::SystemTime;

pub mod authority;
pub mod catalogue;
pub mod client;
pub mod config;
pub mod entries;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod health;
pub mod issue;
pub mod model;
pub mod policies;
pub mod registry;
pub mod schedule;
pub mod store;

mod access;
mod lock;
mod metrics;
mod rate;
mod run;
mod serve;
mod services;
mod shares;
mod watching;
mod wire;

pub use config::Config;
pub use run::{CheckError, Ready, RunError, check, run};

/// An error and everything that caused it, in one line for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A moment as people and logs read it, RFC 3339 in UTC.
pub(crate) fn when(time: SystemTime) -> String {
    let time = issue::whole_seconds(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| time.to_string())
}
