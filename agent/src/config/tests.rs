use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(&Source::new("agent.yaml", text)).map_err(|problems| problems.to_string())
}

fn with(rest: &str) -> Result<Config, String> {
    parse(&format!("vouchsafe: agent/v1\ntrust_domain: prod.test\n{rest}"))
}

#[track_caller]
fn refused(rest: &str, why: &str) {
    let problems = with(rest).expect_err("the flaw was accepted");
    assert!(problems.contains(why), "{problems}");
}

#[test]
fn the_least_configuration_has_defaults() {
    let config = with("").unwrap();

    assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
    assert_eq!(config.admin_socket, Path::new("/var/lib/vouchsafe/agent/admin.sock"));
    assert_eq!(
        (config.ca, config.bootstrap, config.metrics),
        (CaAddress::FromJoinString, Bootstrap::Nothing, Metrics::Off)
    );
    assert_eq!(config.attestor, attestor::Options::default());
}

#[test]
fn everything_can_be_said() {
    let config = with(
        "ca: ca.prod.test:8081\ndata_dir: /data\nsocket: /run/a.sock\nadmin_socket: /run/b.sock\n\
         bootstrap:\n  join_token_credential: token\n  trust_bundle_file: /etc/bundle.pem\n\
         workload_attestors:\n  unix: {path: true, sha256: false, sha256_limit: 1MiB}\n\
         metrics:\n  listen: \"[::1]:9464\"\n",
    )
    .unwrap();

    assert_eq!(config.ca, CaAddress::At("ca.prod.test:8081".to_owned()));
    assert_eq!(
        config.bootstrap,
        Bootstrap::Token {
            token: SecretSource::Credential("token".to_owned()),
            bundle: PathBuf::from("/etc/bundle.pem")
        }
    );
    assert_eq!(
        config.attestor,
        attestor::Options { path: Switch::On, sha256: Switch::Off, sha256_limit: 1024 * 1024 }
    );
    assert_eq!(config.metrics, Metrics::Listen("[::1]:9464".parse().unwrap()));
}

#[test]
fn a_join_string_comes_from_a_file_standard_input_or_a_credential() {
    let bootstrap = |line: &str| with(&format!("bootstrap:\n  {line}\n")).unwrap().bootstrap;

    assert_eq!(
        bootstrap("join_string_file: /etc/join"),
        Bootstrap::JoinString(SecretSource::File(PathBuf::from("/etc/join")))
    );
    assert_eq!(bootstrap("join_string_file: \"-\""), Bootstrap::JoinString(SecretSource::StandardInput));
    assert_eq!(
        bootstrap("join_string_credential: join"),
        Bootstrap::JoinString(SecretSource::Credential("join".to_owned()))
    );
}

#[test]
fn flaws_are_named_with_a_cure() {
    refused("sockets: /x\n", "did you mean \"socket\"?");
    refused("socket: run/agent.sock\n", "expected an absolute path");
    refused("ca: ca.prod.test\n", "expected host:port");
    refused("ca: \"http://ca.prod.test:8081\"\n", "expected host:port");
    refused("ca: ca.prod.test:0\n", "expected host:port");
    refused("ca: ca.prod.test:99999\n", "expected host:port");
    refused("metrics: {}\n", "\"listen\" is missing");
    refused("metrics:\n  listen: localhost\n", "an address such as");
    refused("workload_attestors:\n  unix: {path: yes}\n", "expected true or false");
    refused("workload_attestors:\n  docker: {}\n", "unknown key");
}

#[test]
fn flawed_bootstraps_are_refused() {
    refused("bootstrap: {}\n", "expected either a join string");
    refused("bootstrap:\n  join_token_file: /t\nca: a:1\n", "needs a trust bundle");
    refused("bootstrap:\n  join_token_file: /t\n  trust_bundle_file: /b\n", "does not say where the CA is");
    refused("bootstrap:\n  join_string_file: /a\n  join_string_credential: b\n", "named twice");
    refused("bootstrap:\n  join_string_file: /a\n  trust_bundle_file: /b\n", "expected either a join string");
    refused("bootstrap:\n  join_string_credential: ../../etc/shadow\n", "name of a credential");
    refused("bootstrap:\n  join_string: vs1:a:b:c\n", "unknown key");
}

#[test]
fn another_kind_of_file_is_refused() {
    assert!(parse("vouchsafe: ca/v1\ntrust_domain: prod.test\n").is_err());
    assert!(parse("trust_domain: prod.test\n").is_err());
    assert!(parse("vouchsafe: agent/v1\ntrust_domain: Prod\n").is_err());
    assert!(parse("vouchsafe: agent/v1\n").is_err());
    assert!(parse("").is_err());
}
