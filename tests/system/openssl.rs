//! `openssl s_client`: a TLS stack that knows nothing of SPIFFE, with an SVID fetched by `vouchsafe svid fetch`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::cluster::{Pair, WEB, id};
use crate::support::command::{clean, ended};

const REQUEST: &[u8] = b"GET /from-openssl HTTP/1.1\r\nHost: svc.internal\r\nConnection: close\r\n\r\n";

#[test]
fn openssl_is_let_in_with_a_fetched_svid_and_refused_without() {
    let pair = Pair::start("", "1h");
    let files = pair.root.path().join("fetched");
    let fetch = ["svid", "fetch", "--socket", &pair.agent.endpoint(), "--out", &files.display().to_string()];
    ended(clean(Command::new(pair.root.path().join("bin/web")), &fetch)).expect(0);

    let with = s_client(&pair, &files, true);
    let records_before = pair.api.audit.denied();
    let without = s_client(&pair, &files, false);

    assert!(with.contains("HTTP/1.1 200"), "{with}");
    assert!(
        with.contains("Verify return code: 0 (ok)"),
        "openssl does not accept the sidecar's chain: {with}"
    );
    assert!(with.contains("TLSv1.3") && !with.contains("Reused"), "{with}");
    assert!(pair.http.backend.seen_text().contains(&id(WEB)), "{}", pair.http.backend.seen_text());
    assert_eq!(records_before, 0);
    assert!(!without.contains("HTTP/1.1"), "{without}");
    pair.api.audit.wait_for_denied(1);
}

#[test]
fn a_fetched_key_is_for_its_owner_alone_and_the_chain_verifies() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = Pair::start("", "1h");
    let files = pair.root.path().join("fetched");
    let fetch = ["svid", "fetch", "--socket", &pair.agent.endpoint(), "--out", &files.display().to_string()];
    ended(clean(Command::new(pair.root.path().join("bin/web")), &fetch)).expect(0);

    let mode = std::fs::metadata(files.join("key.pem")).unwrap().permissions().mode() & 0o777;
    let mut verify = Command::new("openssl");
    verify.arg("verify").arg("-CAfile").arg(files.join("bundle.pem")).arg(files.join("svid.pem"));

    assert_eq!(mode, 0o600);
    assert!(ended(verify).expect(0).stdout.contains("OK"));
}

fn s_client(pair: &Pair, files: &Path, present: bool) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &pair.http.inbound.to_string(), "-ign_eof"]);
    command.arg("-CAfile").arg(files.join("bundle.pem"));
    if present {
        command.arg("-cert").arg(files.join("svid.pem")).arg("-key").arg(files.join("key.pem"));
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is missing: tests/run.sh installs it");
    // Without a certificate the connection may be gone before the request is written.
    let _cut = child.stdin.take().unwrap().write_all(REQUEST);
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
