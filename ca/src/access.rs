//! Who may call what: one table, consulted before any method runs.
//!
//! A method that is not in the table does not exist. An agent counts only with a certificate that
//! the registry knows, in both phases of a renewal, and only while it is neither banned nor expired.

use std::time::SystemTime;

use identity::{Peer, SpiffeId};
use proto::spire::api::types::permission_denied_details::Reason;

use crate::{
    model::{Standing, unix_seconds},
    registry::SharedRegistry,
};

/// Where a call comes from, as far as the connection proves it.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The admin socket.
    Local { uid: u32, gid: u32 },
    /// The TLS listener.
    Remote { source: std::net::SocketAddr, peer: Option<Peer> },
}

/// A caller that may call the method at hand.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Somebody on the admin socket.
    Local { uid: u32, gid: u32 },
    /// An attested agent.
    Agent { id: SpiffeId, serial: String, phase: Phase },
    /// The holder of an entry with `admin`.
    Admin { id: SpiffeId },
    /// Anybody.
    Anybody,
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid, gid } => write!(f, "uid {uid} gid {gid}"),
            Self::Agent { id, .. } | Self::Admin { id } => id.fmt(f),
            Self::Anybody => f.write_str("anybody"),
        }
    }
}

/// Which of its certificates an agent shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The one that counts.
    Current,
    /// The one of a renewal, for the first time.
    Renewed,
}

/// A class of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Any,
    Local,
    Admin,
    Agent,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such method.
    Unknown,
    /// The caller is of none of the classes that may call it.
    NotAllowed,
    /// The caller says to be an agent and is not one that counts.
    Agent(Reason),
}

/// SPIRE's default policy, for the methods served here.
const TABLE: &[(&str, &[Class])] = &[
    ("/spire.api.server.agent.v1.Agent/AttestAgent", ANY),
    ("/spire.api.server.agent.v1.Agent/BanAgent", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/CountAgents", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/CreateJoinToken", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/DeleteAgent", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/GetAgent", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/ListAgents", OPERATORS),
    ("/spire.api.server.agent.v1.Agent/PostStatus", AGENTS),
    ("/spire.api.server.agent.v1.Agent/RenewAgent", AGENTS),
    ("/spire.api.server.bundle.v1.Bundle/CountBundles", OPERATORS),
    ("/spire.api.server.bundle.v1.Bundle/GetBundle", ANY),
    ("/spire.api.server.bundle.v1.Bundle/GetFederatedBundle", &[Class::Local, Class::Admin, Class::Agent]),
    ("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/BatchCreateEntry", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/CountEntries", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", AGENTS),
    ("/spire.api.server.entry.v1.Entry/GetEntry", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/ListEntries", OPERATORS),
    ("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", AGENTS),
    ("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", AGENTS),
    ("/spire.api.server.svid.v1.SVID/MintX509SVID", OPERATORS),
    ("/vouchsafe.v1.Policy/ListStatus", OPERATORS),
    ("/vouchsafe.v1.Policy/ReportStatus", AGENTS),
    ("/vouchsafe.v1.Policy/WatchPolicies", AGENTS),
    ("/vouchsafe.v1.Registry/WatchAuthorizedEntries", AGENTS),
    ("/vouchsafe.v1.Services/ApplyServices", OPERATORS),
    ("/vouchsafe.v1.Services/ListServiceStatus", OPERATORS),
    ("/vouchsafe.v1.Services/ListServices", OPERATORS),
    ("/vouchsafe.v1.Services/ReportServices", AGENTS),
    ("/vouchsafe.v1.Services/WatchServices", AGENTS),
];

const ANY: &[Class] = &[Class::Any];
const OPERATORS: &[Class] = &[Class::Local, Class::Admin];
const AGENTS: &[Class] = &[Class::Agent];

/// Tells as whom `origin` may call `method`, or why not.
pub(crate) fn authorise(
    method: &str,
    origin: &Origin,
    registry: &SharedRegistry,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    let (_, classes) = TABLE.iter().find(|(name, _)| *name == method).ok_or(Refusal::Unknown)?;
    let mut refusal = Refusal::NotAllowed;
    for class in *classes {
        match admit(*class, origin, registry, now) {
            Ok(caller) => return Ok(caller),
            Err(Refusal::NotAllowed) => {}
            Err(better) => refusal = better,
        }
    }
    Err(refusal)
}

fn admit(
    class: Class,
    origin: &Origin,
    registry: &SharedRegistry,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    match (class, origin) {
        (Class::Any, _) => Ok(Caller::Anybody),
        (Class::Local, Origin::Local { uid, gid }) => Ok(Caller::Local { uid: *uid, gid: *gid }),
        (Class::Admin, Origin::Remote { peer: Some(peer), .. }) => admin(peer, registry, now),
        (Class::Agent, Origin::Remote { peer: Some(peer), .. }) => {
            agent(peer.id(), peer.serial(), peer.not_after(), registry, now)
        }
        (Class::Local, Origin::Remote { .. })
        | (Class::Admin | Class::Agent, Origin::Local { .. } | Origin::Remote { peer: None, .. }) => {
            Err(Refusal::NotAllowed)
        }
    }
}

fn admin(peer: &Peer, registry: &SharedRegistry, now: SystemTime) -> Result<Caller, Refusal> {
    let named = registry.read(|registry| registry.is_admin(peer.id(), unix_seconds(now)));
    // The handshake checked the certificate once; a connection may outlive it.
    if named && now < peer.not_after() {
        return Ok(Caller::Admin { id: peer.id().clone() });
    }
    Err(Refusal::NotAllowed)
}

/// Tells whether the certificate `serial` makes its holder an agent at `now`.
pub(crate) fn agent(
    id: &SpiffeId,
    serial: &str,
    not_after: SystemTime,
    registry: &SharedRegistry,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    if now >= not_after {
        return Err(Refusal::Agent(Reason::AgentExpired));
    }
    let node = registry.read(|registry| registry.node(id).cloned());
    let node = node.ok_or(Refusal::Agent(Reason::AgentNotAttested))?;
    if node.standing == Standing::Banned {
        return Err(Refusal::Agent(Reason::AgentBanned));
    }
    let current = node.svid.serial == serial && unix_seconds(now) < node.svid.expires_at;
    let renewed = node.renewed.as_ref().is_some_and(|renewed| renewed.serial == serial);
    let phase = match (current, renewed) {
        (true, _) => Phase::Current,
        (false, true) => Phase::Renewed,
        (false, false) => return Err(Refusal::Agent(Reason::AgentNotActive)),
    };
    Ok(Caller::Agent { id: id.clone(), serial: serial.to_owned(), phase })
}

#[cfg(test)]
mod tests;
