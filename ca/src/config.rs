//! The configuration of `vouchsafe ca`: one strict YAML file, every field typed when it is read.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use identity::TrustDomain;
use policy::strict::{Fields, Problems, Reader, Source};

/// What `vouchsafe ca` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whose CA this is.
    pub trust_domain: TrustDomain,
    /// Where the database and the keys are.
    pub data_dir: PathBuf,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_socket: PathBuf,
    /// Where entries are kept as files, if they are.
    pub entries_dir: Option<PathBuf>,
    /// Where the policies of the whole trust domain are kept, if the CA hands them out.
    pub policies: Option<PathBuf>,
    /// How long a signing authority lasts.
    pub ca_ttl: Duration,
    /// How long a workload's SVID lasts unless its entry says so.
    pub svid_ttl: Duration,
    /// How long an agent's SVID lasts.
    pub agent_svid_ttl: Duration,
    /// A file with the key that seals the authorities' keys, if they are to be sealed.
    pub seal_key_file: Option<PathBuf>,
    /// Where metrics and health are served, if they are.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// Reads a configuration file; every problem in it is in the error.
    pub fn parse(source: &Source) -> Result<Self, Problems> {
        let (mut read, root) = Reader::open(source);
        let config = root.as_ref().and_then(|root| {
            let mut map = read.map(root)?;
            map.version(VERSION, &mut read);
            let config = fields(&mut map, &mut read);
            map.finish(&mut read);
            config
        });
        read.finish()?;
        config.ok_or_else(|| {
            Problems::from(policy::strict::Problem::in_file(
                &source.name,
                "no configuration could be read",
                None,
            ))
        })
    }
}

fn fields(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Config> {
    let trust_domain = map.required("trust_domain", read);
    let trust_domain = trust_domain.and_then(|node| read.parsed(node, "a trust domain like prod.example"));
    let data_dir = map.required("data_dir", read).and_then(|node| read.path(node));
    let listen = map.optional("listen").map(|node| read.parsed(node, "an address like 0.0.0.0:8081"));
    let admin_socket = map.optional("admin_socket").map(|node| read.path(node));
    let entries_dir = map.optional("entries_dir").map(|node| read.path(node));
    let policies = map.optional("policies").map(|node| read.path(node));
    let seal_key_file = map.optional("seal_key_file").map(|node| read.path(node));
    let ttls = ttls(map, read);
    if let Some(node) = map.optional("key_type") {
        read.one_of(node, &["ec-p256"]);
    }
    let metrics = map.optional("metrics").map(|node| {
        let mut metrics = read.map(node)?;
        let listen = metrics.required("listen", read)?;
        let listen = read.parsed(listen, "an address like 127.0.0.1:9464");
        metrics.finish(read);
        listen
    });
    let data_dir: PathBuf = data_dir?;
    let [ca_ttl, svid_ttl, agent_svid_ttl] = ttls?;
    Some(Config {
        trust_domain: trust_domain?,
        listen: listen.unwrap_or(Some(DEFAULT_LISTEN))?,
        admin_socket: admin_socket.unwrap_or_else(|| Some(data_dir.join(ADMIN_SOCKET)))?,
        data_dir,
        entries_dir: stated(entries_dir)?,
        policies: stated(policies)?,
        ca_ttl,
        svid_ttl,
        agent_svid_ttl,
        seal_key_file: stated(seal_key_file)?,
        metrics: stated(metrics)?,
    })
}

/// Tells a key left out (`Some(None)`) from one that could not be read (`None`).
fn stated<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

fn ttls(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<[Duration; 3]> {
    let ca = match map.optional("ca_ttl") {
        Some(node) => read.duration_within(node, MIN_CA_TTL..=MAX_CA_TTL),
        None => Some(DEFAULT_CA_TTL),
    };
    let longest = ca.unwrap_or(MAX_CA_TTL);
    let mut svid = |name, default: Duration| match map.optional(name) {
        Some(node) => read.duration_within(node, MIN_SVID_TTL..=longest),
        None => Some(default.min(longest)),
    };
    let workload = svid("svid_ttl", DEFAULT_SVID_TTL);
    let agent = svid("agent_svid_ttl", workload.unwrap_or(DEFAULT_SVID_TTL));
    Some([ca?, workload?, agent?])
}

/// The first key of the file.
pub const VERSION: &str = "ca/v1";
/// SPIRE's port.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081);
/// The admin socket's name in the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// spiffe.md 2.2.
pub const DEFAULT_CA_TTL: Duration = Duration::from_secs(24 * 3600);
/// spiffe.md 2.2.
pub const DEFAULT_SVID_TTL: Duration = Duration::from_secs(3600);
/// A shorter life leaves no time to publish the successor.
pub const MIN_CA_TTL: Duration = Duration::from_secs(30);
/// Ten years.
pub const MAX_CA_TTL: Duration = Duration::from_secs(3653 * 24 * 3600);
/// A shorter life leaves no time to renew.
pub const MIN_SVID_TTL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_spires_defaults() {
        let config = parse("vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /var/lib/ca\n").unwrap();

        assert_eq!(config.listen, "0.0.0.0:8081".parse().unwrap());
        assert_eq!(config.admin_socket, PathBuf::from("/var/lib/ca/admin.sock"));
        assert_eq!((config.ca_ttl, config.svid_ttl), (DEFAULT_CA_TTL, DEFAULT_SVID_TTL));
        assert_eq!((config.entries_dir, config.seal_key_file, config.metrics), (None, None, None));
        assert_eq!(config.policies, None);
    }

    #[test]
    fn every_key_is_read() {
        let text = "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /d\nlisten: 127.0.0.1:0\n\
                    admin_socket: /s\nentries_dir: /e\nca_ttl: 2m\nsvid_ttl: 20s\nagent_svid_ttl: 30s\n\
                    seal_key_file: /k\npolicies: /p\nkey_type: ec-p256\nmetrics:\n  listen: 127.0.0.1:1\n";

        let config = parse(text).unwrap();

        assert_eq!(config.ca_ttl, Duration::from_secs(120));
        assert_eq!(config.svid_ttl, Duration::from_secs(20));
        assert_eq!(config.agent_svid_ttl, Duration::from_secs(30));
        assert_eq!(config.entries_dir, Some("/e".into()));
        assert_eq!(config.seal_key_file, Some("/k".into()));
        assert_eq!(config.policies, Some("/p".into()));
        assert_eq!(config.metrics, Some("127.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn each_flaw_is_refused_with_its_line() {
        let good = "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /d\n";
        let flaws = [
            ("vouchsafe: ca/v2\ntrust_domain: prod.test\ndata_dir: /d\n".to_owned(), "ca.yaml:1:"),
            ("vouchsafe: ca/v1\ntrust_domain: Prod.Test\ndata_dir: /d\n".to_owned(), "ca.yaml:2:"),
            ("vouchsafe: ca/v1\ntrust_domain: prod.test\n".to_owned(), "data_dir"),
            (format!("{good}lisen: 0.0.0.0:1\n"), "listen"),
            (format!("{good}listen: nowhere\n"), "ca.yaml:4:"),
            (format!("{good}ca_ttl: 10s\n"), "ca.yaml:4:"),
            (format!("{good}ca_ttl: 1h\nsvid_ttl: 2h\n"), "ca.yaml:5:"),
            (format!("{good}svid_ttl: 3600\n"), "ca.yaml:4:"),
            (format!("{good}key_type: rsa-2048\n"), "ca.yaml:4:"),
            (format!("{good}metrics: true\n"), "ca.yaml:4:"),
            (format!("{good}data_dir: /e\n"), "ca.yaml:4:"),
            (String::new(), "ca.yaml"),
        ];
        for (text, wanted) in flaws {
            let problems = parse(&text).unwrap_err().to_string();
            assert!(problems.contains(wanted), "{text}\n{problems}");
        }
    }

    #[test]
    fn default_lifetimes_shrink_with_a_short_lived_authority() {
        let config = parse("vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /d\nca_ttl: 2m\n").unwrap();

        assert_eq!(config.svid_ttl, Duration::from_secs(120));
    }

    fn parse(text: &str) -> Result<Config, Problems> {
        Config::parse(&Source::new("ca.yaml", text))
    }
}
