use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schema;
use super::table::SHAPES;
use crate::compile;
use crate::strict::{Node, Reader, Source};

const MANUAL: &str = include_str!("../../../docs/policy-language.md");

/// A document as an editor sees it, which reads YAML 1.2.
fn seen(text: &str) -> Value {
    let source = Source::new("p.yaml", text);
    let (mut reader, root) = Reader::open(&source);
    value(&root.expect("a document"), &mut reader)
}

fn value(node: &Node, read: &mut Reader<'_>) -> Value {
    if node.is_map() {
        let entries = read.entries(node).expect("a mapping");
        let fields = entries.into_iter().map(|(key, node)| (key.to_owned(), value(node, read)));
        return Value::Object(fields.collect::<Map<_, _>>());
    }
    if node.is_list() {
        return read.list(node).expect("a list").iter().map(|item| value(item, read)).collect();
    }
    match node.plain() {
        Some("true") => json!(true),
        Some("false") => json!(false),
        Some(text) => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
        None => json!(read.text(node).expect("a text")),
    }
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&schema()).expect("a schema")
}

fn complaints(text: &str) -> Vec<String> {
    validator()
        .iter_errors(&seen(text))
        .map(|error| format!("{} at {}", error, error.instance_path))
        .collect()
}

fn examples(kind: &str) -> Vec<&'static str> {
    let blocks = MANUAL.split("```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.split_once('\n'))
        .filter(|(head, _)| *head == kind)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn every_policy_of_the_manual_has_the_form_of_the_schema() {
    let policies = examples("yaml");

    assert!(policies.len() >= 2);
    for text in policies {
        assert_eq!(complaints(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn the_misspelt_and_the_misplaced_keys_of_the_manual_have_not() {
    for wrong in ["form: [", "jwt: {issuer: https://login.example.com}}"] {
        let refused = examples("yaml refused").into_iter().find(|text| text.contains(wrong)).expect(wrong);

        assert!(!complaints(refused).is_empty(), "{refused}");
    }
}

/// Where a key that nobody knows is put into each mapping.
const PROBES: &[(&str, &str)] = &[
    ("policy", "zzzzzz: 1\n"),
    ("issuer", "issuers: [{zzzzzz: 1}]\n"),
    ("keys", "issuers: [{keys: {zzzzzz: 1}}]\n"),
    ("rule", "allow: [{zzzzzz: 1}]\n"),
    ("jwt", "allow: [{jwt: {zzzzzz: 1}}]\n"),
    ("tcp", "allow: [{tcp: {zzzzzz: 1}}]\n"),
    ("http", "allow: [{http: {zzzzzz: 1}}]\n"),
    ("grpc", "allow: [{grpc: {zzzzzz: 1}}]\n"),
    ("connect", "allow: [{connect: {zzzzzz: 1}}]\n"),
    ("upgrade", "allow: [{upgrade: {zzzzzz: 1}}]\n"),
    ("guarantee", "guarantees: [{zzzzzz: 1}]\n"),
    ("never", "guarantees: [{never: {zzzzzz: 1}}]\n"),
    ("test", "tests: [{zzzzzz: 1}]\n"),
];

#[test]
fn the_schema_has_the_keys_that_the_reader_knows_and_no_other() {
    assert_eq!(PROBES.len(), SHAPES.len());
    for (name, probe) in PROBES {
        let source = Source::new(
            "p.yaml",
            format!("vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/w\n{probe}"),
        );
        let problems = compile(&[source]).map(|_| ()).expect_err(probe);
        let unknown =
            problems.iter().find(|problem| problem.message.contains("zzzzzz")).expect("a complaint");
        let known =
            unknown.cure.as_deref().and_then(|cure| cure.strip_prefix("known keys: ")).expect("the keys");

        let shape = SHAPES.iter().find(|shape| shape.name == *name).expect("a shape");

        let read: BTreeSet<&str> = known.split(", ").collect();
        let listed: BTreeSet<&str> = shape.keys.iter().map(|key| key.name).collect();
        assert_eq!(read, listed, "{name}");
    }
}

#[test]
fn every_key_is_explained_and_its_example_has_its_form() {
    let whole = schema();
    for shape in SHAPES {
        for key in shape.keys {
            assert!(key.about.ends_with('.'), "{}.{}", shape.name, key.name);
            if key.example.is_empty() {
                continue;
            }
            let example: Value = serde_json::from_str(key.example).expect(key.name);
            let property = &whole["$defs"][shape.name]["properties"][key.name];
            let mut alone = property.clone();
            alone["$defs"] = whole["$defs"].clone();
            let validator = jsonschema::validator_for(&alone).expect("a schema");
            assert!(validator.is_valid(&example), "{}.{}: {example}", shape.name, key.name);
        }
    }
}

#[test]
fn what_has_not_the_form_of_a_policy_is_underlined() {
    let head = "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/w\n";
    assert_eq!(complaints(head), Vec::<String>::new());
    for (text, replaced) in [
        ("vouchsafe: policy/v2\nname: p\nprotects: spiffe://a.test/w\n", ""),
        ("vouchsafe: policy/v1\nprotects: spiffe://a.test/w\n", ""),
        ("vouchsafe: policy/v1\nname: p\nprotects: [a.test/w]\n", ""),
        (head, "mode: shadow\n"),
        (head, "until: 2027-01-31\n"),
        (head, "mode: audit\n"),
        (head, "allow: []\n"),
        (head, "allow: [{name: r, from: [anyone]}]\n"),
        (head, "allow: [{name: r, tcp: {port: 80}}]\n"),
        (head, "allow: [{name: r, from: anyone, tcp: {port: 80}}]\n"),
        (head, "allow: [{name: r, from: [anyone], tcp: {}}]\n"),
        (head, "allow: [{name: r, from: [anyone], tcp: {port: 0}}]\n"),
        (head, "allow: [{name: r, from: [anyone], tcp: {port: 80, methods: [GET]}}]\n"),
        (head, "allow: [{name: r, from: [anyone], tcp: {port: 80}, http: {port: 80}}]\n"),
        (head, "allow: [{name: r, from: [anyone], tcp: {port: 80}, jwt: {issuer: i}}]\n"),
        (head, "allow: [{name: r, from: [anyone], http: {port: 80, headers: {X-A: [b]}}}]\n"),
        (head, "allow: [{name: r, from: [anyone], http: {port: 80, headers: {x-a: b}}}]\n"),
        (head, "allow: [{name: r, from: [anyone], http: {port: 80}, jwt: {issuer: i, claims: {a: b}}}]\n"),
        (head, "allow: [{name: r, from: [anyone], grpc: {port: 80, service: a/B}}]\n"),
        (head, "issuers: [{issuer: i, keys: {url: \"http://i.example\"}}]\n"),
        (head, "issuers: [{issuer: i, keys: {file: ../a.json}}]\n"),
        (head, "guarantees: [{never: {from: [anyone], jwt: {issuer: i}}}]\n"),
        (head, "guarantees: [{never: {}}]\n"),
        (head, "tests: [{from: unauthenticated, tcp: 80}]\n"),
        (head, "tests: [{from: unauthenticated, http: GET /, expect: deny}]\n"),
        (head, "tests: [{from: unauthenticated, http: GET 80 /, jwt: {sub: a}, expect: deny}]\n"),
    ] {
        let text = format!("{text}{replaced}");
        assert!(!complaints(&text).is_empty(), "{text}");
        assert!(compile(&[Source::new("p.yaml", text.as_str())]).is_err(), "{text}");
    }
}
