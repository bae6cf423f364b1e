//! What a reload that takes a right away costs: the time until the last connection that lost it is cut.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::application::{self, Application};
use crate::cluster::{Pair, id};
use crate::report::{Row, Times};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = application::runtime()?;
    let application = Application::start(&runtime)?;
    let pair = Pair::start(application.address())?;
    let mut times = Times::default();
    for _ in 0..RELOADS {
        pair.allow(&id("/web"))?;
        times.add(runtime.block_on(cut(&pair))?);
    }
    let figure = format!("from the change of a policy file to the last of {COUNT} connections cut");
    Ok(vec![Row::new(figure, "", times.told())])
}

/// Opens the connections, takes their right away and waits for the end of the last one.
async fn cut(pair: &Pair) -> anyhow::Result<Duration> {
    let mut connections = Vec::with_capacity(COUNT);
    while connections.len() < COUNT {
        let mut connection = TcpStream::connect(pair.tcp.outbound).await?;
        match application::call(&mut connection).await {
            Ok(()) => connections.push(connection),
            // The rule that lets them in may not be in force again.
            Err(_) if connections.is_empty() => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error),
        }
    }
    let began = Instant::now();
    pair.allow(&id("/nobody"))?;
    for connection in &mut connections {
        let ended = tokio::time::timeout(PATIENCE, connection.read(&mut [0; 1])).await?;
        ensure!(!matches!(ended, Ok(1..)), "a connection without a right got an answer");
    }
    Ok(began.elapsed())
}

/// Each takes two descriptors in each sidecar, and two in this process: its end and the application's.
const COUNT: usize = 9_000;
const RELOADS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
