//! Promises of the whole sidecar, kept over real sockets and real TLS.

mod attacks;
mod cases;
mod central;
mod central_services;
mod drain;
mod http2;
mod inbound;
mod limits;
mod live;
mod outbound;
mod reload;
mod requests;
mod responses;
mod sources;
mod tunnel;
mod upgrades;

use crate::testing::{Authority, Backend, SHOP, STRANGER, Sidecar, Site, WEB};

/// Allows the shop to read, and everything under `/admin` to nobody.
const POLICY: &str = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: shop-reads
    from: [spiffe://prod.test/shop]
    http: {port: any, methods: [GET, HEAD, POST], paths: [/**]}
deny:
  - name: no-admin
    from: [anyone]
    http: {port: any, paths: [/admin/**]}
";

/// Allows the shop to connect. An http deny rule beside it would refuse opaque bytes.
const TCP_POLICY: &str = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: shop-connects
    from: [spiffe://prod.test/shop]
    tcp: {port: any}
";

/// Allows nothing.
const CLOSED: &str = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: nobody-comes
    from: [spiffe://prod.test/nobody]
    tcp: {port: any}
";

/// A sidecar of the web service with one inbound listener.
struct Stage {
    authority: Authority,
    site: Site,
    sidecar: Sidecar,
    backend: Backend,
}

impl Stage {
    async fn inbound(protocol: &str, backend: Backend) -> Self {
        Self::inbound_with(protocol, backend, "").await
    }

    async fn inbound_with(protocol: &str, backend: Backend, more: &str) -> Self {
        let policy = if protocol == "tcp" { TCP_POLICY } else { POLICY };
        Self::started(protocol, policy, backend, more).await
    }

    /// A listener for HTTP under a policy of the test's own.
    async fn of_policy(policy: &str, backend: Backend) -> Self {
        Self::started("http", policy, backend, "").await
    }

    async fn started(protocol: &str, policy: &str, backend: Backend, more: &str) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, policy);
        let text = format!(
            "{}{more}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: {protocol}, application: {}}}\n",
            site.base(),
            backend.address
        );
        let sidecar = Sidecar::ready(&text).await;
        Self { authority, site, sidecar, backend }
    }

    async fn shop(&self) -> crate::testing::Client {
        crate::testing::call(&self.authority.credentials(SHOP), self.sidecar.inbound()).await
    }

    async fn stranger(&self) -> crate::testing::Client {
        crate::testing::call(&self.authority.credentials(STRANGER), self.sidecar.inbound()).await
    }
}
