//! Which live connections a change of policies cuts, told within bounds.

use std::{collections::HashMap, time::SystemTime};

use crate::{
    inbound,
    live::{Cut, Live, Role, Sentence},
    reload::{Losses, Lost, MAX_LOST, MAX_PEERS, PeerLosses},
    state::Effective,
};

/// Tells of the connections that were judged: what they lived by `before`, and why they end.
pub(crate) fn losses(judged: &[Sentence], before: &Effective, connections: usize) -> Losses {
    let mut peers: HashMap<&str, usize> = HashMap::new();
    for Sentence { live, .. } in judged {
        *peers.entry(peer(live)).or_default() += 1;
    }
    let mut by_peer: Vec<PeerLosses> = peers
        .into_iter()
        .map(|(peer, connections)| PeerLosses { peer: peer.to_owned(), connections })
        .collect();
    by_peer.sort_by(|one, other| {
        other.connections.cmp(&one.connections).then_with(|| one.peer.cmp(&other.peer))
    });
    let more_peers = by_peer.len().saturating_sub(MAX_PEERS);
    by_peer.truncate(MAX_PEERS);
    let mut oldest: Vec<&Sentence> = judged.iter().collect();
    oldest.sort_by_key(|sentence| sentence.live.opened);
    let now = SystemTime::now();
    let lost = oldest.into_iter().take(MAX_LOST).map(|sentence| lost(sentence, before, now));
    Losses {
        cut: judged.len(),
        connections,
        by_peer,
        more_peers,
        lost: lost.collect(),
        more_lost: judged.len().saturating_sub(MAX_LOST),
    }
}

fn lost(sentence: &Sentence, before: &Effective, now: SystemTime) -> Lost {
    let live = &sentence.live;
    let (reason, refused_by) = match &sentence.cut {
        Cut::Policy { denial, .. } => (denial.reason.as_str(), denial.rule.as_ref().map(ToString::to_string)),
        // What ends a connection otherwise is no change of policies.
        Cut::Trust | Cut::Identity | Cut::Expired(_) | Cut::Drained => ("", None),
    };
    Lost {
        peer: peer(live).to_owned(),
        source: live.key.source.map(|source| source.to_string()).unwrap_or_default(),
        port: live.key.port,
        protocol: match live.key.role {
            Role::InboundTcp | Role::Outbound | Role::Tunnel => "tcp",
            Role::InboundHttp => "http",
        }
        .to_owned(),
        age_seconds: now.duration_since(live.opened).unwrap_or_default().as_secs(),
        rule_lost: inbound::rule_of(sentence, before).map(|rule| rule.to_string()),
        reason: reason.to_owned(),
        refused_by,
    }
}

fn peer(live: &Live) -> &str {
    live.key.peer.as_ref().map_or("unauthenticated", |peer| peer.as_str())
}
