//! `policy explain`: would this request pass, by which rule, and what did the nearest rules lack?

use std::io::{self, Read as _, Write};
use std::time::SystemTime;

use anyhow::Context as _;
use identity::SpiffeId;
use policy::{
    CanonicalHost, CanonicalPath, Connection, Decision, Explanation, MAX_QUESTION_BYTES, Malformed, Mesh,
    Options, PeerIdentity, PolicySet, Question, Request, Traffic, Unselected, WorkloadPolicies,
};
use serde::Serialize;

use super::files::{self, Compiled};
use super::{Caller, asked};
use crate::cli::policy::{PolicyExplain, SpelledCall};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyExplain) -> Result<Exit, Failure> {
    let (title, explanation) = match (&args.question, args.spelled()) {
        (Some(text), _) => of_question(args, text)?,
        (None, Some(call)) => of_arguments(args, &call)?,
        (None, None) => {
            let told = "name the call with --from, --to and --port, or with --request";
            return Err(Failure::because(Exit::Unacceptable, told));
        }
    };
    print(&mut output::stdout(), args.output.format, &title, &explanation)?;
    Ok(exit(&explanation))
}

/// The exit code that a decision is.
fn exit(explanation: &Explanation) -> Exit {
    match explanation.decision {
        Some(Decision::Allow(_)) => Exit::Done,
        Some(Decision::Deny(_)) | None => Exit::Denied,
    }
}

fn of_arguments(args: &PolicyExplain, call: &SpelledCall<'_>) -> Result<(String, Explanation), Failure> {
    // As a sidecar without a word about it: what nothing selects is refused.
    let mesh = Mesh {
        trust_domain: call.to.trust_domain().to_string(),
        unselected: Unselected::Deny,
        ..Mesh::default()
    };
    let options = Options { mesh, ..Options::default() };
    let Compiled { sources, set } = files::compile(&args.policies, &options).or_exit(Exit::Unacceptable)?;
    let mut explanation = explanation(&set, args, call)?;
    if set.for_workload(call.to).is_empty() && !set.is_empty() {
        let told = "note: no policy names this workload by its SPIFFE ID; for Istio's, that select by labels, say them with --workload and --request";
        writeln!(output::stderr(), "{told}")?;
    }
    if let Some(generation) = files::generation(&sources, &args.policies) {
        explanation.generation = generation;
    }
    let what = args.request.as_deref().unwrap_or("a TCP connection");
    let title = format!("{} -> {} port {}: {what}", call.from.as_str(), call.to, call.port);
    Ok((title, explanation))
}

fn explanation(
    set: &PolicySet,
    args: &PolicyExplain,
    call: &SpelledCall<'_>,
) -> Result<Explanation, Failure> {
    let now: SystemTime = args.at.0;
    let connection = Connection::new(call.from.peer(), args.source, call.port, now);
    explained(
        &set.for_workload(call.to),
        &connection,
        args.request.as_deref().map(|text| (text, args.host.as_str())),
    )
}

/// Explains a call: `METHOD /path` and a host, or a plain TCP connection.
pub(crate) fn explained(
    policies: &WorkloadPolicies,
    connection: &Connection<'_>,
    request: Option<(&str, &str)>,
) -> Result<Explanation, Failure> {
    let Some((text, host)) = request else {
        return Ok(policies.explain(connection, &Traffic::Tcp));
    };
    let (method, target) = request_line(text)?;
    let path = CanonicalPath::parse(target)
        .with_context(|| format!("{target:?} is a path that a sidecar answers with 400"))
        .or_exit(Exit::Unacceptable)?;
    let host = CanonicalHost::parse(host)
        .with_context(|| format!("{host:?} is a host that a sidecar answers with 400"))
        .or_exit(Exit::Unacceptable)?;
    let request = Request::new(method, Some(&host), &path);
    Ok(policies.explain(connection, &Traffic::HttpRequest(request)))
}

/// Splits `METHOD /path`.
fn request_line(text: &str) -> Result<(&str, &str), Failure> {
    match text.split_once(' ') {
        Some((method, target)) if http::Method::from_bytes(method.as_bytes()).is_ok() => Ok((method, target)),
        Some(_) | None => {
            Err(Failure::because(Exit::Unacceptable, format!("{text:?} is no request: write 'GET /path'")))
        }
    }
}

fn of_question(args: &PolicyExplain, text: &str) -> Result<(String, Explanation), Failure> {
    let asked = asked::load_for(&args.policies, args.workload.as_deref(), args.compat, args.to.as_ref())?;
    let line = if text == "-" { standard_input()? } else { text.as_bytes().to_vec() };
    let question = Question::parse(&line).or_exit(Exit::Unacceptable)?;
    let policies = asked.set().protecting(&asked.workload);
    let explained = question.put(&asked.set().mesh(), asked.reading, args.at.0, |connection, traffic| {
        policies.explain(connection, traffic)
    });
    let mut explanation = explained.map_err(refused)?;
    if let Some(generation) = files::generation(&asked.compiled.sources, &args.policies) {
        explanation.generation = generation;
    }
    let from = question.peer().map_or("unauthenticated", SpiffeId::as_str);
    let what = question.request_line().unwrap_or_else(|| "a TCP connection".to_owned());
    let title = format!("{from} -> {} port {}: {}", asked.workload.id, question.port(), audit::shown(&what));
    Ok((title, explanation))
}

fn refused(cause: Malformed) -> Failure {
    let told = anyhow::Error::new(cause).context("a sidecar answers the request with 400");
    Failure::new(Exit::Unacceptable, told)
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let most = MAX_QUESTION_BYTES as u64 + 1;
    io::stdin().take(most).read_to_end(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn print(to: &mut impl Write, format: Format, title: &str, explanation: &Explanation) -> Result<(), Failure> {
    let explained = Explained { schema: EXPLANATION, explanation };
    match format {
        Format::Table => writeln!(to, "{title}\n{explanation}")?,
        Format::Json => output::json(to, &explained)?,
        Format::Jsonl => {
            let line = serde_json::to_string(&explained).context("the explanation cannot be printed")?;
            writeln!(to, "{line}")?;
        }
    }
    Ok(())
}

impl Caller {
    /// The caller as policies see it.
    pub(crate) fn peer(&self) -> PeerIdentity<'_> {
        match self {
            Self::Id(id) => PeerIdentity::Authenticated(id),
            Self::Unauthenticated => PeerIdentity::Unauthenticated,
        }
    }

    /// The caller as it is written.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Id(id) => id.as_str(),
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

#[derive(Serialize)]
struct Explained<'a> {
    schema: &'static str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// The JSON shape of an explanation.
const EXPLANATION: &str = "vouchsafe/policy-explanation/v1";
