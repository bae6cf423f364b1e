//! The listener for tunnels.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{destination::Destinations, entrance, session};
use crate::{
    config,
    inbound::Door,
    listener::{Accept, Place, Places, Stop},
    shared::Shared,
    transparent::TransparentInbound,
};

/// Takes tunnels, on one thread.
pub(crate) struct Inbound {
    pub(super) name: Arc<str>,
    pub(super) destinations: Destinations,
    /// A stream takes a place as any other connection does.
    pub(super) places: Places,
    /// The end of the listener: tunnels of its successor may lead elsewhere.
    pub(super) stop: Stop,
    pub(super) shared: Arc<Shared>,
}

impl Inbound {
    /// A listener for tunnels that lead to `doors`, and to whatever is captured.
    pub(crate) fn new(
        (doors, captured): (&[Arc<Door>], Option<TransparentInbound>),
        config: &config::Tunnel,
        (places, stop): (Places, Stop),
        shared: Arc<Shared>,
    ) -> Self {
        let destinations = Destinations::new(doors, captured, &config.addresses);
        Self { name: Arc::from(NAME), destinations, places, stop, shared }
    }
}

impl Accept for Inbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        // Boxed: a handshake gives back the room it took.
        if let Some((caller, stream)) = Box::pin(entrance::identify(&self, socket, from)).await {
            Box::pin(session::run(self, caller, stream)).await;
        }
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        entrance::turn_away(self, socket, from, limit);
    }
}

/// What records call the listener.
const NAME: &str = "tunnel";
