//! What stands between two workloads beside the rules, each asked where it can be.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use agent::client::{Target, whoami};
use audit::read;
use ca::client::Client;
use ca::registry::EntryFilter;
use identity::SpiffeId;
use policy::{Mesh, Unselected, Workload};
use proxy::{Config, PolicySource};
use serde::Serialize;

use crate::cli::why::Why;
use crate::commands::policy::Caller;
use crate::commands::{block_on, config};
use crate::dev;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output;

/// What one layer says.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    pub(super) standing: Standing,
    pub(super) told: String,
}

impl Layer {
    pub(super) fn new(name: &'static str, standing: Standing, told: String) -> Self {
        Self { name, standing, told }
    }
}

/// How a layer stands to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// Nothing is in the way.
    Fine,
    /// It stops the call.
    Wrong,
    /// It was not asked, or does not know.
    Unknown,
}

impl Standing {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Wrong => "stops",
            Self::Unknown => "unknown",
        }
    }
}

/// The called workload's sidecar, as its configuration describes it.
pub(super) struct Sidecar {
    config: Option<(PathBuf, Config)>,
}

impl Sidecar {
    pub(super) fn load(args: &Why) -> Result<Self, Failure> {
        let load = |path: &PathBuf| Ok::<_, Failure>((path.clone(), config::load(path, Config::parse)?));
        Ok(Self { config: args.proxy.as_ref().map(load).transpose()? })
    }

    /// The directory of its policies.
    pub(super) fn policies(&self) -> Option<PathBuf> {
        let (_, config) = self.config.as_ref()?;
        match config.policies.as_ref()? {
            PolicySource::Directory(directory) => Some(directory.clone()),
            // What the CA sent is at the agent; the local files are additions to it.
            PolicySource::Agent { .. } => None,
        }
    }

    /// The mesh that its Istio files were written for.
    pub(super) fn mesh(&self, id: &SpiffeId) -> Mesh {
        // As a sidecar without a word about it: what nothing selects is refused.
        let usual = || Mesh {
            trust_domain: id.trust_domain().to_string(),
            unselected: Unselected::Deny,
            ..Mesh::default()
        };
        self.config.as_ref().map_or_else(usual, |(_, config)| {
            let mut mesh = config.istio.mesh.clone();
            let domain = config.istio.trust_domain.clone();
            mesh.trust_domain = domain.unwrap_or_else(|| id.trust_domain()).to_string();
            mesh
        })
    }

    /// The workload as Istio's files select it.
    pub(super) fn workload(&self, id: &SpiffeId) -> Workload {
        let mut workload = Workload::of(id);
        if let Some((_, config)) = &self.config {
            if let Some(namespace) = &config.istio.namespace {
                workload.namespace.clone_from(namespace);
            }
            workload.labels.clone_from(&config.istio.labels);
        }
        workload
    }
}

/// Whether the CA has entries for both ends.
pub(super) fn registration(args: &Why) -> Vec<Layer> {
    const NAME: &str = "registration";
    let Some(socket) = &args.ca_admin_socket else {
        return vec![Layer::new(
            NAME,
            Standing::Unknown,
            "the CA was not asked: give --ca-admin-socket".to_owned(),
        )];
    };
    let ids = match &args.from {
        Caller::Id(id) => vec![id, &args.to],
        Caller::Unauthenticated => vec![&args.to],
    };
    let asked = block_on(async {
        let client = Client::connect(socket).await.or_exit(Exit::Unreachable)?;
        let mut layers = Vec::new();
        for id in ids {
            let filter = EntryFilter { spiffe_id: Some(id.clone()), ..EntryFilter::default() };
            let found = client.entries(&filter).await.or_exit(Exit::Unreachable)?;
            layers.push(match found.first() {
                Some(entry) => Layer::new(NAME, Standing::Fine, format!("{id} has the entry {}", entry.id)),
                None => Layer::new(NAME, Standing::Wrong, format!("no entry gives away {id}")),
            });
        }
        Ok(layers)
    });
    asked.unwrap_or_else(|failure| {
        vec![Layer::new(NAME, Standing::Unknown, one_line("the CA does not tell", &failure))]
    })
}

/// Whether the called end has its SVID.
pub(super) fn svid(args: &Why, sidecar: &Sidecar) -> Layer {
    const NAME: &str = "svid";
    if let (Some(socket), Some(pid)) = (&args.agent_admin_socket, args.pid) {
        return match block_on(async { whoami(socket, Target::Process(pid)).await.or_exit(Exit::Failed) }) {
            Ok(seen) => match seen.matches.iter().find(|found| found.spiffe_id == args.to.as_str()) {
                Some(found) => match found.svid.expires_at() {
                    Some(end) => {
                        let told = format!("the agent holds {} until {}", args.to, output::time(end));
                        Layer::new(NAME, Standing::Fine, told)
                    }
                    None => Layer::new(NAME, Standing::Wrong, format!("{} is being issued", args.to)),
                },
                None => {
                    Layer::new(NAME, Standing::Wrong, format!("the process {pid} is not given {}", args.to))
                }
            },
            Err(failure) => {
                Layer::new(NAME, Standing::Unknown, one_line("the agent does not tell", &failure))
            }
        };
    }
    let Some(ready) = readiness(sidecar) else {
        let told = "neither agent nor sidecar was asked: give --agent-admin-socket with --pid, or --proxy";
        return Layer::new(NAME, Standing::Unknown, told.to_owned());
    };
    match ready {
        Ok(document) => match document.get("identity").and_then(serde_json::Value::as_str) {
            Some(id) if id == args.to.as_str() => {
                Layer::new(NAME, Standing::Fine, format!("the sidecar runs as {id}"))
            }
            Some(id) => {
                Layer::new(NAME, Standing::Wrong, format!("the sidecar runs as {id}, not {}", args.to))
            }
            None => Layer::new(NAME, Standing::Wrong, "the sidecar has no identity".to_owned()),
        },
        Err(failure) => Layer::new(NAME, Standing::Unknown, one_line("the sidecar does not tell", &failure)),
    }
}

// What the running sidecar says of itself, where its configuration says how to ask.
fn readiness(sidecar: &Sidecar) -> Option<Result<serde_json::Value, Failure>> {
    let (_, config) = sidecar.config.as_ref()?;
    let address = config.admin.listen?;
    Some(block_on(async {
        let answer = dev::http::get(address, "/readyz").await.or_exit(Exit::Unreachable)?;
        serde_json::from_slice(answer.body()).or_exit(Exit::Failed)
    }))
}

/// Whether the caller's certificate can be verified.
pub(super) fn bundle(args: &Why) -> Layer {
    const NAME: &str = "bundle";
    let Caller::Id(from) = &args.from else {
        return Layer::new(NAME, Standing::Fine, "the caller has no certificate to verify".to_owned());
    };
    let Some(socket) = &args.ca_admin_socket else {
        return Layer::new(
            NAME,
            Standing::Unknown,
            "the CA was not asked: give --ca-admin-socket".to_owned(),
        );
    };
    let asked = block_on(async {
        let client = Client::connect(socket).await.or_exit(Exit::Unreachable)?;
        client.bundle().await.or_exit(Exit::Unreachable)
    });
    match asked {
        Ok(bundle) if *bundle.trust_domain() == from.trust_domain() => {
            let count = bundle.x509_authorities().len();
            let told = format!("{count} authorities are published for {}", bundle.trust_domain());
            let standing = if count == 0 { Standing::Wrong } else { Standing::Fine };
            Layer::new(NAME, standing, told)
        }
        Ok(bundle) => {
            let told = format!(
                "the CA is for {}; whether the bundle of {} reaches the sidecar was not asked",
                bundle.trust_domain(),
                from.trust_domain()
            );
            Layer::new(NAME, Standing::Unknown, told)
        }
        Err(failure) => Layer::new(NAME, Standing::Unknown, one_line("the CA does not tell", &failure)),
    }
}

/// Whether the sidecar listens at the port for such calls, and at which.
pub(super) fn listener(args: &Why, sidecar: &Sidecar) -> Result<(Option<u16>, Layer), Failure> {
    const NAME: &str = "listener";
    let Some((path, config)) = &sidecar.config else {
        let told = "the sidecar's configuration was not read: give --proxy".to_owned();
        return Ok((args.port, Layer::new(NAME, Standing::Unknown, told)));
    };
    let wanted = |port: u16| config.inbound.iter().find(|inbound| inbound.listen.port() == port);
    let found = match (args.port, config.inbound.as_slice()) {
        (Some(port), _) => wanted(port),
        (None, [only]) => Some(only),
        (None, _) => {
            let told = format!("{} has several inbound listeners or none: give --port", path.display());
            return Err(Failure::because(Exit::Unacceptable, told));
        }
    };
    let Some(inbound) = found else {
        let port = args.port.map(|port| port.to_string()).unwrap_or_default();
        let told = format!("{} has no inbound listener on port {port}", path.display());
        return Ok((args.port, Layer::new(NAME, Standing::Wrong, told)));
    };
    let protocol = inbound.protocol.as_str();
    let told = format!("{} on {} speaks {protocol}", inbound.name, inbound.listen);
    let fits = (protocol == "http") == args.request.is_some();
    let layer = if fits {
        Layer::new(NAME, Standing::Fine, told)
    } else {
        let asked = if args.request.is_some() { "a request was asked about" } else { "no request was given" };
        Layer::new(NAME, Standing::Wrong, format!("{told}, and {asked}"))
    };
    Ok((Some(inbound.listen.port()), layer))
}

/// Whether the policies that were asked are those in force, or were at that time.
pub(super) fn generation(args: &Why, sidecar: &Sidecar, asked: &str) -> Result<Option<Layer>, Failure> {
    const NAME: &str = "generation";
    let compared = |whose: &str, found: &str| {
        let (standing, told) = if found == asked {
            (Standing::Fine, format!("{whose} {found}, which these policies are"))
        } else {
            (Standing::Unknown, format!("{whose} {found}, these policies are {asked}"))
        };
        Some(Layer::new(NAME, standing, told))
    };
    if !args.files.is_empty() {
        return Ok(match recorded(args)? {
            Some(found) => compared("at that time the log names", &found),
            None => {
                let told = "the log has no record of the workload before that time".to_owned();
                Some(Layer::new(NAME, Standing::Unknown, told))
            }
        });
    }
    Ok(match readiness(sidecar) {
        Some(Ok(document)) => {
            let found = document.get("policy_generation").and_then(serde_json::Value::as_str);
            found.and_then(|found| compared("the sidecar runs", found))
        }
        Some(Err(failure)) => {
            Some(Layer::new(NAME, Standing::Unknown, one_line("the sidecar does not tell", &failure)))
        }
        None => {
            let told = "whether these policies were in force then was not asked: give --log".to_owned();
            Some(Layer::new(NAME, Standing::Unknown, told))
        }
    })
}

// The generation in the last record of the workload before the moment.
fn recorded(args: &Why) -> Result<Option<String>, Failure> {
    let mut paths = Vec::new();
    for file in &args.files {
        paths.extend(read::find(file).or_exit(Exit::Unacceptable)?);
    }
    let mut last: Option<(i64, String)> = None;
    for entry in read::files(paths).filter_map(Result::ok) {
        let record = &entry.record;
        let to = record.dst_endpoint.as_ref().and_then(|end| end.uid.as_deref());
        let Some(generation) = &record.unmapped.vouchsafe.generation else { continue };
        let since = Duration::from_millis(u64::try_from(record.time).unwrap_or_default());
        let before = UNIX_EPOCH + since <= args.at.0;
        if to == Some(args.to.as_str())
            && before
            && last.as_ref().is_none_or(|(time, _)| *time <= record.time)
        {
            last = Some((record.time, generation.clone()));
        }
    }
    Ok(last.map(|(_, generation)| generation))
}

fn one_line(what: &str, failure: &Failure) -> String {
    format!("{what}: {}", failure.describe().replace('\n', ";"))
}
