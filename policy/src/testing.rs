//! What the tests of this crate share.

use proptest::test_runner::Config;

/// As many random cases as usual, or as many as `PROPTEST_CASES` asks for.
pub(crate) fn cases(usual: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    Config { cases, ..Config::default() }
}
