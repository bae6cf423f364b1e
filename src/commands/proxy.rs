//! `vouchsafe proxy`: runs the sidecar and checks its configuration.

mod intercept;
mod looking;
mod quit;
mod reload;
mod running;
mod upgrade;
mod wait;

use proxy::{Again, CheckError, Config, Confining, LoadError, Outside, TakeOver};
use serde::Serialize;

use super::config;
use crate::cli::proxy::{ProxyCheck, ProxyCommand, ProxyConfig, ProxyRun};
use crate::daemon::{self, Carrier, Memory, Stages};
use crate::exit::{Exit, Failure, OrExit as _, describe};
use crate::output::{self, Row};

/// Runs what the command line asks for.
pub(crate) fn run(command: ProxyCommand) -> Result<Exit, Failure> {
    match command {
        ProxyCommand::Run(args) => serve(&args),
        ProxyCommand::Check(args) => check(&args),
        ProxyCommand::Reload(args) => reload::run(&args),
        ProxyCommand::Wait(args) => wait::run(&args),
        ProxyCommand::Top(args) => looking::top(&args),
        ProxyCommand::Tap(args) => looking::tap(&args),
        ProxyCommand::Quit(args) => quit::run(&args),
        ProxyCommand::Upgrade(args) => upgrade::run(&args),
        ProxyCommand::Intercept(args) => intercept::run(&args.command),
    }
}

fn serve(args: &ProxyRun) -> Result<Exit, Failure> {
    let (named, threads) = (args.config.clone(), args.threads.threads);
    let file = named.config.clone();
    let read = move || {
        let mut config = over(config::parse(&named.config, Config::parse)?, &named);
        if let Some(threads) = threads {
            config.workers = usize::from(threads);
        }
        Ok(config)
    };
    let config = read().or_exit(Exit::Unacceptable)?;
    let take_over = if args.take_over { TakeOver::IfRunning } else { TakeOver::Never };
    let carrier = Carrier {
        // The data path brings threads of its own.
        workers: 0,
        memory: if args.danger_dumpable { Memory::DangerReadable } else { Memory::Private },
        supervised: args.supervised,
    };
    carrier.carry_in_stages(|Stages { stop, hurry }| async move {
        let again = Some(Again::by(read));
        let succeeded: Option<Box<dyn Fn(u32) + Send + Sync>> = Some(Box::new(daemon::succeeded_by));
        let confining = Confining::ThisProcess { configuration: file };
        let outside = Outside { stop, hurry, again, take_over, confining, succeeded };
        let ready = |ready: proxy::Ready| {
            let listeners: Vec<String> = ready
                .inbound
                .iter()
                .chain(&ready.outbound)
                .map(|(name, address)| format!("{name} {address}"))
                .collect();
            daemon::ready(&format!("listening: {}", listeners.join(", ")));
        };
        proxy::run_with(config, outside, ready).await.or_exit(Exit::Failed)
    })
}

fn check(args: &ProxyCheck) -> Result<Exit, Failure> {
    let (format, what) = (args.output.format, args.config.config.display().to_string());
    let config = match config::parse(&args.config.config, Config::parse) {
        Ok(config) => over(config, &args.config),
        Err(problems) => return config::report(format, &what, Err(problems)),
    };
    let mut found = Vec::new();
    for cause in proxy::check(&config) {
        match cause {
            // Policies are input like the file itself.
            CheckError::Policies { source: LoadError::Problems(problems), .. } => {
                return config::report(format, &what, Err(problems));
            }
            cause => found.push(Found { problem: describe(&cause) }),
        }
    }
    config::found(format, &what, &found)
}

/// Puts what the command line says over what the file says.
fn over(mut config: Config, args: &ProxyConfig) -> Config {
    if let Some(identity) = &args.identity {
        config.identity = Some(identity.clone());
    }
    if let Some(policies) = &args.policies {
        config.policies = Some(proxy::config::PolicySource::Directory(policies.clone()));
    }
    config
}

/// What is wrong with what the configuration names.
#[derive(Debug, Serialize)]
struct Found {
    problem: String,
}

impl Row for Found {
    const SCHEMA: &'static str = "vouchsafe/finding/v1";
    const HEADINGS: &'static [&'static str] = &["FOUND"];
    fn cells(&self) -> Vec<String> {
        vec![output::shown_lines(&self.problem)]
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use identity::SpiffeId;
    use policy::strict::Source;

    use super::*;

    #[test]
    fn a_flag_beats_the_file() {
        let web = SpiffeId::parse("spiffe://prod.test/web").unwrap();
        let text = "vouchsafe: proxy/v1\nidentity: spiffe://prod.test/api\npolicies: /etc/a\n\
            source:\n  workload_api: unix:///run/a.sock\naudit:\n  file: /tmp/audit.jsonl\n\
            inbound:\n  - {name: api, listen: \"127.0.0.1:1\", protocol: http, application: \"127.0.0.1:2\"}\n";
        let config =
            Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"));
        let args = ProxyConfig { config: PathBuf::new(), identity: Some(web.clone()), policies: None };

        let config = over(config, &args);

        assert_eq!(config.identity, Some(web));
        assert_eq!(
            config.policies.and_then(|from| from.directory().map(Path::to_owned)),
            Some(PathBuf::from("/etc/a"))
        );
    }
}
