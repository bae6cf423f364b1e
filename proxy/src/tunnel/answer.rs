//! What the caller of a stream hears, in the words ztunnel uses.

use bytes::Bytes;
use h2::{SendStream, server::SendResponse};
use http::{Response, StatusCode};

use super::stream::BROKEN;
use crate::stream::Declined;

/// An answer that is owed.
#[derive(Debug)]
pub(super) struct Answer(SendResponse<Bytes>);

impl Answer {
    pub(super) fn owed(respond: SendResponse<Bytes>) -> Self {
        Self(respond)
    }

    /// Lets the caller through.
    pub(super) fn let_through(mut self) -> Result<SendStream<Bytes>, h2::Error> {
        self.0.send_response(head(StatusCode::OK), false)
    }

    /// Refuses the caller, or says that nobody answered.
    pub(super) fn decline(self, why: Declined) {
        self.end(match why {
            Declined::Denied => StatusCode::UNAUTHORIZED,
            Declined::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        });
    }

    /// Says that what was asked makes no sense here.
    pub(super) fn refuse(self) {
        self.end(StatusCode::BAD_REQUEST);
    }

    fn end(mut self, status: StatusCode) {
        // Fails only where the caller is gone.
        let _ = self.0.send_response(head(status), true);
    }

    /// Breaks the stream off.
    pub(super) fn reset(&mut self) {
        self.0.send_reset(BROKEN);
    }
}

fn head(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}
