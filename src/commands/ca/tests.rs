//! What administering a CA prints and refuses.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use policy::strict::Source;

use super::*;

#[test]
fn a_flag_beats_the_file_and_the_admin_socket_follows_the_data() {
    let args = CaConfig {
        config: PathBuf::new(),
        trust_domain: None,
        listen: Some("127.0.0.1:1".parse().unwrap()),
        data_dir: Some("/data".into()),
        admin_socket: None,
    };
    let text = "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /var/lib/x\n";

    let config = over(Config::parse(&Source::new("ca.yaml", text)).unwrap(), &args);

    assert_eq!(config.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.admin_socket, Path::new("/data/admin.sock"));
    assert_eq!(config.trust_domain.as_str(), "prod.test");
}

#[test]
fn a_secret_is_written_to_a_new_private_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.join");

    drop(create_new(&path).unwrap());

    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(create_new(&path).unwrap_err().exit(), Exit::Unacceptable);
}

#[tokio::test]
async fn a_ca_that_is_not_there_exits_5() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin { admin_socket: Some(dir.path().join("none.sock")), config: PathBuf::new() };

    let failure = connect(&admin).await.err().unwrap();

    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.describe().contains("none.sock"), "{}", failure.describe());
}

#[tokio::test]
async fn without_a_socket_and_without_a_file_nothing_is_guessed() {
    let admin = Admin { admin_socket: None, config: "/no/such/ca.yaml".into() };

    let failure = connect(&admin).await.err().unwrap();

    assert_eq!(failure.exit(), Exit::Unacceptable);
}

#[test]
fn a_serial_number_is_shown_as_in_the_certificate() {
    let hex = "4f00000000000000000000000000000a";
    let decimal = u128::from_str_radix(hex, 16).unwrap().to_string();

    assert_eq!(hexadecimal(&decimal), hex);
    assert_eq!(hexadecimal(""), "");
}
