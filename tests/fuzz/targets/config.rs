//! The configuration files of the three daemons: every text is a configuration or is explained.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::strict::{Problems, Source};

fuzz_target!(|text: &str| {
    let source = Source::new("config.yaml", text);
    let outcomes = [
        ca::Config::parse(&source).map(drop),
        agent::Config::parse(&source).map(drop),
        proxy::Config::parse(&source).map(drop),
    ];

    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() <= 1);
    outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).for_each(explained);
});

fn explained(problems: &Problems) {
    assert!(!problems.is_empty());
    assert!(problems.to_string().chars().all(|shown| shown == '\n' || !shown.is_control()));
}
