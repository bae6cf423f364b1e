//! The committed wire types are what the `.proto` files say: generated here anew, without a
//! system protoc, and compared. `VOUCHSAFE_REGENERATE=1` writes them instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_committed_wire_types_match_their_proto_files() {
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    if std::env::var_os("VOUCHSAFE_REGENERATE").is_some() {
        replace(&committed, fresh.path());
    }

    assert_eq!(names(&committed), names(fresh.path()));
    for name in names(&committed) {
        assert!(
            fs::read(committed.join(&name)).unwrap() == fs::read(fresh.path().join(&name)).unwrap(),
            "{name} differs from its .proto file: run VOUCHSAFE_REGENERATE=1 cargo test -p proto"
        );
    }
}

fn generate(out: &Path) {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    let files: Vec<PathBuf> = SERVICES.iter().map(|file| protos.join(file)).collect();
    let descriptors = protox::compile(files, [protos]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn replace(committed: &Path, fresh: &Path) {
    if committed.exists() {
        fs::remove_dir_all(committed).unwrap();
    }
    fs::create_dir(committed).unwrap();
    for name in names(fresh) {
        fs::copy(fresh.join(&name), committed.join(&name)).unwrap();
    }
}

const SERVICES: [&str; 9] = [
    "spiffe/workload/workload.proto",
    "spire/api/server/agent/v1/agent.proto",
    "spire/api/server/bundle/v1/bundle.proto",
    "spire/api/server/entry/v1/entry.proto",
    "spire/api/server/svid/v1/svid.proto",
    "vouchsafe/v1/policy.proto",
    "vouchsafe/v1/registry.proto",
    "vouchsafe/v1/services.proto",
    "vouchsafe/v1/workload.proto",
];
