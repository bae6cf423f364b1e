//! Two sidecars with identities from files: what a caller calls passes through both.

use std::net::{Ipv4Addr, SocketAddr};

use super::backend::Backend;
use super::pki::{Authority, Identity};
use super::port;
use super::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};
use super::traffic::Traffic;

/// A caller's sidecar, and the one that it calls.
pub(crate) struct Mesh {
    pub(crate) caller: Identity,
    pub(crate) web: Sidecar,
    pub(crate) api: Sidecar,
    /// Where the caller calls.
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    /// Where the called one listens.
    pub(crate) http_in: SocketAddr,
    pub(crate) tcp_in: SocketAddr,
    /// Free for a further listener; the policies know of it.
    pub(crate) further: SocketAddr,
    pub(crate) backend: Backend,
    pub(crate) echo: Backend,
    /// The files, gone with the sidecars.
    root: tempfile::TempDir,
}

impl Mesh {
    /// Starts both with these sections in their configurations; `{dir}` is the directory of each.
    pub(crate) fn start(sections: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        let [http, tcp, http_in, tcp_in, further] =
            [(); 5].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, port::free())));
        let (backend, echo) = (Backend::http(), Backend::echo());
        for (path, name) in [(SERVER, "api"), (CALLER, "web")] {
            authority.svid(path).write(&root.path().join("pem").join(name), &authority);
        }
        let (to, from) = (authority.id(SERVER), authority.id(CALLER));
        for (name, protocol, port) in
            [("http", "http", http_in), ("tcp", "tcp", tcp_in), ("further", "http", further)]
        {
            let text = allow_all(name, &to, &from, protocol, port.port());
            write_policy(&root.path().join("api"), &format!("{name}.yaml"), &text);
        }
        let setup = |name: &str| {
            let own = root.path().join(name).display().to_string();
            Setup::new(name)
                .pem(&root.path().join("pem").join(name))
                .section(&sections.replace("{dir}", &own))
        };
        let api =
            setup("api").inbound("http", http_in, backend.address()).inbound("tcp", tcp_in, echo.address());
        let api = api.start(root.path());
        let web = setup("web").outbound("http", http, http_in, &to).outbound("tcp", tcp, tcp_in, &to);
        let web = web.start(root.path());
        let caller = authority.svid(CALLER);
        Self { caller, web, api, http, tcp, http_in, tcp_in, further, backend, echo, root }
    }

    /// Calls of every kind: new connections, kept ones and long ones.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::new();
        for _ in 0..4 {
            traffic = traffic.calls(self.http, "/steady").keep_alive(self.http, "/steady");
        }
        traffic.long_lived(self.tcp).long_lived(self.tcp)
    }

    /// The lines of a listener of the called sidecar at the place that is free.
    pub(crate) fn further_listener(&self) -> String {
        format!(
            "inbound:\n  - {{name: further, listen: \"{}\", protocol: http, application: \"{}\"}}\n",
            self.further,
            self.backend.address()
        )
    }

    /// Where the files lie.
    pub(crate) fn root(&self) -> &std::path::Path {
        self.root.path()
    }
}
