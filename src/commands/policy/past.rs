//! Past calls out of an audit log, as far as the log keeps them.
//!
//! A sidecar records every denial, every would-be denial of a policy in shadow, and every connection that it let through; it does
//! not record each allowed request. A record may stand for many calls, of which it then keeps one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use audit::Record;
use audit::read;
use identity::SpiffeId;
use policy::{
    CanonicalHost, CanonicalPath, Connection, Decision, Dimension, PeerIdentity, Recalled, Request, Token,
    Traffic, WorkloadPolicies,
};
use serde::Serialize;

use crate::cli::moment::Moment;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output;

/// What became of a past call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Was {
    Allowed,
    Denied,
    WouldDeny,
}

/// A past call.
#[derive(Debug, Clone)]
pub(super) struct PastCall {
    pub(super) from: Option<SpiffeId>,
    pub(super) to: SpiffeId,
    pub(super) port: u16,
    pub(super) source: IpAddr,
    pub(super) destination: Option<IpAddr>,
    pub(super) sni: Option<String>,
    pub(super) time: SystemTime,
    pub(super) was: Was,
    pub(super) reason: Option<String>,
    pub(super) asked: PastAsked,
    /// How many calls the record stands for.
    pub(super) count: u64,
    /// Whether each of them was as this one, as far as policies look.
    pub(super) alike: bool,
    /// Where the record is.
    pub(super) place: String,
}

/// What a past call asked for.
#[derive(Debug, Clone)]
pub(super) enum PastAsked {
    /// A connection: opaque, or refused before its first request.
    Connection,
    /// A connection that was let through without a rule's word: its requests are not on record.
    Requests,
    /// A request.
    Request { method: String, host: Option<CanonicalHost>, path: CanonicalPath },
    /// A request that policies were not asked about.
    Unreadable,
}

/// What a call comes to under policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Decided(Decision),
    /// It cannot be told, and why.
    Undecidable(String),
}

/// Shows every past call of the logs to `see`; lines that are no records are told on standard error.
pub(super) fn each_call(
    files: &[PathBuf],
    since: Option<Moment>,
    mut see: impl FnMut(PastCall),
) -> Result<(), Failure> {
    let mut paths = Vec::new();
    for file in files {
        paths.extend(read::find(file).or_exit(Exit::Unacceptable)?);
    }
    for entry in read::files(paths) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(problem) => {
                // With standard error gone there is nobody left to tell.
                let _ =
                    std::io::Write::write_fmt(&mut output::stderr(), format_args!("warning: {problem}\n"));
                continue;
            }
        };
        let call = PastCall::of(&entry.record, format!("{}:{}", entry.file, entry.line));
        if let Some(call) = call.filter(|call| since.is_none_or(|since| call.time >= since.0)) {
            see(call);
        }
    }
    Ok(())
}

impl PastCall {
    /// The call that a record is about; none where it is about none that policies decide.
    fn of(record: &Record, place: String) -> Option<Self> {
        let ours = &record.unmapped.vouchsafe;
        let was = match ours.decision.as_str() {
            "opened" | "allowed" => Was::Allowed,
            "denied" => Was::Denied,
            "would_deny" => Was::WouldDeny,
            _ => return None,
        };
        let reason = record.status_detail.clone();
        // Decided by policies, not by the verifier, a limit or the listener.
        let by_policy = reason.as_deref().is_none_or(|reason| BY_POLICY.contains(&reason));
        let (source, destination) = (record.src_endpoint.as_ref(), record.dst_endpoint.as_ref()?);
        let to: SpiffeId = destination.uid.as_deref()?.parse().ok()?;
        // What a sidecar records of its own calls to others was decided by the other side.
        let own = record.metadata.product.uid.as_deref().is_none_or(|uid| uid == to.as_str());
        if !by_policy || !own || ours.stage == "handshake" {
            return None;
        }
        let from = match source.and_then(|end| end.uid.as_deref()) {
            Some(id) => Some(id.parse().ok()?),
            None => None,
        };
        let address = |text: Option<&String>| text.and_then(|text| text.parse().ok());
        let count = record.count();
        Some(Self {
            from,
            to,
            port: destination.port?,
            source: address(source.and_then(|end| end.ip.as_ref())).unwrap_or(NOBODY),
            destination: address(destination.ip.as_ref()),
            sni: record.tls.as_ref().and_then(|tls| tls.sni.clone()),
            time: UNIX_EPOCH + Duration::from_millis(u64::try_from(record.time).ok()?),
            was,
            asked: asked(record, was),
            reason,
            count,
            alike: record.metadata.is_truncated != Some(true)
                && (count == 1 || record.http_request.is_none()),
            place,
        })
    }

    /// Decides the call by other policies, as far as the log allows; `at` overrides its own time.
    pub(super) fn decide(&self, policies: &WorkloadPolicies, at: Option<SystemTime>) -> Outcome {
        let peer = self.from.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let connection = Connection {
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Connection::new(peer, self.source, self.port, at.unwrap_or(self.time))
        };
        let mut unknown = BTreeSet::from([Dimension::Header, Dimension::Host, Dimension::Jwt]);
        unknown.extend(self.destination.is_none().then_some(Dimension::Destination));
        let recalled = match &self.asked {
            PastAsked::Connection if self.was != Was::Allowed && may_be_http(policies, &connection) => {
                return Outcome::Undecidable(
                    "the record does not say whether requests were to follow".to_owned(),
                );
            }
            PastAsked::Connection => policies.recall(&connection, &Traffic::Tcp, &unknown),
            PastAsked::Requests => return requests(policies, &connection),
            PastAsked::Unreadable => return Outcome::Undecidable("the record keeps no request".to_owned()),
            PastAsked::Request { method, host, path } => {
                let mut request = Request::new(method, host.as_ref(), path);
                if self.reason.as_deref() == Some(JWT_INVALID) {
                    request.token = Token::Invalid;
                    unknown.remove(&Dimension::Jwt);
                }
                policies.recall(&connection, &Traffic::HttpRequest(request), &unknown)
            }
        };
        match recalled {
            Recalled::Decided(decision) if self.alike => Outcome::Decided(decision),
            Recalled::Decided(_) => {
                Outcome::Undecidable("the record stands for several calls, or was cut".to_owned())
            }
            Recalled::Undecidable { rules, needs } => {
                let needs: Vec<&str> = needs.iter().map(|need| need.as_str()).collect();
                let rule = rules.first().map(|rule| format!(", which {rule} looks at")).unwrap_or_default();
                Outcome::Undecidable(format!("the log does not keep {}{rule}", needs.join(", ")))
            }
        }
    }
}

// A refused connection may have been one for requests, of which some would pass.
fn may_be_http(policies: &WorkloadPolicies, connection: &Connection<'_>) -> bool {
    matches!(policies.at_connect(connection), policy::AtConnect::Residual(_))
}

// Refused at once, it is refused whatever was asked; else its requests would have to be known.
fn requests(policies: &WorkloadPolicies, connection: &Connection<'_>) -> Outcome {
    match policies.at_connect(connection) {
        policy::AtConnect::Deny(denial) => Outcome::Decided(Decision::Deny(denial)),
        policy::AtConnect::Residual(_) => {
            Outcome::Undecidable("allowed requests are not on record one by one".to_owned())
        }
    }
}

fn asked(record: &Record, was: Was) -> PastAsked {
    let Some(http) = &record.http_request else {
        let by_rule = record.firewall_rule.is_some();
        return if was == Was::Allowed && !by_rule { PastAsked::Requests } else { PastAsked::Connection };
    };
    let host = http.url.hostname.as_deref();
    match (CanonicalPath::parse(&http.url.path), host.map(CanonicalHost::parse).transpose()) {
        (Ok(path), Ok(host)) => PastAsked::Request { method: http.http_method.clone(), host, path },
        (Err(_), _) | (_, Err(_)) => PastAsked::Unreadable,
    }
}

const BY_POLICY: &[&str] =
    &["explicit_deny", "no_allow_matched", "no_policy", "unauthenticated", JWT_INVALID, "policy_unavailable"];

const JWT_INVALID: &str = "jwt_invalid";

const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
