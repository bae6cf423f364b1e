//! `vouchsafe whoami`: how the agent sees a process, which entries match it, which nearly do, and
//! the command that would give it an identity.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use agent::client::{HeldSvid, NearMiss, Target, WhoAmI, WhoAmIError, whoami};
use proxy::workload_api::Endpoint;
use serde::Serialize;

use super::shell::quote;
use crate::cli::agent::Whoami;
use crate::commands::block_on;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// Asks and prints; exits 3 when the process has no identity.
pub(crate) fn run(args: &Whoami) -> Result<Exit, Failure> {
    let (socket, target) = whom(args)?;
    let answer = of_processes(block_on(async { whoami(&socket, target).await.map_err(failure) })?);
    let mut to = output::stdout();
    let told = Told { schema: SCHEMA, fix: fix(&answer), seen: &answer };
    match args.output.format {
        Format::Table => print(&mut to, &told)?,
        Format::Json => output::json(&mut to, &told)?,
        Format::Jsonl => {
            serde_json::to_writer(&mut to, &told).map_err(io::Error::from)?;
            writeln!(to)?;
        }
    }
    Ok(if answer.matches.is_empty() { Exit::Found } else { Exit::Done })
}

fn whom(args: &Whoami) -> Result<(PathBuf, Target), Failure> {
    match (args.pid.map(u32::try_from), &args.socket) {
        (Some(Ok(pid)), _) => Ok((args.admin_socket.clone(), Target::Process(pid))),
        (Some(Err(_)), _) => Err(Failure::because(Exit::Unacceptable, "a process number is not negative")),
        (None, Endpoint::Unix(path)) => Ok((path.clone(), Target::Caller)),
        (None, Endpoint::Tcp(_)) => {
            Err(Failure::because(Exit::Unacceptable, "an agent tells about the caller on a Unix socket only"))
        }
    }
}

/// The answer without entries that stand for nodes: no process can match them, however near it is.
fn of_processes(mut answer: WhoAmI) -> WhoAmI {
    let is_node = |near: &NearMiss| near.missing.iter().any(|selector| selector.starts_with(NODE_SELECTOR));
    answer.near_misses.retain(|near| !is_node(near));
    answer
}

fn failure(cause: WhoAmIError) -> Failure {
    let exit = match &cause {
        WhoAmIError::Unreachable { .. } | WhoAmIError::Timeout { .. } | WhoAmIError::Unavailable { .. } => {
            Exit::Unreachable
        }
        WhoAmIError::Denied { .. } => Exit::Denied,
        WhoAmIError::Pid { .. } => Exit::Unacceptable,
        WhoAmIError::NoProcess { .. } | WhoAmIError::OtherAgent { .. } | WhoAmIError::Status(_) => {
            Exit::Failed
        }
    };
    Failure::new(exit, cause)
}

fn print(to: &mut impl Write, told: &Told<'_>) -> io::Result<()> {
    let seen = told.seen;
    let selectors: Vec<String> = seen.selectors.iter().map(|selector| audit::shown(selector)).collect();
    let names = ["process", "agent", "selectors"];
    output::fields(to, &names, &[seen.pid.to_string(), seen.agent_id.clone(), selectors.join("\n")])?;
    writeln!(to)?;
    if !seen.matches.is_empty() {
        let rows = seen.matches.iter().map(|entry| {
            let expires = match entry.svid {
                HeldSvid::Held(_) => entry.svid.expires_at().map_or_else(String::new, output::time),
                HeldSvid::Pending => "being issued".to_owned(),
            };
            vec![entry.spiffe_id.clone(), entry.entry_id.clone(), lines(&entry.selectors), expires]
        });
        output::columns(to, &["IDENTITY", "ENTRY", "ASKS FOR", "CERTIFICATE UNTIL"], rows)?;
    }
    if !seen.near_misses.is_empty() {
        let row = |miss: &NearMiss| vec![miss.spiffe_id.clone(), miss.entry_id.clone(), lines(&miss.missing)];
        writeln!(to)?;
        output::columns(to, &["NEARLY", "ENTRY", "MISSING"], seen.near_misses.iter().map(row))?;
    }
    if let Some(fix) = &told.fix {
        writeln!(to, "No entry matches. This one would:\n\n  {fix}")?;
    }
    Ok(())
}

fn lines(selectors: &[String]) -> String {
    selectors.iter().map(|selector| audit::shown(selector)).collect::<Vec<_>>().join("\n")
}

/// The command that would give the process an identity, if it has none: the one it nearly has, or
/// one named after its program, for this program run by this user.
fn fix(seen: &WhoAmI) -> Option<String> {
    if !seen.matches.is_empty() {
        return None;
    }
    let find = |prefix: &str| seen.selectors.iter().find(|selector| selector.starts_with(prefix));
    let path = find("unix:path:");
    let telling: Vec<&String> =
        [path, find("unix:user:").or_else(|| find("unix:uid:"))].into_iter().flatten().collect();
    if telling.is_empty() {
        return None;
    }
    let id = match seen.near_misses.first() {
        Some(near) => near.spiffe_id.clone(),
        None => named_after(&seen.agent_id, path.map_or("workload", |path| program(path))),
    };
    let mut words = vec!["vouchsafe", "ca", "entry", "create", "--id", &id, "--parent", &seen.agent_id];
    for selector in telling {
        words.extend(["--selector", selector.as_str()]);
    }
    // A path may hold anything, and what is offered is going to be pasted.
    if words.iter().any(|word| word.contains(char::is_control)) {
        return None;
    }
    Some(words.into_iter().map(quote).collect::<Vec<_>>().join(" "))
}

fn program(selector: &str) -> &str {
    Path::new(selector).file_name().and_then(|name| name.to_str()).unwrap_or("workload")
}

/// An identity in the agent's trust domain; what a SPIFFE ID cannot hold becomes a dash.
fn named_after(agent_id: &str, program: &str) -> String {
    let rest = agent_id.strip_prefix("spiffe://").unwrap_or(agent_id);
    let trust_domain = rest.split('/').next().unwrap_or(rest);
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let name: String = program.chars().map(|letter| if fits(letter) { letter } else { '-' }).collect();
    format!("spiffe://{trust_domain}/{name}")
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    #[serde(flatten)]
    seen: &'a WhoAmI,
    /// The command that would give the process an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What entries ask of agents, never of processes.
const NODE_SELECTOR: &str = "spiffe_id:";

/// The JSON shape of an answer.
const SCHEMA: &str = "vouchsafe/whoami/v1";

#[cfg(test)]
mod tests {
    use agent::client::Match;

    use super::*;

    #[test]
    fn a_process_that_nearly_has_an_identity_is_offered_that_one() {
        let seen = WhoAmI { near_misses: vec![near()], ..seen() };

        assert_eq!(
            fix(&seen).unwrap(),
            "vouchsafe ca entry create --id spiffe://prod.test/web --parent spiffe://prod.test/spire/agent/join_token/7 \
             --selector unix:path:/usr/bin/nginx --selector unix:user:www"
        );
    }

    #[test]
    fn a_process_nobody_thought_of_is_named_after_its_program() {
        assert!(fix(&seen()).unwrap().contains("--id spiffe://prod.test/nginx "));
    }

    #[test]
    fn the_offered_command_is_accepted_by_our_own_command_line() {
        use clap::Parser as _;
        let mut seen = seen();
        seen.selectors = vec!["unix:path:/opt/my app/run.sh".to_owned(), "unix:uid:7".to_owned()];

        let fix = fix(&seen).unwrap();

        assert!(fix.contains("--id spiffe://prod.test/run.sh "), "{fix}");
        let words = fix.replace("'unix:path:/opt/my app/run.sh'", "unix:path:/opt/my_app/run.sh");
        assert!(crate::cli::Cli::try_parse_from(words.split(' ')).is_ok(), "{fix}");
    }

    #[test]
    fn a_process_with_an_identity_needs_no_fix() {
        let entry = Match {
            entry_id: "e1".to_owned(),
            spiffe_id: "spiffe://prod.test/web".to_owned(),
            selectors: vec!["unix:user:www".to_owned()],
            svid: HeldSvid::Pending,
        };
        let seen = WhoAmI { matches: vec![entry], ..seen() };

        assert_eq!(fix(&seen), None);
        assert!(
            printed(&seen).contains("spiffe://prod.test/web  e1     unix:user:www  being issued"),
            "{}",
            printed(&seen)
        );
    }

    #[test]
    fn people_read_what_is_seen_what_is_missing_and_what_to_do() {
        let text = printed(&WhoAmI { near_misses: vec![near()], ..seen() });

        for wanted in [
            "process    42",
            "unix:user:www",
            "spiffe://prod.test/web  e1     unix:gid:7",
            "vouchsafe ca entry create",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn a_selector_that_would_drive_the_terminal_is_escaped() {
        let mut seen = seen();
        seen.selectors.push("unix:path:/tmp/\u{1b}[31m".to_owned());

        assert!(!printed(&seen).contains('\u{1b}'));
        seen.selectors.remove(0);
        assert_eq!(fix(&seen), None);
    }

    #[test]
    fn an_entry_that_stands_for_a_node_is_no_near_miss() {
        let node =
            NearMiss { missing: vec!["spiffe_id:spiffe://prod.test/spire/agent/x".to_owned()], ..near() };

        let answer = of_processes(WhoAmI { near_misses: vec![node, near()], ..seen() });

        assert_eq!(answer.near_misses, [near()]);
    }

    fn printed(seen: &WhoAmI) -> String {
        let mut bytes = Vec::new();
        print(&mut bytes, &Told { schema: SCHEMA, fix: fix(seen), seen }).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn near() -> NearMiss {
        NearMiss {
            entry_id: "e1".to_owned(),
            spiffe_id: "spiffe://prod.test/web".to_owned(),
            missing: vec!["unix:gid:7".to_owned()],
        }
    }

    fn seen() -> WhoAmI {
        WhoAmI {
            pid: 42,
            agent_id: "spiffe://prod.test/spire/agent/join_token/7".to_owned(),
            selectors: vec!["unix:path:/usr/bin/nginx".to_owned(), "unix:user:www".to_owned()],
            matches: Vec::new(),
            near_misses: Vec::new(),
        }
    }
}
