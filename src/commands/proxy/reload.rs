//! `vouchsafe proxy reload`: asks a running sidecar to reload its configuration and policies, or what that would come to.

use std::io::{self, Write};

use proxy::lifecycle::{Reconfigured, reconfigure};
use proxy::reload::{Asked, Files, Losses, Lost, Outcome, PeerLosses, ask, ask_about};
use serde::Serialize;

use super::running::{self, failure};
use crate::cli::proxy::ProxyReload;
use crate::cli::proxy::lifecycle::Running;
use crate::commands::block_on;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Asks and prints.
pub(super) fn run(args: &ProxyReload) -> Result<Exit, Failure> {
    let asked = match (args.dry_run, args.accept_empty) {
        (true, _) => Asked::Preview,
        (false, true) => Asked::ReloadEmpty,
        (false, false) => Asked::Reload,
    };
    let socket = running::socket(&Running { admin: args.admin.clone(), config: args.config.clone() })?;
    let files = args.policies.as_deref().map(Files::read).transpose().or_exit(Exit::Unacceptable)?;
    // Files that are only looked at are policies.
    let configuration = match &files {
        Some(_) => None,
        None => Some(block_on(async { reconfigure(&socket, args.dry_run).await.map_err(failure) })?),
    };
    let outcome = block_on(async {
        match &files {
            Some(files) => ask_about(&socket, files).await.map_err(failure),
            None => ask(&socket, asked).await.map_err(failure),
        }
    })?;
    let told = Told { schema: SCHEMA, outcome: &outcome, configuration: configuration.as_ref() };
    let mut to = output::stdout();
    if let (Format::Table, Some(configuration)) = (args.output.format, &configuration) {
        print_configuration(&mut to, configuration)?;
    }
    match (args.output.format, &outcome.refusal) {
        (Format::Table, Some(refusal)) => {
            let refusal = output::shown_lines(refusal);
            let message = format!("the policies are refused, nothing changes: {refusal}");
            return Err(Failure::because(Exit::Unacceptable, message));
        }
        (Format::Table, None) => print(&mut to, &outcome)?,
        (Format::Json, _) => output::json(&mut to, &told)?,
        (Format::Jsonl, _) => {
            serde_json::to_writer(&mut to, &told).map_err(io::Error::from)?;
            writeln!(to)?;
        }
    }
    let refused = configuration.as_ref().and_then(|configuration| configuration.refusal.as_deref());
    match (args.output.format, refused) {
        (Format::Table, Some(refusal)) => {
            let refusal = output::shown_lines(refusal);
            let message = format!("the configuration is refused, nothing of it changes: {refusal}");
            Err(Failure::because(Exit::Unacceptable, message))
        }
        (Format::Json | Format::Jsonl, Some(_)) => Ok(Exit::Unacceptable),
        (_, None) => Ok(exit(&outcome)),
    }
}

fn exit(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome { accepted: false, .. } => Exit::Unacceptable,
        Outcome { dry_run: true, losses, .. } if losses.cut > 0 => Exit::Found,
        Outcome { .. } => Exit::Done,
    }
}

fn print_configuration(to: &mut impl Write, told: &Reconfigured) -> io::Result<()> {
    let state = match (told.accepted, told.dry_run, told.changed) {
        (false, _, _) => "refused",
        (true, true, true) => "would be accepted",
        (true, false, true) => "in force",
        (true, _, false) => "in force already",
    };
    let generation = told.generation.as_deref().unwrap_or(&told.previous);
    let names = ["configuration", "generation", "before"];
    let values = [state.to_owned(), audit::shown(generation), audit::shown(&told.previous)];
    output::fields(to, &names, &values)?;
    let lists = [
        ("opened", &told.added),
        ("closed to new connections", &told.removed),
        ("changed for new connections", &told.changed_listeners),
        ("settings", &told.settings),
        ("needs a restart", &told.needs_restart),
    ];
    for (what, keys) in lists.into_iter().filter(|(_, keys)| !keys.is_empty()) {
        writeln!(to, "{what}: {}", audit::shown(&keys.join(", ")))?;
    }
    writeln!(to)
}

fn print(to: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let name = |generation: &Option<String>| generation.as_deref().map_or("none".to_owned(), audit::shown);
    let state = match (outcome.dry_run, outcome.changed) {
        (true, true) => "would be accepted",
        (false, true) => "in force",
        (_, false) => "in force already",
    };
    let names = ["policies", "generation", "before"];
    output::fields(to, &names, &[state.to_owned(), name(&outcome.generation), name(&outcome.previous)])?;
    for ignored in &outcome.ignored {
        writeln!(to, "not read: {}", audit::shown(ignored))?;
    }
    let Losses { cut, connections, .. } = outcome.losses;
    let would = if outcome.dry_run { "would be cut" } else { "cut" };
    writeln!(to, "\n{cut} of {connections} live connections {would}")?;
    if cut == 0 {
        return Ok(());
    }
    writeln!(to)?;
    output::columns(to, &["PEER", "CONNECTIONS"], outcome.losses.by_peer.iter().map(by_peer))?;
    more(to, outcome.losses.more_peers, "peers")?;
    writeln!(to)?;
    let headings = ["PEER", "FROM", "PORT", "PROTOCOL", "OPEN FOR", "LIVED BY", "REFUSED"];
    output::columns(to, &headings, outcome.losses.lost.iter().map(lost))?;
    more(to, outcome.losses.more_lost, "connections")
}

fn more(to: &mut impl Write, count: usize, what: &str) -> io::Result<()> {
    if count > 0 { writeln!(to, "and {count} more {what}") } else { Ok(()) }
}

fn by_peer(peer: &PeerLosses) -> Vec<String> {
    vec![audit::shown(&peer.peer), peer.connections.to_string()]
}

fn lost(lost: &Lost) -> Vec<String> {
    vec![
        audit::shown(&lost.peer),
        audit::shown(&lost.source),
        lost.port.to_string(),
        audit::shown(&lost.protocol),
        format!("{} s", lost.age_seconds),
        lost.rule_lost.as_deref().map_or("-".to_owned(), audit::shown),
        audit::shown(lost.refused_by.as_deref().unwrap_or(&lost.reason)),
    ]
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    /// Absent where only policies were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a Reconfigured>,
}

const SCHEMA: &str = "vouchsafe/reload/v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(accepted: bool, dry_run: bool, cut: usize) -> Outcome {
        let losses = Losses { cut, ..Losses::default() };
        Outcome { accepted, dry_run, losses, ..Outcome::default() }
    }

    #[test]
    fn a_dry_run_that_would_cut_is_a_finding_and_a_refusal_is_unacceptable() {
        let exits = [(true, true, 0), (true, true, 1), (true, false, 1), (false, true, 0), (false, false, 0)]
            .map(|(accepted, dry_run, cut)| exit(&outcome(accepted, dry_run, cut)).code());

        assert_eq!(exits, [0, 3, 0, 2, 2]);
    }

    #[test]
    fn what_a_configuration_changes_is_shown_by_what_it_means() {
        let told = Reconfigured {
            accepted: true,
            changed: true,
            added: vec!["inbound new".to_owned()],
            needs_restart: vec!["workers".to_owned()],
            ..Reconfigured::default()
        };
        let mut text = Vec::new();

        print_configuration(&mut text, &told).unwrap();

        let text = String::from_utf8(text).unwrap();
        for wanted in ["in force", "opened: inbound new", "needs a restart: workers"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("settings"), "{text}");
    }

    #[test]
    fn what_would_be_cut_is_shown_by_peer_and_one_by_one() {
        let lost = Lost {
            peer: "spiffe://prod.test/shop".to_owned(),
            source: "10.0.0.1".to_owned(),
            port: 8443,
            protocol: "tcp".to_owned(),
            age_seconds: 7,
            rule_lost: Some("api/shop (api.yaml:6)".to_owned()),
            reason: "no_allow_matched".to_owned(),
            refused_by: None,
        };
        let by_peer = vec![PeerLosses { peer: lost.peer.clone(), connections: 300 }];
        let losses =
            Losses { cut: 300, connections: 301, by_peer, more_peers: 0, lost: vec![lost], more_lost: 299 };
        let outcome = Outcome { dry_run: true, accepted: true, changed: true, losses, ..Outcome::default() };
        let mut text = Vec::new();

        print(&mut text, &outcome).unwrap();

        let text = String::from_utf8(text).unwrap();
        for wanted in [
            "would be accepted",
            "300 of 301 live connections would be cut",
            "api/shop (api.yaml:6)",
            "no_allow_matched",
            "and 299 more connections",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
