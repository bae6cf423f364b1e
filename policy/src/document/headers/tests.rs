use super::{MAX_HEADER_NAME, MAX_HEADER_VALUE};
use crate::document::tests::{FROM, accepted, problem, refusal, rule};
use crate::document::{HeaderReading, KeyFiles, MAX_HEADER_VALUES, MAX_HEADERS, RequestCondition, read};
use crate::strict::Source;

fn headers(inner: &str) -> String {
    rule(&format!("{FROM}, http: {{port: 80, headers: {{{inner}}}}}"))
}

#[test]
fn an_allow_rule_wants_every_value_and_a_deny_rule_any() {
    for (key, expected) in [("allow:", HeaderReading::Every), ("deny:", HeaderReading::Any)] {
        let text = headers("x-env: [prod, test], x-trace: any").replace("allow:", key);

        let document = read(&Source::new("p.yaml", text), &KeyFiles::default()).unwrap();

        let conditions = &document.policy.rules[0].at_request;
        let names: Vec<(&str, usize)> = conditions
            .iter()
            .map(|condition| match condition {
                RequestCondition::Header { name, any_of, reading } => {
                    assert_eq!(*reading, expected);
                    (&**name, any_of.len())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, [("x-env", 2), ("x-trace", 1)]);
    }
}

#[test]
fn what_is_said_of_a_header_is_checked() {
    for (inner, message, cure) in [
        (
            "X-Env: [prod]",
            "69: \"X-Env\" is not in lower case; the names of headers have none",
            "write \"x-env\"",
        ),
        ("\"x env\": [prod]", "69: \"x env\" is not the name of a header", "write it as in x-environment"),
        (
            "host: [a.example]",
            "69: no rule sees the header \"host\": it is the host of the request",
            "use \"hosts\"",
        ),
        (
            "Transfer-Encoding: [chunked]",
            "69: no rule sees the header \"Transfer-Encoding\": it is about the connection and written anew for the application",
            "remove it",
        ),
        (
            "x-http-method-override: any",
            "69: no rule sees the header \"x-http-method-override\": it is removed, so that no other method is served than the one decided",
            "use \"methods\"",
        ),
        (
            "x-forwarded-for: [10.0.0.1]",
            "69: no rule sees the header \"x-forwarded-for\": it is removed, since nobody before the sidecar is trusted to say whose call it is",
            "use \"from\" or \"source_net\"",
        ),
        (
            "x-env: prod",
            "76: expected a list of values, or any",
            "write the values in brackets, as in [prod, staging], or the word any",
        ),
        (
            "x-env: \"any\"",
            "76: expected a list of values, or any",
            "write the values in brackets, as in [prod, staging], or the word any",
        ),
        ("x-env: []", "76: the list is empty", "leave the key out, or name at least one"),
        (
            "x-env: [\"a, b\"]",
            "77: a value has no comma: what stands between commas is a value each",
            "list the parts",
        ),
        ("x-env: [\" a\"]", "77: a value neither begins nor ends with a space", "remove the space"),
        ("x-env: [yes]", "77: expected a text, \"yes\" is a boolean", "put it in quotes if a text is meant"),
        ("", "68: the mapping is empty", "leave the key out, or name at least one"),
    ] {
        let found = problem(&headers(inner));
        assert_eq!(found, (format!("p.yaml:5:{message}"), cure.to_owned()), "{inner}");
    }
}

#[test]
fn headers_and_their_values_are_accepted_to_their_limits_and_not_beyond() {
    let names = |count: usize| (0..count).map(|n| format!("x-{n}: any")).collect::<Vec<_>>().join(", ");
    let values = |count: usize| {
        let all = (0..count).map(|n| format!("v{n}")).collect::<Vec<_>>().join(", ");
        format!("x-a: [{all}]")
    };

    accepted(&headers(&names(MAX_HEADERS)));
    assert!(
        refusal(&headers(&names(MAX_HEADERS + 1)))
            .contains("the mapping has 17 keys, at most 16 are accepted")
    );
    accepted(&headers(&values(MAX_HEADER_VALUES)));
    assert!(refusal(&headers(&values(MAX_HEADER_VALUES + 1))).contains("at most 64 are accepted"));
    accepted(&headers(&format!("{}: any", "x".repeat(MAX_HEADER_NAME))));
    assert!(
        refusal(&headers(&format!("{}: any", "x".repeat(MAX_HEADER_NAME + 1))))
            .contains("is not the name of a header")
    );
    accepted(&headers(&format!("x-a: [{}]", "v".repeat(MAX_HEADER_VALUE))));
    assert!(
        refusal(&headers(&format!("x-a: [{}]", "v".repeat(MAX_HEADER_VALUE + 1))))
            .contains("the value is longer than 1024 bytes")
    );
}
