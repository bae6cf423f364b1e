//! Who runs which policies, as agents tell: kept in memory, bounded, and forgotten with the agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::{SpiffeId, manifest::Seen};

/// What became of a set where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was told.
    Silent,
    /// It is in force.
    InForce,
    /// It was refused; what was in force before stays.
    Refused,
    /// There are no central policies.
    None,
}

/// What an agent or a sidecar runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What became of the set.
    pub state: State,
    /// The set; its number is 0 where there is none.
    pub set: Seen,
    /// Since when, in Unix seconds.
    pub since: i64,
    /// Why it was refused.
    pub reason: String,
    /// What is in force while a set is refused.
    pub in_force: Option<Seen>,
}

/// What one sidecar runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The identity it acts as.
    pub id: SpiffeId,
    /// Its process on the agent's node.
    pub pid: i32,
    /// What it runs.
    pub status: Status,
}

/// What one agent told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What the agent holds itself.
    pub agent: Status,
    /// What its sidecars run.
    pub sidecars: Vec<Sidecar>,
}

/// One agent, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Which.
    pub id: SpiffeId,
    /// Whether its stream of policies is open.
    pub connected: bool,
    /// What it told, if it told anything since the CA started.
    pub told: Option<Told>,
}

/// What the CA hands out, and who runs what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// What is handed out.
    pub handed_out: HandedOut,
    /// Why the files in the directory are not what is handed out; empty where they are.
    pub flaw: String,
    /// Every agent.
    pub agents: Vec<AgentRow>,
}

/// What the CA hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandedOut {
    /// The CA is configured without policies.
    Nothing,
    /// There was no good set so far.
    Pending,
    /// This set.
    Set {
        /// Which.
        set: Seen,
        /// Since when, in Unix seconds.
        since: i64,
    },
}

/// What all agents told. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<SpiffeId, Entry>>>);

#[derive(Default)]
struct Entry {
    streams: usize,
    told: Option<Told>,
}

/// An open stream of an agent, counted until it is dropped.
pub(crate) struct Stream {
    board: Board,
    agent: SpiffeId,
}

/// There is no room for what an agent tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BoardError {
    /// One agent tells of too many sidecars.
    #[error("{found} sidecars are told of, at most {MAX_SIDECARS_PER_AGENT} are kept for one agent")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// All of them together do.
    #[error("{MAX_SIDECARS} sidecars are known already")]
    Full,
}

impl Board {
    /// Keeps what `agent` tells, in place of what it told before. Agents that are not `known` are forgotten.
    pub(crate) fn tell(
        &self,
        agent: &SpiffeId,
        told: Told,
        known: impl Fn(&SpiffeId) -> bool,
    ) -> Result<(), BoardError> {
        let found = told.sidecars.len();
        if found > MAX_SIDECARS_PER_AGENT {
            return Err(BoardError::TooMany { found });
        }
        let mut entries = self.entries();
        entries.retain(|id, entry| entry.streams > 0 || known(id));
        let others = entries.iter().filter(|(id, _)| *id != agent);
        let kept: usize =
            others.filter_map(|(_, entry)| entry.told.as_ref()).map(|told| told.sidecars.len()).sum();
        if kept + found > MAX_SIDECARS {
            return Err(BoardError::Full);
        }
        entries.entry(agent.clone()).or_default().told = Some(told);
        Ok(())
    }

    /// Counts a stream of `agent`.
    pub(crate) fn open(&self, agent: &SpiffeId) -> Stream {
        self.entries().entry(agent.clone()).or_default().streams += 1;
        Stream { board: self.clone(), agent: agent.clone() }
    }

    /// What `agent` told, and whether it is connected.
    pub(crate) fn row(&self, agent: &SpiffeId) -> AgentRow {
        let entries = self.entries();
        let entry = entries.get(agent);
        AgentRow {
            id: agent.clone(),
            connected: entry.is_some_and(|entry| entry.streams > 0),
            told: entry.and_then(|entry| entry.told.clone()),
        }
    }

    /// How many agents have a stream open.
    pub(crate) fn connected(&self) -> usize {
        self.entries().values().filter(|entry| entry.streams > 0).count()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<SpiffeId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut entries = self.board.entries();
        if let Some(entry) = entries.get_mut(&self.agent) {
            entry.streams = entry.streams.saturating_sub(1);
            // What an agent told that never says anything again would be taken for the present.
            if entry.streams == 0 && entry.told.is_none() {
                entries.remove(&self.agent);
            }
        }
    }
}

/// Most sidecars that one agent may tell of.
pub const MAX_SIDECARS_PER_AGENT: usize = 1024;
/// Most sidecars that are kept in all.
pub(crate) const MAX_SIDECARS: usize = 1_000_000;
/// Longest reason of a refusal that is kept.
pub const MAX_REASON_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_replaces_what_it_told_before_and_is_forgotten_with_its_registration() {
        let board = Board::default();
        let stream = board.open(&id("a"));
        board.tell(&id("a"), told(2), |_| true).unwrap();
        board.tell(&id("a"), told(1), |_| true).unwrap();

        assert_eq!(board.row(&id("a")), AgentRow { id: id("a"), connected: true, told: Some(told(1)) });
        assert_eq!(board.connected(), 1);
        drop(stream);
        assert!(!board.row(&id("a")).connected);
        board.tell(&id("b"), told(1), |agent| *agent == id("b")).unwrap();
        assert_eq!(board.row(&id("a")).told, None);
    }

    #[test]
    fn an_agent_that_told_nothing_leaves_nothing() {
        let board = Board::default();

        drop(board.open(&id("a")));

        assert!(board.entries().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_for_one_agent_and_for_all() {
        let board = Board::default();
        let too_many = board.tell(&id("a"), told(MAX_SIDECARS_PER_AGENT + 1), |_| true);
        assert_eq!(too_many, Err(BoardError::TooMany { found: MAX_SIDECARS_PER_AGENT + 1 }));

        let most = MAX_SIDECARS / MAX_SIDECARS_PER_AGENT;
        let full = told(MAX_SIDECARS_PER_AGENT);
        for agent in 0..most {
            board.entries().entry(id(&agent.to_string())).or_default().told = Some(full.clone());
        }

        assert_eq!(board.tell(&id("x"), full.clone(), |_| true), Err(BoardError::Full));
        assert_eq!(board.tell(&id("1"), full, |_| true), Ok(()));
    }

    fn told(sidecars: usize) -> Told {
        let status = Status {
            state: State::InForce,
            set: Seen { number: 1, generation: String::new() },
            since: 0,
            reason: String::new(),
            in_force: None,
        };
        let sidecar = Sidecar { id: id("web"), pid: 1, status: status.clone() };
        Told { agent: status, sidecars: vec![sidecar; sidecars] }
    }

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://prod.test/{name}")).unwrap()
    }
}
