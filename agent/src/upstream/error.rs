//! How a call to the CA fails, and what that means for the node.

use identity::KeyError;
use proto::spire::api::types::permission_denied_details::Reason;
use tonic::{Code, Status};

use crate::wire::{self, ReceiveBundleError, ReceiveSvidError};

/// Why a call to the CA gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The CA does not know the method.
    #[error("the CA does not offer this method")]
    Unimplemented,
    /// The CA does not take this node for an agent.
    #[error("{0}")]
    Refused(Refusal),
    /// The CA answered with an error.
    #[error("the CA answered {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The CA did not answer in time.
    #[error("the CA did not answer in time")]
    Timeout,
    /// The CA answered something else than asked.
    #[error("the CA answered {what}")]
    Unexpected {
        /// What.
        what: &'static str,
    },
    /// The SVID cannot be used.
    #[error("the SVID from the CA cannot be used")]
    Svid(#[from] ReceiveSvidError),
    /// The trust bundle cannot be used.
    #[error("the trust bundle from the CA cannot be used")]
    Bundle(#[from] ReceiveBundleError),
    /// No certificate request could be made.
    #[error("cannot make a certificate request")]
    Key(#[from] KeyError),
}

/// Why the CA does not take this node for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was banned.
    #[error("the CA banned this node")]
    Banned,
    /// Its SVID expired.
    #[error("the node's SVID expired")]
    Expired,
    /// It was evicted, or the CA lost its memory.
    #[error("the CA does not know this node")]
    NotAttested,
    /// Another SVID of the node is in use: the node was cloned, or its state set back.
    #[error("the node's SVID was replaced by another one")]
    NotActive,
    /// It is to be attested again.
    #[error("the CA asks this node to attest again")]
    MustReattest,
}

impl CallError {
    /// Tells whether the CA answered and meant no, so that asking the same again is useless.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Status(status) => matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::NotFound
                    | Code::FailedPrecondition
                    | Code::AlreadyExists
            ),
            Self::Unimplemented | Self::Timeout | Self::Unexpected { .. } => false,
            Self::Svid(_) | Self::Bundle(_) | Self::Key(_) => false,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let reason = match status.code() {
            Code::Unimplemented => return Self::Unimplemented,
            Code::PermissionDenied | Code::Unauthenticated => wire::denial(status.details()),
            _ => None,
        };
        match reason {
            Some(Reason::AgentBanned) => Self::Refused(Refusal::Banned),
            Some(Reason::AgentExpired) => Self::Refused(Refusal::Expired),
            Some(Reason::AgentNotAttested) => Self::Refused(Refusal::NotAttested),
            Some(Reason::AgentNotActive) => Self::Refused(Refusal::NotActive),
            Some(Reason::AgentMustReattest) => Self::Refused(Refusal::MustReattest),
            Some(Reason::Unknown) | None => Self::Status(Box::new(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(reason: Reason) -> CallError {
        Status::with_details(Code::PermissionDenied, "no", wire::to_denial(reason).into()).into()
    }

    #[test]
    fn every_reason_of_spire_is_told_apart() {
        for (reason, refusal) in [
            (Reason::AgentBanned, Refusal::Banned),
            (Reason::AgentExpired, Refusal::Expired),
            (Reason::AgentNotAttested, Refusal::NotAttested),
            (Reason::AgentNotActive, Refusal::NotActive),
            (Reason::AgentMustReattest, Refusal::MustReattest),
        ] {
            assert!(matches!(denied(reason), CallError::Refused(found) if found == refusal));
        }
    }

    #[test]
    fn a_denial_without_a_known_reason_bans_nobody() {
        assert!(matches!(denied(Reason::Unknown), CallError::Status(_)));
        assert!(matches!(Status::permission_denied("agent is banned").into(), CallError::Status(_)));
        let garbage = Status::with_details(Code::PermissionDenied, "no", vec![0xff; 9].into());
        assert!(matches!(garbage.into(), CallError::Status(_)));
    }

    #[test]
    fn an_answer_that_cannot_come_is_no_refusal() {
        assert!(!CallError::from(Status::unavailable("gone")).is_refusal());
        assert!(!CallError::Timeout.is_refusal());
        assert!(CallError::from(Status::invalid_argument("join token was used")).is_refusal());
    }
}
