//! The record: one line of JSON in the shape of OCSF 1.6.0.
//!
//! What OCSF has no word for sits under `unmapped.vouchsafe`, whose last two fields are the hash chain.
//! A field that is unknown is absent, never empty. Every text that a peer can choose is capped
//! (`metadata.is_truncated` says so) and escaped, so that a record is always one line within `MAX_LINE`.

use serde::{Deserialize, Serialize};

pub use self::line::MAX_LINE;
pub(crate) use self::{
    build::{Subject, millis},
    class::{CLOSED, GAP, OPENED, REMOVED, ROTATED},
    line::write_line,
};

mod build;
pub(crate) use build::rfc3339;
mod class;
mod line;
#[cfg(test)]
mod tests;

/// The OCSF version whose shape the records have.
pub const OCSF_VERSION: &str = "1.6.0";

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened, in milliseconds since 1970.
    pub time: i64,
    /// 4001 network activity, 4002 HTTP activity, 6002 application lifecycle, 1008 event log activity.
    pub class_uid: u32,
    /// The class without its last three digits.
    pub category_uid: u32,
    /// What was done, by the class's own numbering.
    pub activity_id: u32,
    /// Class times 100 plus activity.
    pub type_uid: u32,
    /// 1 informational, 2 low, 3 medium.
    pub severity_id: u32,
    /// 1 allowed, 2 denied, 3 observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_id: Option<u32>,
    /// 1 allowed, 2 blocked, 17 logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disposition_id: Option<u32>,
    /// 1 success, 2 failure.
    pub status_id: u32,
    /// The reason of a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
    /// How many events this record stands for, where that is not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The time of the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<i64>,
    /// The time of the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// How long a closed connection lived, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
    /// About the record itself.
    pub metadata: Metadata,
    /// The log that was started, changed or stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_name: Option<String>,
    /// The daemon whose life this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<Product>,
    /// Who called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_endpoint: Option<NetworkEndpoint>,
    /// Who was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_endpoint: Option<NetworkEndpoint>,
    /// What TLS showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_request: Option<HttpRequest>,
    /// What a closed connection carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_rule: Option<FirewallRule>,
    /// What OCSF has no word for. Last, so that the hash ends the line.
    pub unmapped: Unmapped,
}

impl Record {
    /// Returns how many events the record stands for.
    pub fn count(&self) -> u64 {
        self.count.unwrap_or(1)
    }
}

/// About a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The OCSF version.
    pub version: String,
    /// The record's own ULID.
    pub uid: String,
    /// The record's number in its chain; no number is left out.
    pub sequence: u64,
    /// Always `vouchsafe.audit`.
    pub log_name: String,
    /// Who wrote it.
    pub product: Product,
    /// The OCSF profiles in use.
    pub profiles: Vec<String>,
    /// When it happened, as RFC 3339 with microseconds.
    pub original_time: String,
    /// Whether a text was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_truncated: Option<bool>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// `vouchsafe <daemon>`.
    pub name: String,
    /// Always `Vouchsafe`.
    pub vendor_name: String,
    /// The SPIFFE ID the daemon acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The daemon's version.
    pub version: String,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkEndpoint {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The SPIFFE ID; absent where nobody proved one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The name the configuration gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svc_name: Option<String>,
}

/// What TLS showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// The protocol version.
    pub version: String,
    /// The server name asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The peer's leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// What finds a certificate again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The trust domain that issued it.
    pub issuer: String,
    /// The serial number in hex.
    pub serial_number: String,
    /// Its fingerprints.
    pub fingerprints: Vec<Fingerprint>,
}

/// The hash of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// 3 is SHA-256.
    pub algorithm_id: u32,
    /// The hash in hex.
    pub value: String,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// The method.
    pub http_method: String,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// What it asks for.
    pub url: Url,
}

/// What a request asks for, without the query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Url {
    /// The path as it is forwarded.
    pub path: String,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `https` under TLS, else `http`.
    pub scheme: String,
}

/// What a connection carried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes to the callee.
    pub bytes_in: u64,
    /// Bytes to the caller.
    pub bytes_out: u64,
    /// Both.
    pub bytes: u64,
}

/// The policy that decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its file.
    pub uid: String,
    /// The hash of the policy set it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// Its name.
    pub name: String,
    /// `file#rule`.
    pub uid: String,
}

/// Holds our own fields, as OCSF asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unmapped {
    /// Our own fields.
    pub vouchsafe: Vouchsafe,
}

/// A token, without whom it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jwt {
    /// Who issued it; unproven where there is a flaw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The key it names; unproven where there is a flaw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Why it proves nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flaw: Option<String>,
}

/// What OCSF has no word for. `prev` and `hash` stay last: the chain is over the bytes before the hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vouchsafe {
    /// `denied`, `would_deny`, `opened`, `closed`, `allowed` or `lifecycle`.
    pub decision: String,
    /// `handshake`, `connect`, `request`, `reevaluate` or `admin`.
    pub stage: String,
    /// The connection; absent where the record is about none or about many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_id: Option<String>,
    /// What the refused client was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
    /// The finer code beside `status_detail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The generation of the policy set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Whether the denial was in shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
    /// The line the rule starts at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_line: Option<u32>,
    /// The port dialled, where interception changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orig_dst_port: Option<u16>,
    /// The path as it came, in base 64, where it was not the path forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_raw_b64: Option<String>,
    /// Whether normalisation changed the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized_changed: Option<bool>,
    /// The token of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// The nearest allow rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near_miss: Vec<NearMiss>,
    /// Why a connection ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_cause: Option<String>,
    /// What a record that stands for many has in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// What changed, in a lifecycle record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The chain's own ULID, made with its first record.
    pub chain: String,
    /// The hash of the record before, in hex; zeros in the first.
    pub prev: String,
    /// SHA-256 over `prev` as bytes and over this line up to the hash's first digit, in hex.
    pub hash: String,
}

/// An allow rule that did not match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearMiss {
    /// `file#rule`.
    pub rule: String,
    /// The policy's name.
    pub policy: String,
    /// The line the rule starts at.
    pub line: u32,
    /// The first dimension that did not match.
    pub failed: String,
    /// What the rule asks for.
    pub wanted: String,
    /// What the access had.
    pub found: String,
}

/// What the events behind one record have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// `flow` (source, destination, rule, reason, method), `rule` (destination, rule, reason) or `reason`.
    pub key: String,
    /// The network the source was counted under, where it has no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_net: Option<String>,
    /// What the last client was told; the first is `denial_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_denial_id: Option<String>,
}

/// A change of a daemon or of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Change {
    /// What changed, such as `log_opened` or `policy_changed`.
    pub what: String,
    /// The file before this one, or the file removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether the log before ended without its last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclean_shutdown: Option<bool>,
    /// How many bytes of an unfinished line were cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_bytes: Option<u64>,
    /// How many events could not be written one by one and follow as aggregates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated: Option<u64>,
    /// Since when, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many live connections the change cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}
