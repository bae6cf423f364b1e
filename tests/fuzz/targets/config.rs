//! The configuration files of the three daemons: every text is a configuration or is explained.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::strict::{Problems, Source};

fuzz_target!(init: seeds_are_accepted(), |bytes: &[u8]| {
    check(bytes);
});

fn seeds_are_accepted() {
    fuzz::accepts(include_bytes!("../seeds/config/ca.yaml"), &check);
    fuzz::accepts(include_bytes!("../seeds/config/agent.yaml"), &check);
    fuzz::accepts(include_bytes!("../seeds/config/proxy.yaml"), &check);
}

/// Reads a file as each of the three; says whether it is one of them.
fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let source = Source::new("config.yaml", text);
    let outcomes = [
        ca::Config::parse(&source).map(drop),
        agent::Config::parse(&source).map(drop),
        proxy::Config::parse(&source).map(drop),
    ];

    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() <= 1);
    outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).for_each(explained);
    outcomes.iter().any(Result::is_ok)
}

fn explained(problems: &Problems) {
    assert!(!problems.is_empty());
    assert!(problems.to_string().chars().all(|shown| shown == '\n' || !shown.is_control()));
}
