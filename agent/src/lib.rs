//! One per node: attests itself to the CA and local processes to itself, and keeps their SVIDs fresh.
//!
//! One task, [`run()`]'s synchroniser, writes the state of the node; sockets watch it. Nothing expired is handed out,
//! nothing is handed out before the kernel said who asks, and what cannot be decided is refused.

pub mod attestor;
pub mod client;
pub mod config;
pub mod entry;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod matching;
pub mod renewal;
pub mod selector;
pub mod state;
pub mod view;

mod admission;
mod attested;
mod check;
mod health;
mod limits;
mod monitor;
mod node;
mod policies;
mod policy_delivery;
mod prepare;
mod run;
mod server;
mod services;
mod socket;
mod store;
mod sync;
mod upstream;
mod whoami;
mod wire;
mod workload_api;

#[cfg(test)]
mod fixtures;

pub use check::{Finding, check};
pub use config::Config;
pub use run::{Ready, RunError, run};
