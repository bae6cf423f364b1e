//! `vouchsafe ca`: runs the CA, checks its configuration, and administers a running one.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use ca::client::Client;
use ca::{CheckError, Config};
use identity::{JoinString, Secret, TrustBundle, crypto};
use serde::Serialize;

pub(crate) mod service;

use super::{block_on, config, entry};
use crate::cli::ca::{
    Admin, AgentList, AgentNamed, BundleCommand, BundleShow, CaAgentCommand, CaCheck, CaCommand, CaConfig,
    CaRun, TokenCommand, TokenCreate,
};
use crate::daemon::{self, Carrier, Memory};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, BundleFormat, Format, Row};

/// Runs what the command line asks for.
pub(crate) fn run(command: CaCommand) -> Result<Exit, Failure> {
    match command {
        CaCommand::Run(args) => serve(&args),
        CaCommand::Check(args) => check(&args),
        CaCommand::Token(TokenCommand::Create(args)) => block_on(create_token(&args)),
        CaCommand::Entry(entry) => entry::run(entry),
        CaCommand::Service(service) => service::run(service),
        CaCommand::Bundle(BundleCommand::Show(args)) => block_on(show_bundle(&args)),
        CaCommand::Agent(CaAgentCommand::List(args)) => block_on(list_agents(&args)),
        CaCommand::Agent(CaAgentCommand::Ban(args)) => block_on(ban(&args)),
        CaCommand::Agent(CaAgentCommand::Evict(args)) => block_on(evict(&args)),
    }
}

fn serve(args: &CaRun) -> Result<Exit, Failure> {
    let config = over(config::load(&args.config.config, Config::parse)?, &args.config);
    let carrier = Carrier {
        workers: args.threads.threads.map_or_else(daemon::few_workers, usize::from),
        memory: Memory::Private,
        supervised: args.supervised,
    };
    carrier.carry(|shutdown| async move {
        let ready = |ready: ca::Ready| daemon::ready(&format!("listening on {}", ready.listen));
        ca::run(config, shutdown, ready).await.or_exit(Exit::Failed)
    })
}

fn check(args: &CaCheck) -> Result<Exit, Failure> {
    let (format, what) = (args.output.format, args.config.config.display().to_string());
    let config = match config::parse(&args.config.config, Config::parse) {
        Ok(config) => over(config, &args.config),
        Err(problems) => return config::report(format, &what, Err(problems)),
    };
    match ca::check(&config) {
        Ok(_) => config::report(format, &what, Ok(())),
        Err(CheckError::Entries(problems) | CheckError::Policies(problems)) => {
            config::report(format, &what, Err(problems))
        }
        Err(CheckError::SealKey(cause)) => Err(Failure::new(Exit::Found, cause)),
    }
}

/// Puts what the command line says over what the file says.
fn over(mut config: Config, args: &CaConfig) -> Config {
    if let Some(trust_domain) = &args.trust_domain {
        config.trust_domain = trust_domain.clone();
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(data_dir) = &args.data_dir {
        config.admin_socket = config::moved(&config.admin_socket, &config.data_dir, data_dir);
        config.data_dir.clone_from(data_dir);
    }
    if let Some(socket) = &args.admin_socket {
        config.admin_socket.clone_from(socket);
    }
    config
}

/// Connects to the CA's administration.
pub(super) async fn connect(admin: &Admin) -> Result<Client, Failure> {
    let socket = match &admin.admin_socket {
        Some(socket) => socket.clone(),
        None => config::load(&admin.config, Config::parse)?.admin_socket,
    };
    Client::connect(&socket).await.map_err(failure)
}

/// Gives a client's error its exit code.
pub(super) fn failure(cause: ca::client::ClientError) -> Failure {
    let exit = if cause.is_unreachable() { Exit::Unreachable } else { Exit::Failed };
    Failure::new(exit, cause)
}

async fn create_token(args: &TokenCreate) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    // Asked for first: a token that cannot be handed over is not made.
    let bundle = client.bundle().await.map_err(failure)?;
    let alias = match &args.node {
        Some(name) => Some(entry::node(&bundle, name)?),
        None => args.agent_id.clone(),
    };
    let out = args.out.as_deref().map(create_new).transpose()?;
    let token = client.create_token(args.ttl, alias.as_ref()).await.map_err(failure)?;
    let secret = match &args.ca_address {
        Some(address) => join_string(address, token.value, &bundle)?,
        None => token.value,
    };
    let expires = output::unix_time(token.expires_at).unwrap_or_default();
    if let Some(mut out) = out {
        out.write_all(secret.expose().as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.sync_all())?;
        writeln!(output::stderr(), "written, can be spent until {expires}")?;
        return Ok(Exit::Done);
    }
    let row = TokenRow { secret: secret.expose().to_owned(), expires_at: expires };
    let mut to = output::stdout();
    match args.output.format {
        // Alone on its line, so that it can be piped to where it is needed.
        Format::Table => writeln!(to, "{}", row.secret)?,
        format => output::one(&mut to, format, &row)?,
    }
    Ok(Exit::Done)
}

fn join_string(address: &str, token: Secret, bundle: &TrustBundle) -> Result<Secret, Failure> {
    let root = bundle.x509_authorities().first().context("the CA has no authority yet")?;
    let joined = JoinString::new(address, token, crypto::sha256(root)).or_exit(Exit::Unacceptable)?;
    Ok(joined.to_secret())
}

/// Creates the file before anything is spent; a file that exists is somebody's.
fn create_new(path: &Path) -> Result<File, Failure> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
        .or_exit(Exit::Unacceptable)
}

async fn show_bundle(args: &BundleShow) -> Result<Exit, Failure> {
    let bundle = connect(&args.admin).await?.bundle().await.map_err(failure)?;
    let mut to = output::stdout();
    match args.format {
        BundleFormat::Pem => write!(to, "{}", bundle.to_pem())?,
        BundleFormat::Jwks => writeln!(to, "{}", bundle.to_jwks())?,
        BundleFormat::Table => {
            let sequence =
                bundle.sequence().map_or_else(|| "none".to_owned(), |sequence| sequence.to_string());
            let hashes: Vec<String> =
                bundle.x509_authorities().iter().map(|der| crypto::hex(&crypto::sha256(der))).collect();
            let names = ["trust domain", "sequence", "authorities (SHA-256)"];
            output::fields(
                &mut to,
                &names,
                &[bundle.trust_domain().to_string(), sequence, hashes.join("\n")],
            )?;
        }
    }
    Ok(Exit::Done)
}

async fn list_agents(args: &AgentList) -> Result<Exit, Failure> {
    let agents = connect(&args.admin).await?.agents().await.map_err(failure)?;
    let rows: Vec<AgentRow> = agents.iter().map(AgentRow::new).collect();
    output::list(&mut output::stdout(), args.output.format, &rows)?;
    Ok(Exit::Done)
}

async fn ban(args: &AgentNamed) -> Result<Exit, Failure> {
    let client = known(args).await?;
    if !args.dry_run {
        client.ban_agent(&args.id).await.map_err(failure)?;
    }
    done(args, "banned: its identity is not renewed, and its node may not attest again")
}

async fn evict(args: &AgentNamed) -> Result<Exit, Failure> {
    let client = known(args).await?;
    if !args.dry_run {
        client.evict_agent(&args.id).await.map_err(failure)?;
    }
    done(args, "evicted: it has to be admitted with a new token")
}

/// Connects, and makes sure that the agent exists.
async fn known(args: &AgentNamed) -> Result<Client, Failure> {
    let client = connect(&args.admin).await?;
    let agents = client.agents().await.map_err(failure)?;
    if agents.iter().any(|agent| agent.id == args.id) {
        return Ok(client);
    }
    Err(Failure::because(
        Exit::Failed,
        format!("the CA knows no agent {}: see `vouchsafe ca agent list`", args.id),
    ))
}

fn done(args: &AgentNamed, what: &str) -> Result<Exit, Failure> {
    let would = if args.dry_run { "would be " } else { "" };
    writeln!(output::stderr(), "{} {would}{what}", args.id)?;
    Ok(Exit::Done)
}

/// A new token as data.
#[derive(Serialize)]
struct TokenRow {
    secret: String,
    expires_at: String,
}

impl Row for TokenRow {
    const SCHEMA: &'static str = "vouchsafe/token/v1";
    const HEADINGS: &'static [&'static str] = &["SECRET", "EXPIRES"];
    fn cells(&self) -> Vec<String> {
        vec![self.secret.clone(), self.expires_at.clone()]
    }
}

/// An agent as it is printed.
#[derive(Debug, Serialize)]
struct AgentRow {
    id: String,
    attestor: String,
    serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    standing: &'static str,
    selectors: Vec<String>,
    version: String,
}

impl AgentRow {
    fn new(agent: &ca::model::Node) -> Self {
        Self {
            id: agent.id.to_string(),
            attestor: agent.attestor.clone(),
            serial: hexadecimal(&agent.svid.serial),
            expires_at: output::unix_time(agent.svid.expires_at),
            standing: match agent.standing {
                ca::model::Standing::Active => "active",
                ca::model::Standing::Banned => "banned",
            },
            selectors: agent.selectors.iter().map(ToString::to_string).collect(),
            version: agent.version.clone(),
        }
    }
}

impl Row for AgentRow {
    const SCHEMA: &'static str = "vouchsafe/agent/v1";
    const HEADINGS: &'static [&'static str] =
        &["AGENT", "ATTESTED BY", "STANDING", "CERTIFICATE UNTIL", "VERSION"];
    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { audit::shown(text) };
        vec![
            self.id.clone(),
            or_dash(&self.attestor),
            self.standing.to_owned(),
            self.expires_at.clone().unwrap_or_else(|| "-".to_owned()),
            or_dash(&self.version),
        ]
    }
}

/// A serial number as certificates and records show it; the wire has it in decimal.
fn hexadecimal(decimal: &str) -> String {
    decimal.parse::<u128>().map_or_else(|_| decimal.to_owned(), |serial| format!("{serial:032x}"))
}

#[cfg(test)]
mod tests;
