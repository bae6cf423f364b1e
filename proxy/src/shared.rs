//! What every listener of one proxy shares.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    config::Limits, handshakes::Handshakes, live::Registry, metrics::Metrics, services::Services,
    state::State, telemetry::Telemetry,
};

/// Shared by all listeners. Nothing in it is changed through it, save what its parts allow.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) registry: Registry,
    /// Where calls may go.
    pub(crate) services: Arc<Services>,
    pub(crate) log: audit::Log,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) limits: Limits,
    /// Room for TLS handshakes.
    pub(crate) handshakes: Arc<Handshakes>,
    /// How our own sockets are made.
    pub(crate) way: crate::transparent::Way,
    /// Set when connections are to finish.
    pub(crate) drain: CancellationToken,
}
