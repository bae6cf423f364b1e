//! Selectors: CA and agent take the same text apart alike.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(of_ca) = ca::model::Selector::parse(text) else { return };

    assert_eq!(of_ca.to_string(), text);
    let of_agent = agent::selector::Selector::new(&*of_ca.kind, &*of_ca.value);
    if let Ok(of_agent) = of_agent {
        assert_eq!(of_agent.to_string(), text);
        assert_eq!((of_agent.kind(), of_agent.value()), (&*of_ca.kind, &*of_ca.value));
    } else {
        assert!(of_ca.kind.len().max(of_ca.value.len()) > agent::selector::MAX_SELECTOR_BYTES);
    }
});
