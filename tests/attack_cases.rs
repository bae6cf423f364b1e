//! The table of the 50 attack cases in `docs/testing.md`: every case has a row, and every name in it is a test or a fuzz target
//! that there is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

#[test]
fn each_of_the_50_cases_has_a_row_that_names_what_holds_it_or_says_that_it_is_open() {
    let rows = rows();

    let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    for row in &rows {
        assert!(!row.names.is_empty() || row.open, "case {} is neither held nor open", row.number);
    }
}

#[test]
fn every_name_in_the_table_is_a_test_or_a_fuzz_target() {
    let names =
        || rows().into_iter().flat_map(|row| row.names.into_iter().map(move |name| (row.number, name)));

    let missing: Vec<_> = names().filter(|(_, name)| !exists(name)).collect();

    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_name_that_is_no_test_is_found_out() {
    for name in [
        "fuzz nothing",
        "nowhere::a_test",
        "refusals::a_caller_without_a_certificate",
        "refusals::open_descriptors",
        "proxy::tests::cases::tcp",
        "proxy::tests::nowhere::a_test",
    ] {
        assert!(!exists(name), "{name}");
    }
}

/// One case.
struct Row {
    number: usize,
    names: Vec<String>,
    open: bool,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let table = text.split("\n## ").find(|part| part.starts_with("The 50 attack cases\n")).unwrap();
    table.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
    let held = rest.rsplit_once(" | ")?.1.trim_end_matches(" |");
    // Every second piece between backticks is a name.
    let names = held.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some(Row { number: number.parse().ok()?, names, open: held.contains("open: ") })
}

/// Whether a name of the table leads to something.
fn exists(name: &str) -> bool {
    if let Some(target) = name.strip_prefix("fuzz ") {
        return root().join("tests/fuzz/targets").join(target).with_extension("rs").is_file();
    }
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    sources(module).iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| holds(&text, test)))
}

/// The files in which the tests of a module may be: its own, or the one above of which it is a part.
fn sources(module: &str) -> Vec<PathBuf> {
    let (first, rest) = module.split_once("::").unwrap_or((module, ""));
    let base = match first {
        "identity" | "policy" | "audit" | "proxy" | "ca" | "agent" => root().join(first).join("src"),
        "bypasses" => return vec![root().join("policy/tests/bypasses.rs")],
        _ => root().join("tests/system").join(first),
    };
    let own = base.join(rest.replace("::", "/")).with_extension("rs");
    let above =
        rest.strip_suffix("tests").map(|above| base.join(above.replace("::", "/")).with_extension("rs"));
    [own].into_iter().chain(above).collect()
}

/// Whether a text has a test of that name.
fn holds(text: &str, test: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let named = |line: &str| {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        function.and_then(|rest| rest.strip_prefix(test)).is_some_and(|rest| rest.starts_with('('))
    };
    let marked = |above: &[&str]| {
        let mut attributes = above.iter().rev().take_while(|line| line.starts_with(['#', '/']));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    (0..lines.len())
        .any(|at| lines.get(at).is_some_and(|line| named(line)) && lines.get(..at).is_some_and(marked))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
