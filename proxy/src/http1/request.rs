//! The head of one request: from the bytes that the scanner let through to the line that policy sees, and from that
//! line to the bytes that are sent. What is sent is what policy saw.

use http::{Method, header::TRAILER};
use policy::CanonicalPath;

use super::{
    fields::{Lines, is_same},
    flaw::Flaw,
    gate::Marks,
    headers,
    line::{RequestLine, Target},
    names::{Class, class_of},
    scanner::{Asked, First, Framing, Scanned, absolute},
};

/// What a request asks for beside what its line says.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) framing: Framing,
    /// It came in HTTP/1.0.
    pub(super) old: bool,
    /// The connection is to serve further requests.
    pub(super) keep_alive: bool,
    /// The body comes once it is asked for.
    pub(super) expects: bool,
    /// Trailers of the response are welcome.
    pub(super) trailers: bool,
    pub(super) asked: Asked,
}

impl Wishes {
    pub(super) fn has_no_body(&self) -> bool {
        self.framing == Framing::None
    }
}

/// What the fields of the connection say.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// Names of fields that end here.
    pub(super) named: Vec<Vec<u8>>,
}

impl Options {
    /// Reads every `Connection` field of a head.
    pub(super) fn of(head: &[u8], scanned: &Scanned) -> Self {
        let mut options = Self::default();
        for field in &scanned.fields {
            if field.name(head).eq_ignore_ascii_case(b"connection") {
                field
                    .value(head)
                    .split(|&byte| byte == b',')
                    .for_each(|option| options.read(option.trim_ascii()));
            }
        }
        options
    }

    fn read(&mut self, option: &[u8]) {
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if !option.is_empty() {
            self.named.push(option.to_ascii_lowercase());
        }
    }

    /// Says whether a field that would go on ends here. The framing and the host are not the sender's to remove.
    pub(super) fn end(&self, name: &[u8], class: Class) -> bool {
        let removable = match class {
            Class::Host | Class::ContentLength | Class::TransferEncoding | Class::Trailer => false,
            Class::Plain
            | Class::Connection
            | Class::Te
            | Class::Upgrade
            | Class::Expect
            | Class::Date
            | Class::GrpcStatus
            | Class::Hop
            | Class::ProxyAuth
            | Class::Identity
            | Class::Override
            | Class::Misspelt => true,
        };
        removable && self.named.iter().any(|named| named == name)
    }
}

impl RequestLine {
    /// Reads the line of a scanned head. Only the fields that are forwarded are kept.
    pub(super) fn of_head(head: &[u8], scanned: Scanned) -> Result<(Self, Wishes), Flaw> {
        let options = Options::of(head, &scanned);
        let First::Request { old, method, target, .. } = &scanned.first else {
            return Err(Flaw::RequestLine);
        };
        let method = head.get(..*method).and_then(|text| Method::from_bytes(text).ok());
        let method = method.ok_or(Flaw::RequestLine)?;
        let target = target_of(&method, head.get(target.clone()).unwrap_or_default())?;
        let host = scanned.host.clone().ok_or(Flaw::HostMissing)?;
        let authority = match host.port() {
            Some(_) => host.to_string(),
            None => host.as_str().to_owned(),
        };
        let mut fields = Forwarded::of(head, &scanned, &options, &authority);
        if *old {
            // RFC 9110 7.8: an old client cannot ask for another protocol.
            fields.upgrade = None;
        }
        let wishes = Wishes {
            framing: scanned.framing,
            old: *old,
            keep_alive: if *old { options.keep_alive && !options.close } else { !options.close },
            expects: fields.expects && !*old,
            trailers: fields.trailers,
            asked: asked(&method, fields.upgrade.is_some()),
        };
        Ok((Self::of_lines(method, host, target, authority, (fields.upgrade, fields.lines)), wishes))
    }

    /// Writes the head that goes on.
    pub(super) fn write(&self, marks: &Marks, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        match &self.target {
            Target::Path { path, .. } => {
                out.extend_from_slice(path.as_str().as_bytes());
                if let Some(query) = path.query() {
                    out.push(b'?');
                    out.extend_from_slice(query.as_bytes());
                }
            }
            Target::Tunnel { .. } => out.extend_from_slice(self.authority().as_bytes()),
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(lines) = self.fields().lines() {
            lines.write(out, |name| marks.remove(name));
        }
        for (name, value) in &marks.set {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
        if let Some(protocol) = self.upgrade() {
            line(out, b"connection", b"upgrade");
            line(out, b"upgrade", protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Marks {
    /// Says whether a field that came goes no further.
    fn remove(&self, name: &[u8]) -> bool {
        (self.drop_trailers && is_same(name, TRAILER.as_str().as_bytes()))
            || self.strip.as_ref().is_some_and(|stripped| is_same(name, stripped.as_bytes()))
            || self.set.iter().any(|(ours, _)| ours.as_str().as_bytes() == name)
    }
}

/// Adds a field line.
pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn asked(method: &Method, upgrade: bool) -> Asked {
    match *method {
        Method::HEAD => Asked::Head,
        Method::CONNECT => Asked::Connect,
        _ if upgrade => Asked::Upgrade,
        _ => Asked::Plain,
    }
}

fn target_of(method: &Method, target: &[u8]) -> Result<Target, Flaw> {
    if method == Method::CONNECT {
        return CanonicalPath::parse("/").map(|root| Target::Tunnel { root }).map_err(Flaw::Path);
    }
    let origin = absolute(target).map_or(target, |(_, path)| path);
    Target::path(std::str::from_utf8(origin).map_err(|_| Flaw::Target)?)
}

/// The fields of a request that go on, and what the others say.
struct Forwarded {
    lines: Lines,
    upgrade: Option<String>,
    expects: bool,
    trailers: bool,
}

impl Forwarded {
    fn of(head: &[u8], scanned: &Scanned, options: &Options, authority: &str) -> Self {
        let lines = Lines::with_capacity(head.len() + authority.len(), scanned.fields.len() + 1);
        let mut forwarded = Self { lines, upgrade: None, expects: false, trailers: false };
        forwarded.lines.push(b"host", authority.as_bytes(), |_| true);
        let mut upgrades: Vec<&[u8]> = Vec::new();
        for field in &scanned.fields {
            let (value, mut class) = (field.value(head), Class::Plain);
            forwarded.lines.push(field.name(head), value, |name| {
                class = class_of(name);
                goes_on(class) && (options.named.is_empty() || !options.end(name, class))
            });
            match class {
                Class::Te => forwarded.trailers |= headers::names_trailers(value),
                Class::Upgrade => upgrades.push(value),
                Class::Expect => forwarded.expects |= value.eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
        }
        if forwarded.trailers {
            forwarded.lines.push(b"te", b"trailers", |_| true);
        }
        if !upgrades.is_empty() {
            forwarded.upgrade = headers::wanted(upgrades.into_iter());
        }
        forwarded
    }
}

/// Whether a field of a request passes.
fn goes_on(class: Class) -> bool {
    match class {
        Class::Plain
        | Class::ContentLength
        | Class::TransferEncoding
        | Class::Trailer
        | Class::Date
        | Class::GrpcStatus => true,
        // Ours is already there.
        Class::Host => false,
        Class::Connection
        | Class::Te
        | Class::Upgrade
        | Class::Expect
        | Class::Hop
        | Class::ProxyAuth
        | Class::Identity
        | Class::Override
        | Class::Misspelt => false,
    }
}
