//! The agent's configuration file, `vouchsafe: agent/v1`. Unknown keys are refused.
//!
//! ```yaml
//! vouchsafe: agent/v1
//! trust_domain: prod.example
//! ca: ca.prod.example:8081                 # optional where a join string names it
//! data_dir: /var/lib/vouchsafe/agent
//! socket: /run/vouchsafe/agent.sock        # the Workload API, for every local process
//! admin_socket: /var/lib/vouchsafe/agent/admin.sock
//! bootstrap:
//!   join_string_file: /etc/vouchsafe/join  # "-" is standard input
//! workload_attestors:
//!   unix: {path: true, sha256: true, sha256_limit: 512MiB}
//! metrics:
//!   listen: 127.0.0.1:9464
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use identity::TrustDomain;
use policy::strict::{Node, Problems, Reader, Source};

use crate::attestor::{self, Switch};

/// Where the Workload API is served unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vouchsafe/agent.sock";

/// Where the agent keeps its state unless the file says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/vouchsafe/agent";

/// The largest executable that is hashed unless the file says otherwise.
pub const DEFAULT_SHA256_LIMIT: u64 = 512 * 1024 * 1024;

/// What the agent is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The trust domain to join.
    pub trust_domain: TrustDomain,
    /// Where the CA is.
    pub ca: CaAddress,
    /// The directory that holds the agent's state.
    pub data_dir: PathBuf,
    /// The socket of the Workload API.
    pub socket: PathBuf,
    /// The socket for administrators of the node.
    pub admin_socket: PathBuf,
    /// How the node is let in.
    pub bootstrap: Bootstrap,
    /// What the `unix` workload attestor tells.
    pub attestor: attestor::Options,
    /// Whether health and metrics are served over HTTP.
    pub metrics: Metrics,
    /// Where the service manager puts credentials: `$CREDENTIALS_DIRECTORY`, never from the file.
    pub credentials_directory: Option<PathBuf>,
}

/// Where the CA is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaAddress {
    /// At this `host:port`, whatever a join string says.
    At(String),
    /// Where the join string says.
    FromJoinString,
}

/// How a node that is not attested is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// With one string that names the CA, a token and the hash of the root.
    JoinString(SecretSource),
    /// With a token, and a trust bundle that was brought here by other means.
    Token {
        /// The token.
        token: SecretSource,
        /// The trust bundle, PEM or SPIFFE JWKS.
        bundle: PathBuf,
    },
    /// Not at all: the node has to be attested already.
    Nothing,
}

/// Where a secret is read from. Never the command line, which every local user can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// Standard input, once.
    StandardInput,
    /// A file of this name among the credentials of the service manager.
    Credential(String),
}

/// Whether health and metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At this address.
    Listen(SocketAddr),
}

impl Config {
    /// Parses the file. Every problem found is reported.
    pub fn parse(source: &Source) -> Result<Self, Problems> {
        let (mut read, root) = Reader::open(source);
        let config = root.as_ref().and_then(|root| Self::read(root, &mut read));
        read.finish()?;
        config.ok_or_else(Problems::default)
    }

    fn read(root: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut file = read.map(root)?;
        let version = file.version("agent/v1", read);
        let trust_domain = file
            .required("trust_domain", read)
            .and_then(|node| read.parsed(node, "a trust domain such as prod.example"));
        let ca = file.optional("ca").and_then(|node| Some(CaAddress::At(address(node, read)?)));
        let data_dir = path(file.optional("data_dir"), Path::new(DEFAULT_DATA_DIR), read);
        let socket = path(file.optional("socket"), Path::new(DEFAULT_SOCKET), read);
        let admin_socket = path(file.optional("admin_socket"), &data_dir.clone()?.join("admin.sock"), read);
        let ca = ca.unwrap_or(CaAddress::FromJoinString);
        let bootstrap = match file.optional("bootstrap") {
            Some(node) => bootstrap(node, &ca, read),
            None => Some(Bootstrap::Nothing),
        };
        let attestor = attestors(file.optional("workload_attestors"), read);
        let metrics = metrics(file.optional("metrics"), read);
        file.finish(read);
        version?;
        Some(Self {
            trust_domain: trust_domain?,
            ca,
            data_dir: data_dir?,
            socket: socket?,
            admin_socket: admin_socket?,
            bootstrap: bootstrap?,
            attestor: attestor?,
            metrics: metrics?,
            credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        })
    }
}

fn path(node: Option<&Node>, default: &Path, read: &mut Reader<'_>) -> Option<PathBuf> {
    let Some(node) = node else { return Some(default.to_owned()) };
    let path = read.path(node)?;
    if path.is_relative() {
        read.problem(
            node,
            "expected an absolute path",
            Some("a daemon has no directory that a path could be relative to"),
        );
        return None;
    }
    Some(path)
}

fn address(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let text = read.string(node)?;
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse::<u16>().ok());
    let is_uri = format!("http://{text}/").parse::<::http::Uri>().is_ok_and(|uri| uri.authority().is_some());
    if port.is_none_or(|port| port == 0) || !is_uri || text.contains('@') || text.contains('/') {
        read.problem(node, "expected host:port", Some("such as ca.prod.example:8081 or [2001:db8::1]:8081"));
        return None;
    }
    Some(text.to_owned())
}

fn bootstrap(node: &Node, ca: &CaAddress, read: &mut Reader<'_>) -> Option<Bootstrap> {
    let mut fields = read.map(node)?;
    let join_string =
        secret(fields.optional("join_string_file"), fields.optional("join_string_credential"), read);
    let token = secret(fields.optional("join_token_file"), fields.optional("join_token_credential"), read);
    let bundle = fields.optional("trust_bundle_file").map(|node| path(Some(node), Path::new("/"), read));
    fields.finish(read);
    match (join_string?, token?, bundle) {
        (Some(source), None, None) => Some(Bootstrap::JoinString(source)),
        (None, Some(token), Some(bundle)) => {
            if *ca == CaAddress::FromJoinString {
                read.problem(
                    node,
                    "a join token does not say where the CA is",
                    Some("add \"ca: host:port\""),
                );
                return None;
            }
            Some(Bootstrap::Token { token, bundle: bundle? })
        }
        (None, Some(_), None) => {
            read.problem(
                node,
                "a join token needs a trust bundle to recognise the CA by",
                Some("add trust_bundle_file, or use a join string, which carries the hash of the root"),
            );
            None
        }
        (Some(_), Some(_), _) | (Some(_), None, Some(_)) | (None, None, _) => {
            read.problem(
                node,
                "expected either a join string, or a join token with a trust bundle",
                Some("join_string_file, join_string_credential, or join_token_file with trust_bundle_file"),
            );
            None
        }
    }
}

/// Reads a pair of keys of which at most one may be there. The outer `None` means that a problem was noted.
fn secret(
    file: Option<&Node>,
    credential: Option<&Node>,
    read: &mut Reader<'_>,
) -> Option<Option<SecretSource>> {
    match (file, credential) {
        (None, None) => Some(None),
        (Some(node), None) if read.string(node)? == "-" => Some(Some(SecretSource::StandardInput)),
        (Some(node), None) => Some(Some(SecretSource::File(path(Some(node), Path::new("/"), read)?))),
        (None, Some(node)) => {
            let name = read.string(node)?;
            // A name with a slash would leave the directory of the credentials.
            if name.contains('/') || name == "." || name == ".." {
                read.problem(
                    node,
                    "expected the name of a credential",
                    Some("such as vouchsafe-join, as in LoadCredential="),
                );
                return None;
            }
            Some(Some(SecretSource::Credential(name.to_owned())))
        }
        (Some(_), Some(node)) => {
            read.problem(node, "the secret is named twice", Some("keep the file or the credential"));
            None
        }
    }
}

fn attestors(node: Option<&Node>, read: &mut Reader<'_>) -> Option<attestor::Options> {
    let Some(node) = node else { return Some(attestor::Options::default()) };
    let mut fields = read.map(node)?;
    let unix = fields.optional("unix");
    fields.finish(read);
    unix.map_or(Some(attestor::Options::default()), |node| unix_attestor(node, read))
}

fn unix_attestor(node: &Node, read: &mut Reader<'_>) -> Option<attestor::Options> {
    let default = attestor::Options::default();
    let mut fields = read.map(node)?;
    let path =
        fields.optional("path").map_or(Some(default.path), |node| read.boolean(node).map(Switch::from));
    let sha256 =
        fields.optional("sha256").map_or(Some(default.sha256), |node| read.boolean(node).map(Switch::from));
    let limit = fields.optional("sha256_limit").map_or(Some(default.sha256_limit), |node| read.size(node));
    fields.finish(read);
    Some(attestor::Options { path: path?, sha256: sha256?, sha256_limit: limit? })
}

fn metrics(node: Option<&Node>, read: &mut Reader<'_>) -> Option<Metrics> {
    let Some(node) = node else { return Some(Metrics::Off) };
    let mut fields = read.map(node)?;
    let listen = fields
        .required("listen", read)
        .and_then(|node| read.parsed(node, "an address such as 127.0.0.1:9464"));
    fields.finish(read);
    listen.map(Metrics::Listen)
}

impl Default for attestor::Options {
    fn default() -> Self {
        Self { path: Switch::On, sha256: Switch::On, sha256_limit: DEFAULT_SHA256_LIMIT }
    }
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

#[cfg(test)]
mod tests;
