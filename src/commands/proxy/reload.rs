//! `vouchsafe proxy reload`: asks a running sidecar to reload its policies, or what that would come to.

use std::io::{self, Write};
use std::path::PathBuf;

use proxy::Config;
use proxy::reload::{AskError, Asked, Files, Losses, Lost, Outcome, PeerLosses, ask, ask_about};
use serde::Serialize;

use crate::cli::proxy::ProxyReload;
use crate::commands::{block_on, config};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Asks and prints.
pub(super) fn run(args: &ProxyReload) -> Result<Exit, Failure> {
    let asked = match (args.dry_run, args.accept_empty) {
        (true, _) => Asked::Preview,
        (false, true) => Asked::ReloadEmpty,
        (false, false) => Asked::Reload,
    };
    let socket = socket(args)?;
    let files = args.policies.as_deref().map(Files::read).transpose().or_exit(Exit::Unacceptable)?;
    let outcome = block_on(async {
        match &files {
            Some(files) => ask_about(&socket, files).await.map_err(failure),
            None => ask(&socket, asked).await.map_err(failure),
        }
    })?;
    let told = Told { schema: SCHEMA, outcome: &outcome };
    let mut to = output::stdout();
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
    Ok(exit(&outcome))
}

fn exit(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome { accepted: false, .. } => Exit::Unacceptable,
        Outcome { dry_run: true, losses, .. } if losses.cut > 0 => Exit::Found,
        Outcome { .. } => Exit::Done,
    }
}

fn socket(args: &ProxyReload) -> Result<PathBuf, Failure> {
    if let Some(socket) = &args.admin {
        // The form in which sockets are named elsewhere is understood as well.
        let written = socket.to_str().and_then(|text| text.strip_prefix("unix:"));
        let path = written.map(|path| path.strip_prefix("//").unwrap_or(path));
        return Ok(path.map_or_else(|| socket.clone(), PathBuf::from));
    }
    let Some(file) = &args.config else {
        return Err(Failure::because(Exit::Unacceptable, "name the sidecar with --admin or --config"));
    };
    config::load(file, Config::parse)?.admin.socket.ok_or_else(|| {
        let message = format!(
            "{} names no admin socket: add `admin: {{socket: PATH}}` and restart the sidecar",
            file.display()
        );
        Failure::because(Exit::Unacceptable, message)
    })
}

fn failure(cause: AskError) -> Failure {
    let exit = match &cause {
        AskError::Unreachable { .. } | AskError::Timeout | AskError::Broken(_) => Exit::Unreachable,
        AskError::Denied { .. } => Exit::Denied,
        AskError::Failed { .. } | AskError::Body { .. } | AskError::Answer(_) => Exit::Failed,
    };
    Failure::new(exit, cause)
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
    fn the_socket_may_be_written_as_an_address() {
        let args = |admin: &str| ProxyReload {
            dry_run: false,
            policies: None,
            accept_empty: false,
            admin: Some(PathBuf::from(admin)),
            config: None,
            output: crate::cli::Output { format: Format::Table },
        };

        for admin in ["/run/a.sock", "unix:///run/a.sock", "unix:/run/a.sock"] {
            assert_eq!(socket(&args(admin)).unwrap(), PathBuf::from("/run/a.sock"), "{admin}");
        }
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
