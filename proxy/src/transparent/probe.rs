//! Health probes and metric scrapes: one plaintext `GET` or `HEAD` of exactly the path that was named, from exactly where
//! it was said to come from. Everything else that comes that way is refused and recorded.

use std::{net::SocketAddr, sync::Arc};

use audit::{DenialId, Reason, Stage};
use http::{
    Method,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use tokio::net::TcpStream;

use crate::{
    activity::Waiting,
    config::Probe,
    http1::{self, Admission, Answered, Flaw, Gate, Marks, RequestLine, Session, Target},
    inbound::{Door, unread},
    live::{Cut, Entry, Key, Role},
    record::{Refusal, Trace},
    shared::Shared,
    stream::Stream,
};

/// Serves a connection on which nobody proved anything.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    door: &Door,
    probes: &[&Probe],
    socket: TcpStream,
    (from, to): (SocketAddr, SocketAddr),
) {
    let trace =
        Trace::begin(shared.log.clone(), Arc::clone(&shared.metrics), Some(from)).to(&door.name, Some(to));
    let trace = match &shared.state.now().identity {
        Some(identity) => trace.for_workload(identity.id()),
        None => trace,
    };
    // No policy speaks of it: the right to it is written in the configuration, and lasts as long.
    let key = Key::new(Role::Outbound, None, Some(from.ip()), to.port());
    let entry = Entry { key, proof: None, opened: trace.opened_at(), waiting: Waiting::Request };
    let registered = shared.registry.register(entry);
    let live = Arc::clone(registered.live());
    let paths = probes.iter().map(|probe| probe.path.clone()).collect();
    let gate = ProbeGate { paths, trace, shared: Arc::clone(shared) };
    let session = Session::new(gate, door.onward(), live);
    let stream = Stream::Plain(socket);
    http1::serve(stream, shared.limits.head(), Arc::new(session), &shared.drain).await;
}

/// Lets exactly the probes pass.
struct ProbeGate {
    paths: Vec<String>,
    trace: Trace,
    shared: Arc<Shared>,
}

impl ProbeGate {
    fn refuse(&self, line: &RequestLine, code: &'static str) -> DenialId {
        self.shared.metrics.request("denied");
        let refusal = Refusal::plain(Stage::Request, Reason::NotPermitted(code));
        self.trace.denied(refusal.with_http(line.as_audit()))
    }
}

impl Gate for ProbeGate {
    fn admit(&self, line: &RequestLine) -> Admission {
        if line.beyond().is_some() || !is_probe(line, &self.paths) {
            return Admission::Refuse(self.refuse(line, "plaintext_and_no_probe"));
        }
        self.shared.metrics.request("probe");
        Admission::Forward
    }

    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> DenialId {
        self.shared.metrics.request("malformed");
        let http = line.map_or_else(|| unread(start), RequestLine::as_audit);
        let refusal = Refusal::plain(Stage::Request, Reason::MalformedRequest(flaw.code()));
        self.trace.denied(refusal.with_http(http))
    }

    fn mark(&self, _: &RequestLine) -> Result<Marks, DenialId> {
        Ok(Marks { drop_trailers: true, ..Marks::default() })
    }

    fn upstream_failed(&self, error: &'static str) {
        self.shared.metrics.upstream_failed(error);
    }

    fn answered(&self, answered: &Answered<'_>) {
        self.shared.metrics.answered(answered.status, answered.outcome);
    }

    fn cut(&self, cut: &Cut) {
        self.trace.cut(cut);
    }

    fn explains(&self) -> bool {
        false
    }
}

/// One request of exactly that form, with nothing that a probe does not need.
fn is_probe(line: &RequestLine, paths: &[String]) -> bool {
    let Target::Path { path, raw: None } = &line.target else { return false };
    let empty = line.fields().values(CONTENT_LENGTH.as_str()).all(|length| length == b"0");
    (line.method == Method::GET || line.method == Method::HEAD)
        && path.query().is_none()
        && paths.iter().any(|wanted| wanted == path.as_str())
        && empty
        && line.fields().values(TRANSFER_ENCODING.as_str()).next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_let_in(method: &str, target: &str, field: Option<(&str, &str)>) -> bool {
        let mut request = Request::builder().method(method).uri(target).header("host", "10.9.0.1:8080");
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        RequestLine::read(&mut parts).is_ok_and(|line| is_probe(&line, &["/healthz".to_owned()]))
    }

    #[test]
    fn only_a_bare_request_for_exactly_the_path_is_a_probe() {
        assert!(is_let_in("GET", "/healthz", None));
        assert!(is_let_in("HEAD", "/healthz", None));
        assert!(is_let_in("GET", "/healthz", Some(("user-agent", "kube-probe/1.34"))));
        for (method, target) in [
            ("POST", "/healthz"),
            ("OPTIONS", "/healthz"),
            ("CONNECT", "10.9.0.1:8080"),
            ("GET", "/"),
            ("GET", "/healthz/"),
            ("GET", "/healthz?x"),
            ("GET", "/healthz?"),
            ("GET", "/HEALTHZ"),
            ("GET", "//healthz"),
            ("GET", "/./healthz"),
            ("GET", "/x/../healthz"),
            ("GET", "/%68ealthz"),
            ("GET", "/healthz/x"),
        ] {
            assert!(!is_let_in(method, target, None), "{method} {target}");
        }
        assert!(!is_let_in("GET", "/healthz", Some(("content-length", "7"))));
        assert!(!is_let_in("GET", "/healthz", Some(("transfer-encoding", "chunked"))));
    }
}
