//! The answers that the proxy gives itself, in the form that the caller reads: a status, or that of a gRPC call.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};

use super::head;
use crate::http1::DENIAL_ID;

/// What a caller can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A status and a body.
    Plain,
    /// A status: the answer to HEAD has no body.
    Bodiless,
    /// The status of a gRPC call, in a head that is also the end.
    Grpc,
}

impl Form {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        if head::is_grpc(headers) {
            Self::Grpc
        } else if *method == Method::HEAD {
            Self::Bodiless
        } else {
            Self::Plain
        }
    }
}

/// Answers a refusal: the identifier leads to the record, and says nothing by itself.
pub(super) fn refuse(
    respond: &mut SendResponse<Bytes>,
    form: Form,
    status: StatusCode,
    denial: audit::DenialId,
) {
    let denial = denial.to_string();
    let (mut response, body) = match form {
        Form::Grpc => (grpc(status, &format!("refused, denial {denial}")), Bytes::new()),
        Form::Plain => json(status, format!("{{\"denial_id\":\"{denial}\"}}\n")),
        Form::Bodiless => (json(status, String::new()).0, Bytes::new()),
    };
    if let Ok(value) = HeaderValue::try_from(denial) {
        response.headers_mut().insert(DENIAL_ID, value);
    }
    send(respond, response, body);
}

/// Answers a failure of the proxy or behind it; `error` is one of a fixed set of words.
pub(super) fn fail(respond: &mut SendResponse<Bytes>, form: Form, status: StatusCode, error: &'static str) {
    let (response, body) = match form {
        Form::Grpc => (grpc(status, error), Bytes::new()),
        Form::Plain => json(status, format!("{{\"error\":\"{error}\"}}\n")),
        Form::Bodiless => (json(status, String::new()).0, Bytes::new()),
    };
    send(respond, response, body);
}

fn send(respond: &mut SendResponse<Bytes>, response: Response<()>, body: Bytes) {
    // Fails only where the caller is gone: nobody waits for the answer.
    if let Ok(mut stream) = respond.send_response(response, body.is_empty())
        && !body.is_empty()
    {
        let _ = stream.send_data(body, true);
    }
}

fn json(status: StatusCode, text: String) -> (Response<()>, Bytes) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (response, Bytes::from(text))
}

/// Returns the status of a gRPC call, from the trailers or from a head that is also the end.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

fn grpc(status: StatusCode, message: &str) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_code(status)));
    // Words and identifiers of ours: nothing in them needs the percent form.
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// The status of a call for a status of HTTP, as gRPC maps them.
fn grpc_code(status: StatusCode) -> u16 {
    match status {
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::NOT_IMPLEMENTED => UNIMPLEMENTED,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            UNAVAILABLE
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => RESOURCE_EXHAUSTED,
        _ => INTERNAL,
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_one_by_grpc() {
        let response = grpc(StatusCode::FORBIDDEN, "refused, denial 1");

        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[GRPC_STATUS], "7");
        assert_eq!(response.headers()[GRPC_MESSAGE], "refused, denial 1");
    }

    #[test]
    fn only_the_media_types_of_grpc_are_answered_as_grpc() {
        for (kind, form) in [
            ("application/grpc", Form::Grpc),
            ("application/grpc+proto", Form::Grpc),
            ("Application/gRPC; x=y", Form::Grpc),
            ("application/grpc-web", Form::Plain),
            ("application/grpcx", Form::Plain),
            ("application/json", Form::Plain),
        ] {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();

            assert_eq!(Form::of(&Method::POST, &headers), form, "{kind}");
        }
    }
}
