//! Join strings: what is accepted is written exactly as it came.
#![no_main]

use identity::JoinString;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(read) = JoinString::parse(text) else { return };

    assert_eq!(read.to_secret().expose(), text.trim_ascii());
    assert!(text.contains(read.ca()) && text.contains(read.token().expose()));
});
