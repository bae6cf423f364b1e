//! `vouchsafe whoami`: how the agent sees a process, which entries match it, which nearly do, and
//! the command that would give it an identity.

use std::io::{self, Write};
use std::path::PathBuf;

use agent::client::{HeldSvid, NearMiss, Target, WhoAmI, WhoAmIError, whoami};
use ca::entries::NODE_PATH;
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
    let answer = block_on(async { whoami(&socket, target).await.map_err(failure) })?;
    let node = node(&answer);
    let answer = of_processes(answer);
    let mut to = output::stdout();
    let told = Told { schema: SCHEMA, fix: fix(&answer, node.as_deref()), seen: &answer };
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

/// The name of the node that asks, where an entry gives it one.
fn node(answer: &WhoAmI) -> Option<String> {
    let this = [format!("{NODE_SELECTOR}{}", answer.agent_id)];
    let alias = answer.near_misses.iter().find(|near| near.missing == this)?;
    let prefix = format!("spiffe://{}{NODE_PATH}", trust_domain(&answer.agent_id));
    let name = alias.spiffe_id.strip_prefix(&prefix)?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
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
        writeln!(
            to,
            "\nNo entry matches. A new one would, NAME being what the process is to be called:\n\n  {fix}"
        )?;
    }
    Ok(())
}

fn lines(selectors: &[String]) -> String {
    selectors.iter().map(|selector| audit::shown(selector)).collect::<Vec<_>>().join("\n")
}

/// The command that would give the process an identity, if it has none: for this program run by this
/// user. Which identity is for people to say: the one that it nearly has may be meant for another.
fn fix(seen: &WhoAmI, node: Option<&str>) -> Option<String> {
    if !seen.matches.is_empty() {
        return None;
    }
    let find = |prefix: &str| seen.selectors.iter().find(|selector| selector.starts_with(prefix));
    let user = find("unix:user:").or_else(|| find("unix:uid:"));
    let telling: Vec<&String> = [find("unix:path:"), user].into_iter().flatten().collect();
    if telling.is_empty() {
        return None;
    }
    let id = format!("spiffe://{}/NAME", trust_domain(&seen.agent_id));
    let (option, place) = match node {
        Some(name) => ("--node", name),
        None => ("--parent", seen.agent_id.as_str()),
    };
    let mut words = vec!["vouchsafe", "ca", "entry", "create", "--id", &id, option, place];
    for selector in telling {
        words.extend(["--selector", selector.as_str()]);
    }
    // A path may hold anything, and what is offered is going to be pasted.
    if words.iter().any(|word| word.contains(char::is_control)) {
        return None;
    }
    Some(words.into_iter().map(quote).collect::<Vec<_>>().join(" "))
}

fn trust_domain(agent_id: &str) -> &str {
    let rest = agent_id.strip_prefix("spiffe://").unwrap_or(agent_id);
    rest.split('/').next().unwrap_or(rest)
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    #[serde(flatten)]
    seen: &'a WhoAmI,
    /// The command that would give the process an identity, once NAME in it is replaced.
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
    fn an_identity_that_is_nearly_held_is_shown_and_not_offered() {
        let seen = WhoAmI { near_misses: vec![near()], ..seen() };

        assert_eq!(
            fix(&seen, None).unwrap(),
            "vouchsafe ca entry create --id spiffe://prod.test/NAME --parent spiffe://prod.test/spire/agent/join_token/7 \
             --selector unix:path:/usr/bin/nginx --selector unix:user:www"
        );
    }

    #[test]
    fn a_node_with_a_name_is_called_by_it() {
        let alias = |id: &str| NearMiss {
            spiffe_id: id.to_owned(),
            missing: vec![format!("spiffe_id:{}", seen().agent_id)],
            ..near()
        };
        let named = |id: &str| node(&WhoAmI { near_misses: vec![near(), alias(id)], ..seen() });

        assert_eq!(named("spiffe://prod.test/node/host-1").as_deref(), Some("host-1"));
        for other in
            ["spiffe://prod.test/host-1", "spiffe://prod.test/node/a/b", "spiffe://other.test/node/a"]
        {
            assert_eq!(named(other), None, "{other}");
        }
        assert!(
            fix(&seen(), Some("host-1")).unwrap().contains(" --id spiffe://prod.test/NAME --node host-1 ")
        );
    }

    #[test]
    fn the_offered_command_is_accepted_by_our_own_command_line() {
        use clap::Parser as _;
        let mut seen = seen();
        seen.selectors = vec!["unix:path:/opt/my app/run.sh".to_owned(), "unix:uid:7".to_owned()];

        let fix = fix(&seen, None).unwrap();

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

        assert_eq!(fix(&seen, None), None);
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
        assert_eq!(fix(&seen, None), None);
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
        print(&mut bytes, &Told { schema: SCHEMA, fix: fix(seen, None), seen }).unwrap();
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
