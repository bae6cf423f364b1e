//! The section `telemetry`.

use policy::{
    pattern::PathPattern,
    strict::{Node, Reader},
};
use tonic::transport::Uri;

use super::reading::present;
use crate::telemetry::{
    Config,
    access::{Format, Target},
    spans::Traces,
};

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Config> {
    let mut map = read.map(node)?;
    let routes = map.optional("routes").map(|node| {
        read.each(node, MAX_ROUTES, |read, item| {
            let text = read.string(item)?;
            PathPattern::parse(text)
                .map_err(|error| read.problem(item, format!("\"{text}\" is no path pattern: {error}"), None))
                .ok()
        })
    });
    let access_log = map.optional("access_log").map(|node| self::access_log(node, read));
    let traces = map.optional("traces").map(|node| self::traces(node, read));
    map.finish(read);
    Some(Config {
        routes: present(routes)?.unwrap_or_default(),
        access_log: present(access_log)?,
        traces: present(traces)?,
    })
}

fn access_log(node: &Node, read: &mut Reader<'_>) -> Option<(Target, Format)> {
    let mut map = read.map(node)?;
    let file = map.optional("file");
    let stdout = map.optional("stdout").map(|node| read.boolean(node));
    let target = match (file, present(stdout)?) {
        (Some(node), None | Some(false)) => read.path(node).map(Target::File),
        (None, Some(true)) => Some(Target::Stdout),
        (None, None | Some(false)) | (Some(_), Some(true)) => {
            read.problem(node, "expected either \"file\" or \"stdout: true\"", None);
            None
        }
    };
    let format = map.optional("format").map(|node| read.one_of(node, &["json", "text"]));
    map.finish(read);
    let format = match present(format)? {
        Some("text") => Format::Text,
        Some(_) | None => Format::Json,
    };
    target.map(|target| (target, format))
}

fn traces(node: &Node, read: &mut Reader<'_>) -> Option<Traces> {
    let mut map = read.map(node)?;
    let endpoint = map.required("endpoint", read).and_then(|node| endpoint(node, read));
    let sample = map.optional("sample").map(|node| sample(node, read));
    let service_name = map.optional("service_name").map(|node| read.string(node).map(str::to_owned));
    map.finish(read);
    Some(Traces {
        endpoint: endpoint?,
        sample: present(sample)?.unwrap_or(SAMPLE),
        service_name: present(service_name)?,
    })
}

/// Paths and peers are not for everybody on the wire: in plaintext a collector is on this host.
fn endpoint(node: &Node, read: &mut Reader<'_>) -> Option<Uri> {
    let uri: Uri = read.parsed(node, "a collector like http://127.0.0.1:4317")?;
    let host = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    let local = host.is_some_and(|host| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if uri.scheme_str() == Some("http") && local {
        return Some(uri);
    }
    read.problem(
        node,
        "spans go in plaintext to a collector on this host only",
        Some("use http://127.0.0.1:4317 and let a collector there pass them on"),
    );
    None
}

fn sample(node: &Node, read: &mut Reader<'_>) -> Option<f64> {
    let share: f64 = read.parsed(node, "a share from 0 to 1, such as 0.01")?;
    if (0.0..=1.0).contains(&share) {
        return Some(share);
    }
    read.problem(node, "a share is from 0 to 1", Some("0.01 records one trace in a hundred"));
    None
}

/// Routes are labels of metrics.
const MAX_ROUTES: usize = 64;
/// One trace in a hundred.
const SAMPLE: f64 = 0.01;
