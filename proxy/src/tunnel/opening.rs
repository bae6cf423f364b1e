//! What is asked of a tunnel, and why it was not given.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use audit::{Reason, Stage};
use identity::SpiffeId;

use crate::state::Identity;

/// A connection that is to be opened through a tunnel.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) identity: Arc<Identity>,
    /// Who may be at the end of it.
    pub(crate) expected: Arc<[SpiffeId]>,
    /// Where it leads.
    pub(crate) endpoint: SocketAddr,
    /// The port of the endpoint's tunnels.
    pub(crate) port: u16,
}

/// Why a connection was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the endpoint's port for tunnels cannot be connected to")]
    Connect(#[source] Arc<io::Error>),
    #[error("opening a tunnel took too long")]
    TimedOut,
    #[error("tunnel endpoint proved no expected identity: {reason}")]
    Rejected { reason: &'static str },
    #[error("handshake of a tunnel failed: {reason}")]
    Handshake { reason: &'static str },
    #[error("the endpoint speaks TLS, and no HBONE")]
    NoTunnel,
    #[error("the endpoint's policy forbids the connection")]
    Denied,
    #[error("the endpoint's application cannot be reached")]
    Unreachable,
    #[error("the endpoint takes no connection to this address")]
    Refused { status: u16 },
    #[error("the tunnel broke")]
    Broken(#[source] Arc<h2::Error>),
    #[error("our own identity changed meanwhile")]
    Outdated,
}

impl OpenError {
    /// Whether the endpoint offers no tunnel at all: nothing listens there, or something that is no HBONE.
    pub(crate) fn is_no_tunnel(&self) -> bool {
        match self {
            Self::NoTunnel => true,
            Self::Connect(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            Self::TimedOut
            | Self::Rejected { .. }
            | Self::Handshake { .. }
            | Self::Denied
            | Self::Unreachable
            | Self::Refused { .. }
            | Self::Broken(_)
            | Self::Outdated => false,
        }
    }

    /// Whether nobody has decided anything about the connection: another tunnel may carry it.
    pub(super) fn is_of_the_tunnel(&self) -> bool {
        match self {
            Self::Outdated => true,
            Self::Broken(error) => !error.is_reset() || error.reason() == Some(h2::Reason::REFUSED_STREAM),
            _ => false,
        }
    }

    /// Returns the refusal that this is, where somebody was refused: the peer by us, or we by the peer.
    pub(super) fn refusal(&self) -> Option<(Stage, Reason)> {
        match self {
            Self::Rejected { reason } => Some((Stage::Handshake, Reason::HandshakeFailed(reason))),
            Self::Denied => Some((Stage::Connect, Reason::NotPermitted("refused_by_peer"))),
            Self::Connect(_)
            | Self::TimedOut
            | Self::Handshake { .. }
            | Self::NoTunnel
            | Self::Unreachable
            | Self::Refused { .. }
            | Self::Broken(_)
            | Self::Outdated => None,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect_failed",
            Self::TimedOut => "connect_timeout",
            Self::Rejected { .. } => "peer_rejected",
            Self::Handshake { .. } => "handshake_failed",
            Self::NoTunnel => "no_tunnel",
            Self::Denied => "refused_by_peer",
            Self::Unreachable => "tunnel_unreachable",
            Self::Refused { .. } => "tunnel_refused",
            Self::Broken(_) | Self::Outdated => "tunnel_broken",
        }
    }
}

/// The limits of opening a tunnel and a stream in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) handshake: Duration,
}
