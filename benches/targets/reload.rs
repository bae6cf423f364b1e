//! What taking a right away costs: from the change of a policy file until the last connection that lost it is cut, and
//! the processor time that the sidecar spends on it. The callers hold mutual TLS connections straight to the callee's sidecar.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use identity::Credentials;
use identity::tls::{self, ExpectedServer};
use proxy::workload_api::Client;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::application::{self, Application};
use crate::cluster::{Pair, id};
use crate::report::{Row, Times};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = application::runtime()?;
    let application = Application::start(&runtime)?;
    let pair = Pair::start(application.address())?;
    let mut rows = Vec::new();
    for concerned in [COUNT, FEW] {
        let (mut times, mut work) = (Times::default(), Times::default());
        for _ in 0..RELOADS {
            pair.allow(&format!("{}, {}", id("/web"), id("/other")))?;
            let cut = runtime.block_on(cut(&pair, concerned))?;
            times.add(cut.took);
            work.add(cut.processor);
        }
        let what = format!("{concerned} of {COUNT} connections");
        let figure = format!("from the change of a policy file to the last of {what} cut");
        rows.push(Row::new(figure, "200 ms", times.told()));
        let target = if concerned == FEW { "50 ms" } else { "" };
        rows.push(Row::new(format!("processor time of the sidecar to cut {what}"), target, work.told()));
    }
    Ok(rows)
}

struct CutTimes {
    took: Duration,
    processor: Duration,
}

type Caller = tokio_rustls::client::TlsStream<TcpStream>;

/// Opens the connections, takes the right of `concerned` of them away and waits for the end of the last of those.
async fn cut(pair: &Pair, concerned: usize) -> anyhow::Result<CutTimes> {
    let mut doomed = callers(pair, "/other", concerned).await?;
    let mut others = callers(pair, "/web", COUNT - concerned).await?;
    let before = pair.api.processor_time()?;
    let began = Instant::now();
    pair.allow(&id("/web"))?;
    for caller in &mut doomed {
        let ended = tokio::time::timeout(PATIENCE, caller.read(&mut [0; 1])).await?;
        ensure!(!matches!(ended, Ok(1..)), "a connection without a right got an answer");
    }
    let took = began.elapsed();
    // What the sidecar does after the last cut is part of the work.
    tokio::time::sleep(SETTLE).await;
    let processor = pair.api.processor_time()?.saturating_sub(before);
    for caller in others.iter_mut().take(FEW) {
        application::call(caller).await.context("a connection that kept its right")?;
    }
    Ok(CutTimes { took, processor })
}

async fn callers(pair: &Pair, path: &str, count: usize) -> anyhow::Result<Vec<Caller>> {
    let update = Client::connect(&pair.agent.endpoint().parse()?).await?.fetch_x509().await?;
    let svid = update.choose(Some(&id(path).parse()?))?.clone();
    let credentials = Credentials::new(svid, update.bundles)?;
    let server = ExpectedServer::AnyOf(vec![id("/api").parse()?]);
    let config = tls::client_config(&credentials, server, &[])?;
    let mut callers = Vec::with_capacity(count);
    while callers.len() < count {
        let socket = TcpStream::connect(pair.tcp.inbound).await?;
        let (_, mut caller) = tls::connect(config.clone(), socket).await?;
        match application::call(&mut caller).await {
            Ok(()) => callers.push(caller),
            // The rule that lets them in may not be in force again.
            Err(_) if callers.is_empty() => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error),
        }
    }
    Ok(callers)
}

/// Each takes two descriptors in the sidecar, and two in this process: its end and the application's.
const COUNT: usize = 9_000;
const FEW: usize = 10;
const RELOADS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_millis(500);
