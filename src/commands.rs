//! One function for each command: reads its arguments, calls a crate, prints.

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::{dev, logging};

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod config;
pub(crate) mod entry;
pub(crate) mod policy;
pub(crate) mod policy_status;
pub(crate) mod proxy;
pub(crate) mod shell;
pub(crate) mod svid;
pub(crate) mod whoami;
pub(crate) mod why;

/// Runs what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    logging::start(&cli.global, usual_log(&cli.command))?;
    match cli.command {
        Command::Ca(ca) => ca::run(ca.command),
        Command::Agent(agent) => agent::run(agent.command),
        Command::Proxy(proxy) => proxy::run(proxy.command),
        Command::Svid(svid) => svid::run(svid.command),
        Command::Whoami(whoami) => whoami::run(&whoami),
        Command::Why(args) => why::run(&args),
        Command::Policy(policy) => policy::run(policy.command),
        Command::Audit(audit) => audit::run(audit.command),
        Command::Dev(dev) => dev::run(dev),
        Command::DevService(service) => dev::service::run(service),
        Command::Completion(completion) => shell::completion(completion.shell),
        Command::Man(man) => shell::man(man.out.as_deref()),
    }
}

fn usual_log(command: &Command) -> &'static str {
    use crate::cli::agent::AgentCommand;
    use crate::cli::ca::CaCommand;
    use crate::cli::proxy::ProxyCommand;
    match command {
        Command::Ca(ca) if matches!(ca.command, CaCommand::Run(_)) => logging::DAEMON,
        Command::Agent(agent) if matches!(agent.command, AgentCommand::Run(_)) => logging::DAEMON,
        Command::Proxy(proxy) if matches!(proxy.command, ProxyCommand::Run(_)) => logging::DAEMON,
        Command::DevService(_) => logging::DAEMON,
        _ => logging::COMMAND,
    }
}

/// Runs client work that talks to one peer: everything on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
