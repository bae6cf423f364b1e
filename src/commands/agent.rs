//! `vouchsafe agent`: runs the agent and checks its configuration.

use agent::config::CaAddress;
use agent::{Config, Finding};
use serde::Serialize;

use super::config;
use crate::cli::agent::{AgentCheck, AgentCommand, AgentConfig, AgentRun};
use crate::daemon::{self, Carrier, Memory};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Row};

/// Runs what the command line asks for.
pub(crate) fn run(command: AgentCommand) -> Result<Exit, Failure> {
    match command {
        AgentCommand::Run(args) => serve(&args),
        AgentCommand::Check(args) => check(&args),
    }
}

fn serve(args: &AgentRun) -> Result<Exit, Failure> {
    let config = load(&args.config)?;
    let carrier = Carrier {
        workers: args.threads.threads.map_or_else(daemon::few_workers, usize::from),
        memory: Memory::Private,
        supervised: args.supervised,
    };
    carrier.carry(|shutdown| async move {
        let ready = |ready: agent::Ready| {
            daemon::ready(&format!("{} serves {}", ready.spiffe_id, ready.socket.display()))
        };
        agent::run(config, shutdown, ready).await.or_exit(Exit::Failed)
    })
}

fn check(args: &AgentCheck) -> Result<Exit, Failure> {
    let what = args.config.config.display().to_string();
    let config = match config::parse(&args.config.config, Config::parse) {
        Ok(config) => over(config, &args.config),
        Err(problems) => return config::report(args.output.format, &what, Err(problems)),
    };
    let found: Vec<Found> = agent::check(&config).into_iter().map(Found).collect();
    config::found(args.output.format, &what, &found)
}

fn load(args: &AgentConfig) -> Result<Config, Failure> {
    Ok(over(config::load(&args.config, Config::parse)?, args))
}

/// Puts what the command line says over what the file says.
fn over(mut config: Config, args: &AgentConfig) -> Config {
    if let Some(trust_domain) = &args.trust_domain {
        config.trust_domain = trust_domain.clone();
    }
    if let Some(ca) = &args.ca {
        config.ca = CaAddress::At(ca.clone());
    }
    if let Some(socket) = &args.socket {
        config.socket.clone_from(socket);
    }
    if let Some(data_dir) = &args.data_dir {
        config.admin_socket = config::moved(&config.admin_socket, &config.data_dir, data_dir);
        config.data_dir.clone_from(data_dir);
    }
    config
}

/// What is wrong with the host.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Found(Finding);

impl Row for Found {
    const SCHEMA: &'static str = "vouchsafe/finding/v1";
    const HEADINGS: &'static [&'static str] = &["ABOUT", "FOUND"];
    fn cells(&self) -> Vec<String> {
        vec![self.0.about.clone(), output::shown_lines(&self.0.problem)]
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use identity::TrustDomain;
    use policy::strict::Source;

    use super::*;

    #[test]
    fn a_flag_beats_the_file() {
        let args = AgentConfig {
            config: PathBuf::new(),
            trust_domain: Some(TrustDomain::parse("other.test").unwrap()),
            ca: Some("elsewhere:9".to_owned()),
            data_dir: Some("/data".into()),
            socket: None,
        };

        let config = over(config(), &args);

        assert_eq!(config.trust_domain.as_str(), "other.test");
        assert_eq!(config.ca, CaAddress::At("elsewhere:9".to_owned()));
        assert_eq!(config.data_dir, Path::new("/data"));
        assert_eq!(config.socket, Path::new("/run/a.sock"));
    }

    #[test]
    fn a_socket_in_the_data_directory_moves_with_it() {
        let args = AgentConfig {
            config: PathBuf::new(),
            trust_domain: None,
            ca: None,
            data_dir: Some("/data".into()),
            socket: None,
        };

        let config = over(config(), &args);

        assert_eq!(config.admin_socket, Path::new("/data/admin.sock"));
    }

    fn config() -> Config {
        let text =
            "vouchsafe: agent/v1\ntrust_domain: prod.test\nca: \"ca.prod.test:8081\"\nsocket: /run/a.sock\n";
        Config::parse(&Source::new("agent.yaml", text)).unwrap()
    }
}
