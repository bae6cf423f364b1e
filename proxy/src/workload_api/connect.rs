//! Makes the gRPC channel to a Workload API.

use std::{path::PathBuf, sync::Arc};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Error, Uri};
use tower::service_fn;

use super::{CONNECT_TIMEOUT, Endpoint};

pub(super) async fn channel(endpoint: &Endpoint) -> Result<Channel, Error> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let target = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
            target.connect_timeout(CONNECT_TIMEOUT).connect().await
        }
        Endpoint::Unix(path) => {
            let path: Arc<PathBuf> = Arc::new(path.clone());
            // The URI only fills the :authority of the requests.
            tonic::transport::Endpoint::from_static("http://localhost")
                .connect_timeout(CONNECT_TIMEOUT)
                .connect_with_connector(service_fn(move |_: Uri| {
                    let path = Arc::clone(&path);
                    async move { UnixStream::connect(path.as_path()).await.map(TokioIo::new) }
                }))
                .await
        }
    }
}
