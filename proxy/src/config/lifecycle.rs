//! How a proxy comes and goes: the wait before its listeners close, and who may take them over.

use std::{path::PathBuf, sync::Arc, time::Duration};

use identity::crypto::{hex, sha256};
use policy::strict::{Fields, Node, Reader, Source as Text};

use super::reading::present;

/// How a proxy comes and goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long connections are still taken after a stop was asked for, so that load balancers notice first.
    pub drain_delay: Duration,
    /// Where a new process asks for the listening sockets; without it nobody gets them.
    pub handover: Option<Handover>,
    /// What the configuration's text is known by: the first digits of its SHA-256.
    pub generation: Arc<str>,
}

/// Where a new process asks for the listening sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The Unix socket.
    pub socket: PathBuf,
    /// How long live connections may go on in the process that was taken over from.
    pub drain: Duration,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { drain_delay: Duration::ZERO, handover: None, generation: Arc::from("") }
    }
}

pub(super) fn read(map: &mut Fields<'_>, read: &mut Reader<'_>, text: &Text) -> Option<Lifecycle> {
    let delay =
        map.optional("drain_delay").map(|node| read.duration_within(node, Duration::ZERO..=MAX_DELAY));
    let handover = map.optional("handover").map(|node| handover(node, read));
    Some(Lifecycle {
        drain_delay: present(delay)?.unwrap_or(Duration::ZERO),
        handover: present(handover)?,
        generation: generation(text.text.as_bytes()),
    })
}

fn handover(node: &Node, read: &mut Reader<'_>) -> Option<Handover> {
    let mut map = read.map(node)?;
    let socket = map.required("socket", read).and_then(|node| read.path(node));
    let drain = map.optional("drain").map(|node| read.duration_within(node, Duration::ZERO..=MAX_DRAIN));
    map.finish(read);
    Some(Handover { socket: socket?, drain: present(drain)?.unwrap_or(HANDOVER_DRAIN) })
}

/// The same digits that `sha256sum` prints first.
fn generation(text: &[u8]) -> Arc<str> {
    let all = hex(&sha256(text));
    Arc::from(all.get(..GENERATION).unwrap_or(&all))
}

/// Live connections in a process that was taken over from. Nobody waits for its end.
pub const HANDOVER_DRAIN: Duration = Duration::from_secs(600);
const MAX_DRAIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Load balancers notice within this; service managers kill what takes longer.
const MAX_DELAY: Duration = Duration::from_secs(600);
/// Digits enough to tell two files apart.
const GENERATION: usize = 16;

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;
    use crate::Config;

    fn lifecycle(more: &str) -> Result<Lifecycle, String> {
        let text = format!(
            "vouchsafe: proxy/v1\npolicies: p\n{more}inbound:\n  - {{name: a, listen: 0.0.0.0:8443, protocol: tcp, \
             application: 127.0.0.1:8080}}\n"
        );
        let read = Config::parse(&Source::new("proxy.yaml", text));
        read.map(|config| config.lifecycle).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_a_word_nobody_takes_over_and_nothing_is_waited_for() {
        let read = lifecycle("").unwrap();

        assert_eq!((read.drain_delay, read.handover), (Duration::ZERO, None));
        assert_eq!(read.generation.len(), GENERATION);
    }

    #[test]
    fn a_handover_has_a_socket_and_a_drain_of_its_own() {
        let read = lifecycle("drain_delay: 5s\nhandover: {socket: /run/a.sock, drain: 1h}\n").unwrap();
        let short = lifecycle("handover: {socket: /run/a.sock}\n").unwrap().handover.unwrap();

        assert_eq!(read.drain_delay, Duration::from_secs(5));
        let long = Handover { socket: "/run/a.sock".into(), drain: Duration::from_secs(3600) };
        assert_eq!(read.handover, Some(long));
        assert_eq!(short.drain, HANDOVER_DRAIN);
    }

    #[test]
    fn a_generation_is_the_beginning_of_the_files_hash() {
        assert_eq!(&*generation(b"abc"), "ba7816bf8f01cfea");
    }

    #[test]
    fn what_is_no_handover_is_refused_at_its_place() {
        for flawed in
            ["handover: {}\n", "handover: {sock: /a}\n", "handover: {socket: [a]}\n", "drain_delay: 1d\n"]
        {
            let problem = lifecycle(flawed).unwrap_err();
            assert!(problem.contains("proxy.yaml:3:"), "{flawed}: {problem}");
        }
    }
}
