//! `vouchsafe proxy intercept`: puts the rules of interception in force, takes them away, shows and compares them.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use proxy::Config;
use proxy::config::IdentitySource;
use proxy::intercept::{
    self, Callers, Calls, Difference, InterceptError, Interception, Mode, Namespace, Own, Plan, PlanError,
    Ports, ToolError, Udp, Who,
};
use proxy::workload_api::Endpoint;
use serde::Serialize;

use crate::cli::proxy::intercept::{Inbound, InterceptCommand, InterceptRules, Outbound, Spelled};
use crate::commands::config;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Row};

/// Runs what the command line asks for.
pub(super) fn run(command: &InterceptCommand) -> Result<Exit, Failure> {
    match command {
        InterceptCommand::Install(args) => {
            let wanted = wanted(args)?;
            wanted.install().map_err(failure)?;
            done(args.output.format, "in_force", "the rules are in force")
        }
        InterceptCommand::Remove(args) => {
            intercept::remove().map_err(failure)?;
            done(args.output.format, "removed", "no rules are in force")
        }
        InterceptCommand::Show(args) => show(args),
        InterceptCommand::Check(args) => check(args),
    }
}

/// What the rules should be, here.
fn wanted(args: &InterceptRules) -> Result<Interception, Failure> {
    let namespace = Namespace::here();
    let plan = match &args.config {
        None => spelled(&args.spelled),
        Some(file) => {
            let config = config::load(file, Config::parse)?;
            let Some(transparent) = &config.transparent else {
                let message = format!("{} has no `transparent`: nothing is to be captured", file.display());
                return Err(Failure::because(Exit::Unacceptable, message));
            };
            let plan = transparent.plan(&config);
            refuse_agent(&plan, &config, namespace).map_err(|error| failure(error.into()))?;
            plan
        }
    };
    Interception::new(plan, namespace, args.danger_capture_shared).map_err(failure)
}

/// In a namespace that others use, the calls of whoever owns the Workload API's socket are never captured: that is
/// the agent, and it has to reach the CA.
fn refuse_agent(plan: &Plan, config: &Config, namespace: Namespace) -> Result<(), PlanError> {
    let IdentitySource::WorkloadApi(Endpoint::Unix(socket)) = &config.source else { return Ok(()) };
    let Some(owner) = socket.metadata().ok().map(|found| found.uid()) else { return Ok(()) };
    match plan.callers.as_ref().map(|callers| &callers.who) {
        Some(Who::Users(users)) if namespace == Namespace::Shared && users.contains(&owner) => {
            Err(PlanError::Agent { uid: owner })
        }
        Some(Who::Users(_) | Who::Everyone | Who::Cgroup(_)) | None => Ok(()),
    }
}

fn spelled(args: &Spelled) -> Plan {
    let own = if args.own_uid.is_empty() && args.own_gid.is_empty() {
        Own::Mark(args.mark)
    } else {
        Own::Owner {
            uids: args.own_uid.iter().copied().collect(),
            gids: args.own_gid.iter().copied().collect(),
        }
    };
    let calls = args.inbound.as_ref().map(|inbound| Calls {
        to: args.inbound_to,
        ports: match inbound {
            Inbound::All => Ports::All,
            Inbound::Ports(ports) => Ports::Only(ports.iter().copied().collect()),
        },
        own: args.own_port.iter().copied().collect(),
        danger_open_ports: args.danger_open_port.iter().copied().collect(),
        danger_open_udp_ports: args.danger_open_udp_port.iter().copied().collect(),
    });
    let callers = args.outbound.as_ref().map(|outbound| Callers {
        to: args.outbound_to,
        who: match outbound {
            Outbound::All => Who::Everyone,
            Outbound::Users(users) => Who::Users(users.iter().copied().collect()),
            Outbound::Cgroup(cgroup) => Who::Cgroup(cgroup.clone()),
        },
        ca: args.ca.iter().copied().collect(),
        danger_exempt_ports: args.danger_exempt_port.iter().copied().collect(),
        danger_exempt_networks: args.danger_exempt_network.iter().copied().collect(),
        udp: match &args.danger_udp {
            None => Udp::Drop,
            Some(Inbound::All) => Udp::DangerLeave,
            Some(Inbound::Ports(ports)) => Udp::DangerPorts(ports.iter().copied().collect()),
        },
    });
    let mode = if args.mode == "tproxy" { Mode::Tproxy } else { Mode::Redirect };
    Plan { mode, own, calls, callers }
}

fn show(args: &InterceptRules) -> Result<Exit, Failure> {
    let wanted = wanted(args)?;
    let commands: Vec<String> = wanted.commands().iter().map(|words| words.join(" ")).collect();
    let mut to = output::stdout();
    let shown = Shown { schema: SHOWN, rules: wanted.rules(), commands };
    match args.output.format {
        Format::Table => {
            for command in &shown.commands {
                writeln!(to, "# {command}")?;
            }
            write!(to, "{}", shown.rules)?;
        }
        Format::Json => output::json(&mut to, &shown)?,
        Format::Jsonl => writeln!(to, "{}", serde_json::to_string(&shown).map_err(std::io::Error::from)?)?,
    }
    Ok(Exit::Done)
}

fn check(args: &InterceptRules) -> Result<Exit, Failure> {
    let found = wanted(args)?.differences().map_err(failure)?;
    let found: Vec<Differs> = found.into_iter().map(Differs::from).collect();
    let mut to = output::stdout();
    match (args.output.format, found.as_slice()) {
        (Format::Table, []) => writeln!(to, "the rules are in force")?,
        (format, found) => output::list(&mut to, format, found)?,
    }
    Ok(if found.is_empty() { Exit::Done } else { Exit::Found })
}

fn done(format: Format, state: &'static str, told: &str) -> Result<Exit, Failure> {
    let mut to = output::stdout();
    match format {
        Format::Table => writeln!(to, "{told}")?,
        Format::Json => output::json(&mut to, &State { schema: STATE, state })?,
        Format::Jsonl => {
            let line =
                serde_json::to_string(&State { schema: STATE, state }).map_err(std::io::Error::from)?;
            writeln!(to, "{line}")?;
        }
    }
    Ok(Exit::Done)
}

fn failure(cause: InterceptError) -> Failure {
    let exit = match &cause {
        InterceptError::Plan(_) | InterceptError::Cgroup(_) | InterceptError::SharedNamespace => {
            Exit::Unacceptable
        }
        InterceptError::Tool(ToolError::NotPermitted) => Exit::Denied,
        InterceptError::Tool(_) => Exit::Failed,
    };
    Failure::new(exit, cause)
}

/// The rules, as data.
#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    rules: String,
    commands: Vec<String>,
}

#[derive(Serialize)]
struct State {
    schema: &'static str,
    state: &'static str,
}

/// Something that is not as it should be.
#[derive(Serialize)]
struct Differs {
    what: &'static str,
    found: String,
}

impl From<Difference> for Differs {
    fn from(Difference { what, found }: Difference) -> Self {
        Self { what, found }
    }
}

impl Row for Differs {
    const SCHEMA: &'static str = "vouchsafe/interception-difference/v1";
    const HEADINGS: &'static [&'static str] = &["WHAT", "FOUND"];
    fn cells(&self) -> Vec<String> {
        vec![self.what.to_owned(), output::shown_lines(&self.found)]
    }
}

const SHOWN: &str = "vouchsafe/interception-rules/v1";
const STATE: &str = "vouchsafe/interception/v1";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, proxy::ProxyCommand};

    fn rules(words: &str) -> Result<InterceptRules, clap::Error> {
        let words = format!("vouchsafe proxy intercept show {words}");
        let cli = Cli::try_parse_from(words.split_whitespace())?;
        match cli.command {
            Command::Proxy(proxy) => match proxy.command {
                ProxyCommand::Intercept(intercept) => match intercept.command {
                    InterceptCommand::Show(args) => Ok(args),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_can_be_spelled_out() {
        let args = rules(
            "--inbound 8080,9090 --outbound uid:1000,uid:1001 --mode tproxy --mark 0x53a --own-port 15008 \
             --danger-open-port 15021 --danger-exempt-network 10.0.0.0/8,fd00::/8 --danger-udp 123 --ca 192.0.2.1:8081",
        )
        .unwrap();

        let plan = spelled(&args.spelled);

        assert_eq!((plan.mode, plan.own), (Mode::Tproxy, Own::Mark("0x53a".parse().unwrap())));
        let (calls, callers) = (plan.calls.unwrap(), plan.callers.unwrap());
        assert_eq!(calls.ports, Ports::Only([8080, 9090].into()));
        assert_eq!((calls.own, calls.danger_open_ports), ([15008].into(), [15021].into()));
        assert_eq!(callers.who, Who::Users([1000, 1001].into()));
        assert_eq!((callers.udp, callers.ca.len()), (Udp::DangerPorts([123].into()), 1));
        assert_eq!(callers.danger_exempt_networks.len(), 2);
    }

    #[test]
    fn what_is_no_port_user_network_or_path_is_a_usage_error() {
        for words in [
            "",
            "--inbound 0",
            "--inbound 80;flush",
            "--inbound 8080,",
            "--outbound 1000",
            "--outbound uid:-1",
            "--outbound cgroup:../x",
            "--outbound cgroup:a\"b",
            "--inbound all --mark 0",
            "--inbound all --mode none",
            "--inbound all --danger-open-port 65536",
            "--outbound all --danger-exempt-network 10.0.0.0/40",
            "--inbound all --danger-exempt-port 1",
            "--inbound all --config f",
            "--inbound all --mark 1 --own-uid 7",
        ] {
            assert_eq!(rules(words).map(drop).unwrap_err().exit_code(), 2, "{words}");
        }
    }
}
