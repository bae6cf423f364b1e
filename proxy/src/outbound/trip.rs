//! The way of one request: to the application, or to an endpoint of a service; how that went, and whether it may go to
//! another one.

use std::{net::IpAddr, sync::Arc};

use http::StatusCode;
use tokio::time::Instant;

use super::{Blame, Exit};
use crate::{
    detect::Ways,
    http1::{self, DialError, RequestLine},
    http2,
    services::{Call, CallError, Held},
};

/// Where the requests of a connection go.
#[derive(Clone)]
pub(crate) enum Onward {
    /// All to the same application.
    Application(Ways),
    /// Each to one of a service's endpoints.
    Service(Arc<Exit>),
}

impl From<&Ways> for Onward {
    fn from(ways: &Ways) -> Self {
        Self::Application(ways.clone())
    }
}

impl Onward {
    /// Begins the way of a request that came from there.
    pub(crate) fn begin(&self, line: &RequestLine, from: Option<IpAddr>) -> Result<Way, DialError> {
        match self {
            Self::Application(ways) => Ok(Way::Application(ways.clone())),
            Self::Service(exit) => Trip::begin(exit, line, from).map(|trip| Way::Service(Box::new(trip))),
        }
    }
}

/// The way of one request.
pub(crate) enum Way {
    Application(Ways),
    Service(Box<Trip>),
}

impl Way {
    /// Returns the connections to go on for HTTP/1.
    pub(crate) fn http1(&self) -> Arc<http1::Pool> {
        match self {
            Self::Application(ways) => Arc::clone(&ways.http1),
            Self::Service(trip) => trip.exit.ways_to(&trip.held).http1,
        }
    }

    /// Returns the connections to go on for HTTP/2.
    pub(crate) fn http2(&self) -> Arc<http2::Pool> {
        match self {
            Self::Application(ways) => Arc::clone(&ways.http2),
            Self::Service(trip) => trip.exit.ways_to(&trip.held).http2,
        }
    }

    /// When the head of the answer has to be there, where that is limited.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Application(_) => None,
            Self::Service(trip) => trip.call.time_left().map(|left| Instant::now() + left),
        }
    }

    /// Whether a request that may have been processed may be sent once more, where doing it twice is doing it once.
    pub(crate) fn may_repeat(&self) -> bool {
        match self {
            Self::Application(_) => false,
            Self::Service(trip) => trip.call.spec().settings.retries.attempts > 0,
        }
    }

    /// Notes that an answer came. What an endpoint says of itself counts: that it cannot serve, or that nobody behind it does.
    /// Any other answer is that of the application.
    pub(crate) fn answered(&self, status: StatusCode) {
        let Self::Service(trip) = self else { return };
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                trip.held.failed();
            }
            _ => trip.held.answered(),
        }
    }

    /// Notes that no answer came.
    pub(crate) fn broken(&self) {
        if let Self::Service(trip) = self {
            trip.held.failed();
        }
    }

    /// Notes that the endpoint was not reached, and goes to another one where that is allowed: nothing was sent.
    pub(crate) async fn unreached(&mut self, blame: Blame) -> bool {
        let Self::Service(trip) = self else { return false };
        match blame {
            Blame::Endpoint => {
                trip.held.failed();
                trip.elsewhere().await
            }
            Blame::Impostor => {
                trip.held.is_impostor();
                false
            }
            Blame::Nobody => false,
        }
    }

    /// Goes to another endpoint, where there is one and the call may be tried again. Whether that is safe is for the caller
    /// to know.
    pub(crate) async fn elsewhere(&mut self) -> bool {
        match self {
            Self::Application(_) => false,
            Self::Service(trip) => trip.elsewhere().await,
        }
    }
}

/// One request on its way to a service.
pub(crate) struct Trip {
    exit: Arc<Exit>,
    call: Call,
    held: Held,
}

impl Trip {
    fn begin(exit: &Arc<Exit>, line: &RequestLine, from: Option<IpAddr>) -> Result<Self, DialError> {
        let header = |name: &str| line.fields().values(name).next();
        let mut call = Call::request(exit.service(), from, header).map_err(unavailable)?;
        let held = call.next().map_err(unavailable)?;
        Ok(Self { exit: Arc::clone(exit), call, held })
    }

    async fn elsewhere(&mut self) -> bool {
        if !self.call.retry().await {
            return false;
        }
        match self.call.next() {
            Ok(held) => {
                self.held = held;
                true
            }
            Err(_) => false,
        }
    }
}

fn unavailable(error: CallError) -> DialError {
    DialError::Unavailable { reason: error.code() }
}
