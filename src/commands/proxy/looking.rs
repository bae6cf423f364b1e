//! `vouchsafe proxy top` and `vouchsafe proxy tap`: who calls a running sidecar, and single requests as they end.

use std::io::{self, IsTerminal as _, Write};

use policy::CanonicalPath;
use policy::pattern::PathPattern;
use proxy::telemetry::looking;
use serde_json::Value;

use super::running;
use crate::cli::proxy::looking::{Direction, Ended, ProxyTap, ProxyTop};
use crate::commands::block_on;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// Shows pictures until there are enough.
pub(super) fn top(args: &ProxyTop) -> Result<Exit, Failure> {
    let socket = running::socket(&args.running)?;
    let live = io::stdout().is_terminal() && args.output.format == Format::Table;
    let pictures = args.count.unwrap_or(if live { u64::MAX } else { 1 });
    block_on(async {
        // Counting begins with the first look.
        looking::top(&socket).await.map_err(running::failure)?;
        for _ in 0..pictures {
            tokio::time::sleep(args.interval).await;
            let seen = looking::top(&socket).await.map_err(running::failure)?;
            let mut to = output::stdout();
            if live {
                write!(to, "{CLEAR}")?;
            }
            picture(&mut to, args.output.format, &seen)?;
            to.flush()?;
        }
        Ok(Exit::Done)
    })
}

fn picture(to: &mut impl Write, format: Format, seen: &Value) -> io::Result<()> {
    match format {
        Format::Json => return output::json(to, seen),
        Format::Jsonl => return writeln!(to, "{seen}"),
        Format::Table => {}
    }
    let seconds = seen["seconds"].as_f64().unwrap_or(1.0).max(0.001);
    writeln!(to, "{} connections open", seen["connections"])?;
    writeln!(to)?;
    let headings = ["PEER", "SERVICE", "WAY", "REQ/S", "REFUSED/S", "FAILED/S", "MEAN", "MAX"];
    let rows = rows(&seen["requests"]).map(|row| {
        let rate = |key: &str| format!("{:.1}", row[key].as_f64().unwrap_or(0.0) / seconds);
        let time = |key: &str| format!("{:.2} ms", row[key].as_f64().unwrap_or(0.0) / 1e3);
        let word = |key: &str| audit::shown(row[key].as_str().unwrap_or("-"));
        let rates = [rate("requests"), rate("refused"), rate("failed"), time("mean_us"), time("max_us")];
        [word("peer"), word("service"), word("direction")].into_iter().chain(rates).collect()
    });
    output::columns(to, &headings, rows)?;
    writeln!(to)?;
    let rows = rows_of_open(&seen["open"]);
    output::columns(to, &["PEER", "OPEN", "PORT", "KIND"], rows)
}

fn rows_of_open(open: &Value) -> impl Iterator<Item = Vec<String>> {
    rows(open).map(|row| {
        let peer = audit::shown(row["peer"].as_str().unwrap_or("-"));
        let kind = audit::shown(row["role"].as_str().unwrap_or("-"));
        vec![peer, row["connections"].to_string(), row["port"].to_string(), kind]
    })
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().take(MAX_ROWS)
}

/// Shows requests until there are enough.
pub(super) fn tap(args: &ProxyTap) -> Result<Exit, Failure> {
    let socket = running::socket(&args.running)?;
    let filter = Filter::new(args)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut failed = None;
    block_on(async {
        let see = |request: &Value| {
            if request["missed"].is_number() || filter.takes(request) {
                failed = show(args.output.format, request).err();
                left = left.saturating_sub(1);
            }
            left > 0 && failed.is_none()
        };
        looking::tap(&socket, see).await.map_err(running::failure)
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}

fn show(format: Format, request: &Value) -> io::Result<()> {
    let mut to = output::stdout();
    match (format, &request["missed"]) {
        (Format::Json | Format::Jsonl, _) => writeln!(to, "{request}")?,
        (Format::Table, Value::Number(missed)) => writeln!(to, "... {missed} requests more ...")?,
        (Format::Table, _) => {
            let word = |key: &str| request[key].as_str().unwrap_or("-").to_owned();
            let status = request["status"].as_u64().map_or("-".to_owned(), |status| status.to_string());
            let text = format!(
                "{} {} {} -> {} {} {}{} {status} {} {:.2} ms",
                word("time"),
                word("direction"),
                word("peer"),
                word("service"),
                word("method"),
                word("host"),
                word("path"),
                word("outcome"),
                request["duration_us"].as_f64().unwrap_or(0.0) / 1e3
            );
            writeln!(to, "{}", audit::shown(&text))?;
        }
    }
    to.flush()
}

/// Which requests are shown.
struct Filter<'a> {
    args: &'a ProxyTap,
    path: Option<PathPattern>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a ProxyTap) -> Result<Self, Failure> {
        let path = args.path.as_deref().map(PathPattern::parse).transpose().map_err(|error| {
            let written = args.path.as_deref().unwrap_or_default();
            Failure::because(Exit::Unacceptable, format!("--path {written} is no pattern: {error}"))
        })?;
        if let Some(status) = &args.status
            && !is_status(status)
        {
            let message = format!("--status {status} is neither a status nor a class of them such as 4xx");
            return Err(Failure::because(Exit::Unacceptable, message));
        }
        Ok(Self { args, path })
    }

    fn takes(&self, request: &Value) -> bool {
        let word = |key: &str| request[key].as_str().unwrap_or_default();
        let peer = self.args.peer.as_ref().is_none_or(|pattern| {
            identity::SpiffeId::parse(word("peer")).is_ok_and(|peer| pattern.matches(&peer))
        });
        let path = self.path.as_ref().is_none_or(|pattern| {
            CanonicalPath::parse(word("path")).is_ok_and(|path| pattern.matches(&path))
        });
        let method = self.args.method.as_ref().is_none_or(|method| method == word("method"));
        let direction = self.args.direction.is_none_or(|direction| way(direction) == word("direction"));
        let outcome = self.args.outcome.is_none_or(|outcome| ended(outcome) == word("outcome"));
        peer && path && method && direction && outcome && self.has_status(&request["status"])
    }

    fn has_status(&self, status: &Value) -> bool {
        let Some(wanted) = &self.args.status else { return true };
        let status = status.to_string();
        match wanted.strip_suffix("xx") {
            Some(class) => status.len() == 3 && status.starts_with(class),
            None => status == *wanted,
        }
    }
}

fn is_status(text: &str) -> bool {
    let digits = text.strip_suffix("xx").unwrap_or(text);
    let length = if digits.len() == text.len() { 3 } else { 1 };
    digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

fn ended(outcome: Ended) -> &'static str {
    match outcome {
        Ended::Finished => "finished",
        Ended::Broken => "broken",
        Ended::Cut => "cut",
        Ended::Refused => "refused",
    }
}

/// To the first line, and nothing below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";
/// More lines than this nobody reads.
const MAX_ROWS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_digits_or_a_class() {
        for (text, good) in [("403", true), ("4xx", true), ("40", false), ("44xx", false), ("abc", false)] {
            assert_eq!(is_status(text), good, "{text}");
        }
    }
}
