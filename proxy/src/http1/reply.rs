//! The responses that the proxy writes itself. To a caller they say no more than it needs.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};

use super::{
    body::{Exchange, ReplyBody},
    gate::Outcome,
    headers::DENIAL_ID,
};

/// Whether the connection goes on after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
}

/// Answers a refusal: the identifier leads to the record, and says nothing by itself.
pub(super) fn refused(
    status: StatusCode,
    denial: audit::DenialId,
    after: After,
    mut exchange: Exchange,
) -> Response<ReplyBody> {
    exchange.answer(status, Outcome::Refused);
    let denial = denial.to_string();
    let mut response = json(status, format!("{{\"denial_id\":\"{denial}\"}}\n"), after, exchange);
    if let Ok(value) = HeaderValue::try_from(denial) {
        response.headers_mut().insert(DENIAL_ID, value);
    }
    response
}

/// Answers a failure of the proxy or behind it; `error` is one of a fixed set of words.
pub(super) fn failed(
    status: StatusCode,
    error: &'static str,
    after: After,
    mut exchange: Exchange,
) -> Response<ReplyBody> {
    exchange.answer(status, Outcome::Broken);
    json(status, format!("{{\"error\":\"{error}\"}}\n"), after, exchange)
}

fn json(status: StatusCode, text: String, after: After, exchange: Exchange) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::own(Bytes::from(text), exchange));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if after == After::Close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
