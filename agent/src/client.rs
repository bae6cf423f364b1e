//! Asking an agent how it sees a process: what `vouchsafe whoami` prints.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::rt::TokioIo;
use proto::vouchsafe::v1::workload_client::WorkloadClient;
use proto::vouchsafe::v1::{WhoAmIRequest, WhoAmIResponse};
use serde::Serialize;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Whom to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process that asks.
    Caller,
    /// Another process; only the admin socket answers.
    Process(u32),
}

/// How the agent sees a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhoAmI {
    /// The pid, as the agent sees it.
    pub pid: u32,
    /// The agent's SPIFFE ID: the parent that an entry for this process needs.
    pub agent_id: String,
    /// What the agent saw, such as `unix:uid:1000`.
    pub selectors: Vec<String>,
    /// The entries that match, default identity first.
    pub matches: Vec<Match>,
    /// The entries that nearly match, nearest first.
    pub near_misses: Vec<NearMiss>,
}

/// An entry that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// The id of the entry.
    pub entry_id: String,
    /// The identity.
    pub spiffe_id: String,
    /// What the entry asks for.
    pub selectors: Vec<String>,
    /// The SVID.
    pub svid: HeldSvid,
}

/// Whether the agent holds an SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "expires_at")]
pub enum HeldSvid {
    /// It does, until this time in seconds since the Unix epoch.
    Held(u64),
    /// It is still to be issued.
    Pending,
}

impl HeldSvid {
    /// Returns when the SVID expires, if there is one.
    pub fn expires_at(self) -> Option<SystemTime> {
        match self {
            Self::Held(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            Self::Pending => None,
        }
    }
}

/// An entry that nearly matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The id of the entry.
    pub entry_id: String,
    /// The identity.
    pub spiffe_id: String,
    /// What the process lacks.
    pub missing: Vec<String>,
}

/// Asks the agent behind `socket` about `target`.
pub async fn whoami(socket: &Path, target: Target) -> Result<WhoAmI, WhoAmIError> {
    let pid = match target {
        Target::Caller => 0,
        Target::Process(pid) => i32::try_from(pid).map_err(|_| WhoAmIError::Pid { pid })?,
    };
    tokio::time::timeout(ANSWER_TIMEOUT, ask(socket, pid))
        .await
        .unwrap_or_else(|_| Err(WhoAmIError::Timeout { socket: socket.to_owned() }))
}

async fn ask(socket: &Path, pid: i32) -> Result<WhoAmI, WhoAmIError> {
    let unreachable = |source| WhoAmIError::Unreachable { socket: socket.to_owned(), source };
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://agent");
    let channel = endpoint.connect_with_connector(connector).await.map_err(unreachable)?;
    let mut request = tonic::Request::new(WhoAmIRequest { pid });
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    match WorkloadClient::new(channel).who_am_i(request).await {
        Ok(response) => Ok(response.into_inner().into()),
        Err(status) => Err(WhoAmIError::of(status, socket)),
    }
}

impl From<WhoAmIResponse> for WhoAmI {
    fn from(response: WhoAmIResponse) -> Self {
        let selectors = |selectors: Vec<proto::spire::api::types::Selector>| -> Vec<String> {
            selectors.into_iter().map(|selector| format!("{}:{}", selector.r#type, selector.value)).collect()
        };
        let matches = response.matches.into_iter().map(|entry| Match {
            entry_id: entry.entry_id,
            spiffe_id: entry.spiffe_id,
            selectors: selectors(entry.selectors),
            svid: match u64::try_from(entry.svid_expires_at) {
                Ok(0) | Err(_) => HeldSvid::Pending,
                Ok(seconds) => HeldSvid::Held(seconds),
            },
        });
        let near_misses = response.near_misses.into_iter().map(|miss| NearMiss {
            entry_id: miss.entry_id,
            spiffe_id: miss.spiffe_id,
            missing: selectors(miss.missing),
        });
        Self {
            pid: u32::try_from(response.pid).unwrap_or_default(),
            agent_id: response.agent_id,
            matches: matches.collect(),
            near_misses: near_misses.collect(),
            selectors: selectors(response.selectors),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhoAmIError {
    /// There is no such pid.
    #[error("{pid} is no pid")]
    Pid {
        /// The number.
        pid: u32,
    },
    /// No agent listens there.
    #[error("no agent answers at {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        source: tonic::transport::Error,
    },
    /// The agent did not answer in time.
    #[error("the agent at {} did not answer within {ANSWER_TIMEOUT:?}", socket.display())]
    Timeout {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket answers about the caller only.
    #[error("{message}")]
    Denied {
        /// What the agent said.
        message: String,
    },
    /// There is no such process.
    #[error("{message}")]
    NoProcess {
        /// What the agent said.
        message: String,
    },
    /// The agent is starting or cannot look at the process.
    #[error("the agent cannot answer: {message}")]
    Unavailable {
        /// What the agent said.
        message: String,
    },
    /// What answers is not an agent of this kind.
    #[error("what answers at {} is not a Vouchsafe agent", socket.display())]
    OtherAgent {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent answered with another error.
    #[error("the agent answered with an error")]
    Status(#[source] Box<Status>),
}

impl WhoAmIError {
    fn of(status: Status, socket: &Path) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::Denied { message },
            Code::NotFound => Self::NoProcess { message },
            Code::Unavailable => Self::Unavailable { message },
            Code::Unimplemented => Self::OtherAgent { socket: socket.to_owned() },
            _ => Self::Status(Box::new(status)),
        }
    }
}
