//! A peer that opens tunnels as ztunnel does: the same settings, the same headers, and bytes of its own choice where a test
//! asks for them.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{Method, Request, Uri};
use identity::{
    Credentials,
    tls::{self, ALPN_H2, ExpectedServer},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::testing::PATIENCE;

/// A tunnel of a peer.
pub(super) struct Peer {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) driver: JoinHandle<Result<(), h2::Error>>,
}

/// A stream that was let through.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) send: SendStream<Bytes>,
    pub(super) receive: RecvStream,
}

impl Peer {
    pub(super) async fn connect(credentials: &Credentials, to: SocketAddr) -> Self {
        let config = tls::client_config(credentials, ExpectedServer::DangerAnyMember, &[ALPN_H2]).unwrap();
        let socket = TcpStream::connect(to).await.unwrap();
        let (_, stream) = tls::connect(config, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN_H2));
        let (sender, connection) = Builder::new()
            .initial_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .max_frame_size(1024 * 1024)
            .initial_max_send_streams(100)
            .max_header_list_size(16 * 1024)
            .max_send_buffer_size(4 * 1024 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await
            .unwrap();
        Self { sender, driver: tokio::spawn(connection) }
    }

    /// Sends a head as ztunnel does.
    pub(super) async fn connect_to(&self, authority: &str) -> Result<Opened, u16> {
        let uri = Uri::builder().authority(authority).build().unwrap();
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .header("baggage", "k8s.cluster.name=other,k8s.namespace.name=kube-system,service.name=admin")
            .header("forwarded", "for=10.9.9.9;host=elsewhere")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        self.send(request.body(()).unwrap()).await
    }

    /// Sends any head; returns the stream or the status of the refusal.
    pub(super) async fn send(&self, request: Request<()>) -> Result<Opened, u16> {
        let mut sender = self.sender.clone();
        std::future::poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
        let (response, send) = sender.send_request(request, false).unwrap();
        let response = timeout(PATIENCE, response).await.expect("an answer").unwrap();
        match response.status().as_u16() {
            200 => Ok(Opened { send, receive: response.into_body() }),
            status => {
                assert!(response.body().is_end_stream(), "a refusal ends its stream");
                Err(status)
            }
        }
    }

    /// Waits until the tunnel takes no further streams.
    pub(super) async fn wait_for_goaway(&self) {
        let gone = crate::testing::eventually(async || {
            let mut sender = self.sender.clone();
            std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_err().then_some(())
        });
        gone.await.expect("a GOAWAY");
    }
}

impl Opened {
    pub(super) fn say(&mut self, text: &str) {
        self.send.send_data(Bytes::copy_from_slice(text.as_bytes()), false).unwrap();
    }

    pub(super) fn end(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Waits for at least so many bytes, or the end.
    pub(super) async fn hear(&mut self, length: usize) -> Result<Vec<u8>, h2::Error> {
        let mut heard = Vec::new();
        while heard.len() < length {
            let Some(bytes) = timeout(PATIENCE, self.receive.data()).await.expect("bytes") else { break };
            let bytes = bytes?;
            self.receive.flow_control().release_capacity(bytes.len()).unwrap();
            heard.extend_from_slice(&bytes);
        }
        Ok(heard)
    }

    pub(super) async fn hear_all(&mut self) -> Result<Vec<u8>, h2::Error> {
        self.hear(usize::MAX).await
    }
}
