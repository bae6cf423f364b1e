//! Tunnels between sidecars, and with a peer that behaves as ztunnel does.

mod pair;
mod peer;
mod raw;
mod refusals;
mod withdrawal;

use std::net::SocketAddr;

use super::{POLICY, Stage, TCP_POLICY};
use crate::testing::{Authority, Backend, Sidecar, Site, WEB};

/// The section that opens the listener.
const TUNNEL: &str = "tunnel: {listen: 127.0.0.1:0}\n";

impl Stage {
    /// A sidecar of the web service that takes tunnels.
    async fn tunnel(protocol: &str, backend: Backend) -> Self {
        Self::inbound_with(protocol, backend, TUNNEL).await
    }

    /// Where its tunnels arrive.
    fn tunnels(&self) -> SocketAddr {
        self.sidecar.ready.tunnel.expect("a listener for tunnels")
    }

    /// What a tunnel's streams name to reach the application.
    fn authority(&self) -> String {
        self.sidecar.inbound().to_string()
    }
}

/// An application that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            });
        }
    });
    address
}

/// A sidecar of the web service with one TCP listener before each of the applications, and a listener for tunnels.
struct Web {
    authority: Authority,
    site: Site,
    sidecar: Sidecar,
}

impl Web {
    async fn with(policy: &str, applications: &[SocketAddr], more: &str) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, policy);
        let inbound: String = applications
            .iter()
            .enumerate()
            .map(|(number, application)| {
                format!(
                    "  - {{name: api-{number}, listen: 127.0.0.1:0, protocol: tcp, application: {application}}}\n"
                )
            })
            .collect();
        let sidecar = Sidecar::ready(&format!("{}{TUNNEL}{more}inbound:\n{inbound}", site.base())).await;
        Self { authority, site, sidecar }
    }

    fn tunnels(&self) -> SocketAddr {
        self.sidecar.ready.tunnel.expect("a listener for tunnels")
    }

    fn listener(&self, number: usize) -> SocketAddr {
        self.sidecar.ready.inbound[number].1
    }
}
