//! The sidecar: takes all traffic of its workload in and out, with mutual TLS on the wire, a decision about every
//! connection and request, and a record of every refusal.
//!
//! Work runs one way: a listener accepts, identity proves the peer, policy decides, audit records, a relay or an
//! HTTP session carries. What changes (identity, policies) is one snapshot with one writer ([`run`] owns it), and
//! after each change the live connections it concerns are decided again.

mod activity;
mod admin;
pub mod balance;
mod clock;
pub mod config;
mod confine;
mod control;
mod detect;
mod distribution;
mod handover;
mod handshakes;
mod http1;
mod http2;
mod inbound;
pub mod intercept;
mod jwt;
pub mod lifecycle;
mod listener;
mod live;
mod metrics;
mod outbound;
mod policies;
mod record;
mod relay;
pub mod reload;
mod run;
mod services;
mod shared;
mod source;
mod state;
mod stream;
pub mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transparent;
mod tunnel;
mod unreachable;
mod watching;
mod workers;
pub mod workload_api;

pub use config::{Config, PolicySource};
pub use confine::Confining;
#[cfg(fuzzing)]
pub use detect::fuzzing as detection;
pub use handover::HandoverError;
#[cfg(fuzzing)]
pub use http1::fuzzing;
#[cfg(fuzzing)]
pub use http2::fuzzing as streams;
pub use policies::LoadError;
pub use run::{Again, CheckError, Outside, Ready, RunError, TakeOver, check, run, run_with};
pub use source::SourceError;
#[cfg(fuzzing)]
pub use tunnel::fuzzing as tunnel_fuzzing;
pub use workers::MAX_WORKERS;
