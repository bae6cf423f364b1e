use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()))
        .collect()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn fields_of_the_connection_and_those_it_names_do_not_pass() {
    let mut headers = map(&[
        ("connection", "keep-alive, x-one"),
        ("connection", "X-Two"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "x"),
        ("proxy-authorization", "x"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("te", "gzip"),
        ("expect", "100-continue"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
    ]);

    clean_request(&mut headers);

    assert_eq!(names(&headers), ["x-three"]);
}

#[test]
fn a_client_cannot_have_host_or_length_removed() {
    let mut headers =
        map(&[("connection", "host, content-length"), ("host", "web"), ("content-length", "3")]);

    clean_request(&mut headers);

    assert_eq!(names(&headers), ["content-length", "host"]);
}

#[test]
fn only_the_wish_for_trailers_survives_of_te() {
    let mut headers = map(&[("te", "gzip, Trailers")]);

    clean_request(&mut headers);

    assert_eq!(headers.get("te").unwrap(), "trailers");
}

#[test]
fn every_spelling_of_what_speaks_of_another_caller_or_request_is_removed() {
    for name in [
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "x_forwarded-client_cert",
        "x-spiffe-id",
        "x_spiffe_anything",
        "l5d-client-id",
        "x-forwarded-for",
        "forwarded",
        "x-vouchsafe-denial-id",
        "x-http-method-override",
        "x_http_method_override",
        "x-original-url",
        "X-Rewrite-URL",
        "x_forwarded_host",
        "content_length",
        "transfer_encoding",
    ] {
        let mut headers = map(&[(name, "evil")]);

        clean_request(&mut headers);

        assert!(headers.is_empty(), "{name}");
    }
}

#[test]
fn trailers_carry_no_framing_no_routing_and_no_identity() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("host", "evil"),
        ("authorization", "evil"),
        ("set-cookie", "evil"),
        ("x-forwarded-client-cert", "evil"),
        ("connection", "grpc-status-details"),
        ("grpc-status-details", "x"),
    ]);

    clean_trailers(&mut trailers);

    assert_eq!(names(&trailers), ["grpc-status"]);
}

#[test]
fn an_offer_of_h2c_is_no_wish_to_leave_and_anything_else_is() {
    for (value, wanted) in [
        ("h2c", None),
        ("H2C", None),
        ("", None),
        (" , ", None),
        ("WebSocket", Some("websocket")),
        ("h2c, websocket", Some("websocket")),
        ("websocket, Foo/2", Some("websocket, foo/2")),
    ] {
        assert_eq!(wanted_upgrade(&map(&[("upgrade", value)])).as_deref(), wanted, "{value}");
    }
    let twice = map(&[("upgrade", "h2c"), ("upgrade", "a"), ("upgrade", "b")]);
    assert_eq!(wanted_upgrade(&twice).as_deref(), Some("a, b"));
}
