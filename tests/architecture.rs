//! The crates and the arrows between them: `design.md` drawn once more, as assertions over `cargo metadata`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may name whom in normal dependencies; what is not drawn is forbidden.
const ARROWS: [(&str, &[&str]); 8] = [
    ("vouchsafe", &["identity", "proto", "policy", "audit", "ca", "agent", "proxy"]),
    ("ca", &["identity", "proto", "policy", "audit"]),
    ("agent", &["identity", "proto", "policy", "audit"]),
    ("proxy", &["identity", "proto", "policy", "audit"]),
    ("policy", &["identity"]),
    ("audit", &["identity"]),
    ("identity", &[]),
    ("proto", &[]),
];

#[test]
fn every_crate_of_the_workspace_has_its_place_in_the_drawing() {
    let members: BTreeSet<String> = packages().into_keys().collect();

    let drawn: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();

    assert_eq!(members, drawn);
}

#[test]
fn crates_name_only_what_lies_below_them() {
    let packages = packages();

    for (name, below) in ARROWS {
        let named = ours(&packages[name], &packages);
        let foreign: Vec<_> = named.iter().filter(|dep| !below.contains(&dep.as_str())).collect();
        assert!(foreign.is_empty(), "{name} names {foreign:?}; it may name {below:?} only");
    }
}

#[test]
fn policy_and_audit_stand_on_identity_and_the_daemons_on_both() {
    let packages = packages();

    assert_eq!(ours(&packages["policy"], &packages), set(&["identity"]));
    assert_eq!(ours(&packages["audit"], &packages), set(&["identity"]));
    for daemon in ["ca", "agent", "proxy"] {
        assert!(
            ours(&packages[daemon], &packages).contains("identity"),
            "{daemon} has an identity of its own"
        );
    }
}

#[test]
fn policy_has_no_runtime_no_log_and_no_network_among_its_dependencies() {
    let direct = dependencies(&packages()["policy"], "normal");

    for banned in IMPURE_CRATES {
        assert!(!direct.contains(*banned), "policy depends on {banned}");
    }
}

#[test]
fn policy_reads_no_clock_no_file_and_no_socket() {
    for (path, text) in sources("policy/src") {
        for word in IMPURE_WORDS {
            let line = shipped(&text).lines().position(|line| !comment(line) && line.contains(word));
            assert!(
                line.is_none(),
                "{}:{}: `{word}` in the pure crate",
                path.display(),
                line.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn proto_holds_generated_types_and_no_logic() {
    for (path, text) in sources("proto/src") {
        if path.components().any(|part| part.as_os_str() == "generated") {
            assert!(
                text.starts_with("//") || text.contains("@generated"),
                "{} is not marked as generated",
                path.display()
            );
            continue;
        }
        for word in ["fn ", "impl ", "struct ", "enum ", "trait "] {
            let found = shipped(&text).lines().any(|line| !comment(line) && line.contains(word));
            assert!(!found, "{} holds `{word}`: proto has no logic", path.display());
        }
    }
}

#[test]
fn only_identity_touches_a_crypto_provider() {
    for (name, package) in packages() {
        let direct = dependencies(&package, "normal");
        for provider in ["ring", "aws-lc-rs"] {
            assert_eq!(direct.contains(provider), name == "identity", "{name} and {provider}");
        }
    }
}

#[test]
fn the_proxy_names_nothing_that_can_issue_a_certificate() {
    assert!(!dependencies(&packages()["proxy"], "normal").contains("rcgen"));
}

#[test]
fn features_choose_the_crypto_provider_and_nothing_else() {
    for (name, package) in packages() {
        let features = package["features"].as_object().unwrap();
        let others: Vec<_> =
            features.keys().filter(|key| !["default", "ring", "aws-lc"].contains(&key.as_str())).collect();
        assert!(others.is_empty(), "{name} has the features {others:?}");
    }
}

#[test]
fn a_build_links_one_crypto_provider_and_no_tls_1_2() {
    for (chosen, other) in [("ring", "aws-lc-rs"), ("aws-lc", "ring")] {
        let linked = tree(chosen);

        let foreign = linked.iter().find(|line| line.starts_with(&format!("{other} ")));
        assert_eq!(foreign, None, "a build with `{chosen}`");
        let tls12 = linked.iter().find(|line| line.starts_with("rustls ") && line.contains("tls12"));
        assert_eq!(tls12, None, "a build with `{chosen}`");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (name, package) in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let inherits = manifest
            .split("[lints]")
            .nth(1)
            .is_some_and(|after| after.trim_start().starts_with("workspace = true"));
        assert!(inherits, "{name} does not say `[lints] workspace = true`");
    }
}

#[test]
fn every_file_opens_with_what_it_holds_and_none_is_a_mod_rs() {
    for (name, _) in ARROWS {
        let folder = if name == "vouchsafe" { "src".to_owned() } else { format!("{name}/src") };
        for (path, text) in sources(&folder) {
            if path.components().any(|part| part.as_os_str() == "generated") {
                continue;
            }
            assert!(text.starts_with("//!"), "{} does not say what lives in it", path.display());
            assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", path.display());
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> BTreeMap<String, Value> {
    let text = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    packages.into_iter().map(|package| (package["name"].as_str().unwrap().to_owned(), package)).collect()
}

fn dependencies(package: &Value, kind: &str) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().unwrap();
    let wanted = all.iter().filter(|dependency| dependency["kind"].as_str().unwrap_or("normal") == kind);
    wanted.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
}

/// The crates of this workspace that a package names.
fn ours(package: &Value, packages: &BTreeMap<String, Value>) -> BTreeSet<String> {
    dependencies(package, "normal").into_iter().filter(|name| packages.contains_key(name)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a build of the binary links, one `name version features` a line.
fn tree(feature: &str) -> Vec<String> {
    let arguments = ["tree", "--package", "vouchsafe", "--no-default-features", "--features", feature];
    let format = ["--edges", "normal", "--prefix", "none", "--format", "{p} {f}", "--locked"];
    let text = cargo(&[arguments.as_slice(), format.as_slice()].concat());
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.len() > 100, "`cargo tree` listed {} crates", lines.len());
    lines
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    let tests = test_modules(&found);
    let only_tests =
        |path: &Path| path.iter().any(|part| tests.contains(&*part.to_string_lossy().replace(".rs", "")));
    found.retain(|(path, _)| !only_tests(path));
    found
}

/// The names of the modules that are compiled for tests alone.
fn test_modules(files: &[(PathBuf, String)]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in files {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let name = pair[1].rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
            if pair[0] == "#[cfg(test)]" {
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names
}

/// The text of a file up to its tests.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures-util",
    "tracing",
    "log",
    "notify",
    "hyper",
    "rustix",
    "nix",
    "socket2",
    "prometheus-client",
];

const IMPURE_WORDS: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "UtcDateTime::now",
    "OffsetDateTime::now",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "async fn",
    "println!",
    "static mut",
];
