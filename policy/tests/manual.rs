//! The manual keeps its word: its policies load, and its errors are printed as shown.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as promised"
)]

use policy::compile;
use policy::strict::Source;

const MANUAL: &str = include_str!("../../docs/policy-language.md");

/// The fenced blocks of the manual: what stands behind the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut parts = MANUAL.split("```").skip(1);
    let mut blocks = Vec::new();
    while let Some(block) = parts.next() {
        blocks.push(block.split_once('\n').expect("a fence ends its line"));
        parts.next();
    }
    blocks
}

/// Compiles a policy with the key sets of the manual that it names.
fn load(text: &str) -> Result<(), String> {
    let key_sets = blocks().into_iter().filter_map(|(kind, keys)| Some((kind.strip_prefix("json ")?, keys)));
    let named = key_sets.filter(|(name, _)| text.contains(name)).map(|(name, keys)| Source::new(name, keys));
    let files: Vec<Source> = [Source::new("policy.yaml", text)].into_iter().chain(named).collect();
    compile(&files).map(|_| ()).map_err(|problems| problems.to_string())
}

#[test]
fn every_policy_of_the_manual_loads_and_passes_its_tests() {
    let policies: Vec<&str> =
        blocks().into_iter().filter(|(kind, _)| *kind == "yaml").map(|(_, text)| text).collect();

    assert!(policies.len() >= 3);
    for text in policies {
        if let Err(problems) = load(text) {
            panic!("{problems}");
        }
    }
}

#[test]
fn every_refused_policy_of_the_manual_is_refused_in_the_words_that_follow_it() {
    let blocks = blocks();
    let refused = blocks.windows(2).filter_map(|pair| match pair {
        [("yaml refused", text), ("text", shown)] => Some((*text, *shown)),
        _ => None,
    });

    let mut seen = 0;
    for (text, shown) in refused {
        assert_eq!(load(text).expect_err("a refusal"), shown.trim_end(), "{text}");
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn the_limits_of_the_manual_are_those_of_the_code() {
    let thousands = |number: usize| {
        let text = number.to_string();
        let head = text.len() % 3;
        let groups: Vec<&str> = std::iter::once(&text[..head])
            .chain((head..text.len()).step_by(3).map(|at| &text[at..at + 3]))
            .filter(|group| !group.is_empty())
            .collect();
        groups.join(",")
    };
    for promise in [
        format!(
            "| {} MiB, {} values, {} levels |",
            policy::strict::MAX_BYTES >> 20,
            thousands(policy::strict::MAX_NODES),
            policy::strict::MAX_DEPTH
        ),
        format!(
            "| {} files, {} MiB, {} rules |",
            thousands(policy::MAX_FILES),
            policy::MAX_SET_BYTES >> 20,
            thousands(policy::MAX_RULES)
        ),
        format!(
            "| {} rules, {} tests, {} entries in `protects` |",
            thousands(policy::MAX_RULES_PER_POLICY),
            thousands(policy::MAX_TESTS),
            policy::MAX_PROTECTS
        ),
        format!(
            "| {} entries each in `from`, `except` and `paths`; {} in `source_net` and `hosts`; {} in `ports`; {} in `methods` |",
            thousands(policy::MAX_FROM),
            policy::MAX_NETWORKS,
            policy::MAX_PORTS,
            policy::MAX_METHODS
        ),
        format!(
            "| {} guarantees, {} issuers of {} `audiences` |",
            policy::MAX_GUARANTEES,
            policy::MAX_ISSUERS,
            policy::MAX_AUDIENCES
        ),
        format!(
            "| {} entries in `sni`; {} in `services`; {} in `protocols`; {} headers of {} values; {} claims of {} values, {} levels deep |",
            policy::MAX_SERVER_NAMES,
            policy::MAX_SERVICES,
            policy::MAX_PROTOCOLS,
            policy::MAX_HEADERS,
            policy::MAX_HEADER_VALUES,
            policy::MAX_CLAIMS,
            policy::MAX_CLAIM_VALUES,
            policy::MAX_CLAIM_DEPTH
        ),
        format!("| {} KiB, {} keys |", identity::jwt::MAX_SET_BYTES >> 10, identity::jwt::MAX_KEYS),
        format!("| {} characters |", policy::MAX_NAME),
        format!("| {} segments |", policy::pattern::MAX_SEGMENTS),
        format!("| {} KiB |", policy::MAX_PATH_BYTES >> 10),
    ] {
        assert!(MANUAL.contains(&promise), "the manual does not say {promise}");
    }
    assert_eq!((policy::MAX_FROM, policy::MAX_NETWORKS), (policy::MAX_PATHS, policy::MAX_HOSTS));
}
