//! Asking a running sidecar about itself: whether it is ready, what another configuration would change, and to end.
//!
//! The answers have one shape, which the sidecar writes and the commands of `vouchsafe proxy` read.

mod asking;

pub use asking::{Address, Readiness, quit, readiness, reconfigure};
pub(crate) use asking::{PREVIEW, QUIT, RELOAD};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// What an operator asks for.
#[derive(Debug)]
pub(crate) struct AskConfig {
    pub(crate) dry_run: bool,
    pub(crate) reply: oneshot::Sender<Reconfigured>,
}

/// What a reload of the configuration came to, or would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconfigured {
    /// Whether this is what would happen, and nothing has.
    pub dry_run: bool,
    /// Whether the file is accepted. Otherwise what was in force stays.
    pub accepted: bool,
    /// Whether anything came into force.
    pub changed: bool,
    /// The generation of the file: the first digits of its SHA-256; absent where it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The generation that was in force.
    pub previous: String,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Listeners that were opened.
    pub added: Vec<String>,
    /// Listeners that accept no more.
    pub removed: Vec<String>,
    /// Listeners that serve new connections in another way.
    pub changed_listeners: Vec<String>,
    /// Keys that came into force and are no listeners.
    pub settings: Vec<String>,
    /// Keys that stay as they were until the next start.
    pub needs_restart: Vec<String>,
}
