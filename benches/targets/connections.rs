//! What idle connections cost: each has carried one request, and waits.

use std::time::Duration;

use identity::Credentials;
use identity::tls::{self, ExpectedServer};
use proxy::workload_api::Client;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::application::{self, Application};
use crate::cluster::{Pair, id};
use crate::daemon::{Daemon, Memory};
use crate::report::{Row, mebibytes};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = application::runtime()?;
    let mut rows = Vec::new();
    for (name, open) in
        [("TCP", Open::Tcp), ("HTTP keep-alive", Open::Http), ("HTTP keep-alive", Open::MutualTls)]
    {
        let application = Application::start(&runtime)?;
        let pair = Pair::start(application.address())?;
        rows.extend(open.measure(name, &runtime, &pair)?);
    }
    Ok(rows)
}

/// Which connections are opened.
#[derive(Clone, Copy)]
enum Open {
    /// Through both sidecars, one connection a connection.
    Tcp,
    /// To the caller's sidecar, which needs few connections to the callee's.
    Http,
    /// Past the caller's sidecar to the callee's.
    MutualTls,
}

impl Open {
    fn measure(self, name: &str, runtime: &Runtime, pair: &Pair) -> anyhow::Result<Vec<Row>> {
        let sides: &[(&str, &Daemon)] = match self {
            Self::Tcp => &[("caller's", &pair.web), ("callee's", &pair.api)],
            Self::Http => &[("caller's", &pair.web)],
            Self::MutualTls => &[("callee's", &pair.api)],
        };
        let held = |count| -> anyhow::Result<Vec<Memory>> {
            let open = self.connections(count, runtime, pair)?;
            std::thread::sleep(SETTLE);
            let memories = memories(sides);
            drop(open);
            std::thread::sleep(SETTLE);
            memories
        };
        drop(held(WARM_UP)?);
        let (before, during) = (memories(sides)?, held(COUNT)?);
        let (after, again) = (memories(sides)?, held(COUNT)?);
        let readings = before.into_iter().zip(during).zip(after.into_iter().zip(again));
        let rows = sides.iter().zip(readings).map(|((side, _), ((before, during), (after, again)))| {
            let each = during.resident.saturating_sub(before.resident) / COUNT as u64;
            let figure = format!("memory of the {side} sidecar for an idle {name} connection ({COUNT} open)");
            let [before, during, after, again] =
                [before, during, after, again].map(|memory| mebibytes(memory.resident));
            let told = format!(
                "{:.1} KiB each; {before} before, {during} with them, {after} after they closed, {again} with as many again",
                each as f64 / 1024.0
            );
            Row::new(figure, "", told)
        });
        Ok(rows.collect())
    }

    /// Opens connections, makes a call on each and keeps them.
    fn connections(self, count: usize, runtime: &Runtime, pair: &Pair) -> anyhow::Result<Vec<Connection>> {
        runtime.block_on(async {
            let mut connections = Vec::with_capacity(count);
            let credentials = credentials(pair).await?;
            for _ in 0..count {
                connections.push(self.connect(pair, &credentials).await?);
            }
            anyhow::Ok(connections)
        })
    }

    async fn connect(self, pair: &Pair, credentials: &Credentials) -> anyhow::Result<Connection> {
        let mut connection = match self {
            Self::Tcp => Connection::Plain(TcpStream::connect(pair.tcp.outbound).await?),
            Self::Http => Connection::Plain(TcpStream::connect(pair.http.outbound).await?),
            Self::MutualTls => {
                let server = ExpectedServer::AnyOf(vec![id("/api").parse()?]);
                let config = tls::client_config(credentials, server, &[])?;
                let (_, stream) = tls::connect(config, TcpStream::connect(pair.http.inbound).await?).await?;
                Connection::Tls(Box::new(stream))
            }
        };
        match &mut connection {
            Connection::Plain(stream) => application::call(stream).await?,
            Connection::Tls(stream) => application::call(stream.as_mut()).await?,
        }
        Ok(connection)
    }
}

/// A connection that is held open.
enum Connection {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// The identity of this program, as the agent gives it.
async fn credentials(pair: &Pair) -> anyhow::Result<Credentials> {
    let update = Client::connect(&pair.agent.endpoint().parse()?).await?.fetch_x509().await?;
    Ok(Credentials::new(update.choose(Some(&id("/web").parse()?))?.clone(), update.bundles)?)
}

fn memories(sides: &[(&str, &Daemon)]) -> anyhow::Result<Vec<Memory>> {
    sides.iter().map(|(_, daemon)| daemon.memory()).collect()
}

const COUNT: usize = 1_000;
/// Connections opened and closed beforehand, so that what is made once is not counted.
const WARM_UP: usize = 5;
/// Longer than a sidecar keeps an idle connection to the next hop.
const SETTLE: Duration = Duration::from_secs(5);
