//! Who is not let in: every flawed certificate, no certificate, no TLS, and servers that are not who they should be.
//!
//! Each refusal leaves exactly one denial on record and no byte at the application.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use crate::support::audit::{code, reason};
use crate::support::backend::Backend;
use crate::support::http;
use crate::support::pki::{Authority, Identity, ago, hence, leaf, uri};
use crate::support::port;
use crate::support::sidecar::{CALLER, Callee, SERVER, Setup, TRUST_DOMAIN, allow_all};
use crate::support::tls::{self, Server};
use crate::support::wait::eventually;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn every_flawed_certificate_is_refused_with_one_denial_and_no_byte_at_the_application() {
    let callee = Callee::http();
    let flawed = flawed_certificates(&callee.authority);
    assert!(flawed.len() > 30, "{} flaws", flawed.len());

    let (mut denied, mut codes) = (0, BTreeMap::<String, Vec<&str>>::new());
    for (flaw, identity) in &flawed {
        let outcome = tls::get(callee.inbound, identity, "/");

        assert!(outcome.is_err(), "{flaw}: answered {outcome:?}");
        denied += 1;
        let record = callee.sidecar.audit.wait_for_denied(denied);
        assert_eq!(reason(&record), "handshake_failed", "{flaw}: {record}");
        codes.entry(code(&record).to_owned()).or_default().push(flaw.as_str());
    }

    assert_eq!(
        callee.backend.connections(),
        0,
        "the application was reached: {}",
        callee.backend.seen_text()
    );
    assert_eq!(
        tls::get(callee.inbound, &callee.caller, "/").unwrap().status,
        200,
        "a sound certificate passes"
    );
    assert_eq!(callee.sidecar.audit.denied(), denied, "one denial for each refusal");
}

/// One flaw each, in otherwise sound certificates of the callee's trust domain.
fn flawed_certificates(authority: &Authority) -> Vec<(String, Identity)> {
    let id = authority.id(CALLER);
    let mut all: Vec<(String, Identity)> = single_flaws()
        .into_iter()
        .map(|(flaw, change)| {
            let mut params = leaf(&id);
            change(&mut params);
            (flaw.to_owned(), authority.issue(params))
        })
        .collect();
    all.extend(bad_ids().into_iter().map(|text| (format!("URI {text:?}"), authority.issue(leaf(&text)))));
    all.extend(foreign_certificates(authority));
    all
}

type Change = fn(&mut CertificateParams);

fn single_flaws() -> Vec<(&'static str, Change)> {
    vec![
        ("expired", |params| {
            params.not_before = ago(2 * HOUR);
            params.not_after = ago(Duration::from_secs(5));
        }),
        ("not yet valid", |params| {
            params.not_before = hence(HOUR);
            params.not_after = hence(2 * HOUR);
        }),
        ("two URI names", |params| params.subject_alt_names.push(uri("spiffe://prod.test/ns/shop/sa/other"))),
        ("the same URI name twice", |params| {
            let again = params.subject_alt_names[0].clone();
            params.subject_alt_names.push(again);
        }),
        ("a second URI name that is no SPIFFE ID", |params| {
            params.subject_alt_names.push(uri("https://prod.test/"))
        }),
        ("no name at all", |params| params.subject_alt_names.clear()),
        ("the ID as a DNS name", |params| {
            params.subject_alt_names =
                vec![SanType::DnsName("spiffe://prod.test/ns/shop/sa/web".try_into().unwrap())];
        }),
        ("the ID as the common name", |params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "spiffe://prod.test/ns/shop/sa/web");
        }),
        ("an authority as a leaf", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        }),
        ("CA:TRUE alone", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("keyCertSign", |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ("cRLSign", |params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
        ("no key usage", |params| params.key_usages.clear()),
        ("no digitalSignature", |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ("for servers only", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("for code signing only", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]
        }),
    ]
}

fn bad_ids() -> Vec<String> {
    let mut all: Vec<String> = [
        "spiffe://prod.test",
        "spiffe://prod.test/",
        "spiffe://PROD.test/ns/shop/sa/web",
        "SPIFFE://prod.test/ns/shop/sa/web",
        "spiffe://prod.test/ns/shop/sa/web/",
        "spiffe://prod.test//ns/shop/sa/web",
        "spiffe://prod.test/ns/x/../shop/sa/web",
        "spiffe://prod.test/ns/./shop/sa/web",
        "spiffe://prod.test/ns/shop/sa/w%65b",
        "spiffe://prod.test/ns/shop/sa/web?x=1",
        "spiffe://prod.test/ns/shop/sa/web#x",
        "spiffe://prod.test:443/ns/shop/sa/web",
        "spiffe://user@prod.test/ns/shop/sa/web",
        "spiffe:///ns/shop/sa/web",
        "https://prod.test/ns/shop/sa/web",
        "prod.test/ns/shop/sa/web",
        "spiffe://prod.test/ns/shop/sa/web\0",
        "spiffe://prod.test/ns/shop/sa/web\n",
        "spiffe://prod.test/ns/shop/sa/w b",
        "spiffe://prod.test.elsewhere.test/ns/shop/sa/web",
    ]
    .map(str::to_owned)
    .to_vec();
    all.push(format!("spiffe://prod.test/{}", "a".repeat(2048)));
    all
}

/// Sound in themselves, but of somebody else.
fn foreign_certificates(authority: &Authority) -> Vec<(String, Identity)> {
    let elsewhere = Authority::new("elsewhere.test");
    let namesake = Authority::new(TRUST_DOMAIN);
    let sound = authority.svid(CALLER);
    let all = [
        ("another trust domain", elsewhere.svid(CALLER)),
        ("our trust domain signed by another", elsewhere.issue(leaf(&authority.id(CALLER)))),
        ("another trust domain signed by ours", authority.issue(leaf(&elsewhere.id(CALLER)))),
        ("an authority of the same name with another key", namesake.svid(CALLER)),
        ("signed by a leaf", sound.issue(leaf(&authority.id(CALLER)))),
    ];
    all.into_iter().map(|(flaw, identity)| (flaw.to_owned(), identity)).collect()
}

#[test]
fn a_caller_without_a_certificate_is_refused_once_on_record() {
    let callee = Callee::http();

    let answer = tls::connect(callee.inbound, None).and_then(|mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: svc.internal\r\n\r\n")?;
        http::read_answer(&mut stream)
    });

    assert!(answer.is_err(), "answered {answer:?}");
    let record = callee.sidecar.audit.wait_for_denied(1);
    assert_eq!((reason(&record), code(&record)), ("handshake_failed", "no_certificate"), "{record}");
    assert_eq!(
        record["src_endpoint"].get("uid"),
        None,
        "an unauthenticated caller has no identity: {record}"
    );
    assert_eq!(callee.backend.connections(), 0);
}

#[test]
fn plaintext_and_what_only_looks_like_tls_are_refused_once_each() {
    let callee = Callee::http();
    let looks_like_tls = [b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".as_slice(), &[0x41; 200]].concat();
    let attempts: [(&str, &[u8]); 5] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: svc.internal\r\n\r\n"),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("garbage behind a handshake header", &looks_like_tls),
        ("an alert first", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("an SSLv2 hello", b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10"),
    ];

    for (number, (what, bytes)) in attempts.iter().enumerate() {
        let mut stream = http::connect(callee.inbound).unwrap();
        stream.write_all(bytes).unwrap();
        let _closing_early_is_fine = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _closed_or_reset = stream.read_to_end(&mut answer);

        assert!(!answer.starts_with(b"HTTP"), "{what}: answered {:?}", String::from_utf8_lossy(&answer));
        callee.sidecar.audit.wait_for_denied(number as u64 + 1);
    }

    assert_eq!(callee.backend.connections(), 0);
}

#[test]
fn tls_1_2_is_not_spoken() {
    let callee = Callee::http();
    // A complete TLS 1.2 ClientHello with ECDHE suites and no supported_versions extension.
    let hello = tls12_hello();

    let mut stream = http::connect(callee.inbound).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _closed_or_reset = stream.read_to_end(&mut answer);

    assert_eq!(answer.first(), Some(&0x15), "an alert, not a ServerHello: {answer:02x?}");
    callee.sidecar.audit.wait_for_denied(1);
}

fn tls12_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // supported_groups: secp256r1
        0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04, // signature_algorithms
        0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // ec_point_formats
    ];
    let mut body = vec![0x03, 0x03];
    body.extend([0x42; 32]);
    body.extend([0x00, 0x00, 0x04, 0xc0, 0x2b, 0xc0, 0x2f, 0x01, 0x00]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![0x16, 0x03, 0x01];
    message.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend([0x01, 0x00]);
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    message
}

#[test]
fn a_caller_that_no_rule_names_is_denied_after_the_handshake_and_named_on_record() {
    let callee = Callee::tcp();
    let stranger = callee.authority.svid("/ns/shop/sa/stranger");

    let mut stream = tls::connect(callee.inbound, Some(&stranger)).unwrap();
    let mut byte = [0];
    let outcome = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut byte));

    assert!(outcome.is_err(), "a denied caller was answered");
    let record = callee.sidecar.audit.wait_for_denied(1);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
    assert_eq!(record["src_endpoint"]["uid"], callee.authority.id("/ns/shop/sa/stranger"), "{record}");
    assert_eq!(record["dst_endpoint"]["uid"], callee.authority.id(SERVER), "{record}");
    assert_eq!(callee.backend.connections(), 0);
}

#[test]
fn a_server_of_the_wrong_identity_gets_no_application_byte() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(CALLER).write(&root.path().join("pem"), &authority);
    let elsewhere = Authority::new("elsewhere.test");
    let mut expired = leaf(&authority.id(SERVER));
    (expired.not_before, expired.not_after) = (ago(2 * HOUR), ago(HOUR));
    let impostors = [
        ("another workload", authority.svid("/ns/shop/sa/impostor")),
        ("a longer path", authority.svid(&format!("{SERVER}/x"))),
        ("another trust domain", elsewhere.svid(SERVER)),
        ("the right name signed by a stranger", elsewhere.issue(leaf(&authority.id(SERVER)))),
        ("expired", authority.issue(expired)),
    ];

    for (number, (what, impostor)) in impostors.iter().enumerate() {
        let server = Server::start(impostor);
        for protocol in ["http", "tcp"] {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
            let setup = Setup::new(&format!("web-{number}-{protocol}")).pem(&root.path().join("pem"));
            let sidecar =
                setup.outbound(protocol, listen, server.address(), &authority.id(SERVER)).start(root.path());

            let answer = http::get(listen, "/secret");

            match (protocol, answer) {
                ("http", Ok(answer)) => assert!(answer.status >= 500, "{what}: {answer:?}"),
                (_, answer) => assert!(answer.is_err(), "{what} over {protocol}: {answer:?}"),
            }
            assert_eq!(
                server.seen(),
                b"",
                "{what} over {protocol}: application bytes went to the wrong server"
            );
            let record = sidecar.audit.wait_for_denied(1);
            assert!(!reason(&record).is_empty(), "{what} over {protocol}: {record}");
        }
    }
}

#[test]
fn the_right_server_is_called_through_the_outbound_listener() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(CALLER).write(&root.path().join("pem"), &authority);
    let server = Server::start(&authority.svid(SERVER));
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
    let setup = Setup::new("web").pem(&root.path().join("pem"));
    let _sidecar = setup.outbound("http", listen, server.address(), &authority.id(SERVER)).start(root.path());

    let answer = http::get(listen, "/secret").unwrap();

    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert!(String::from_utf8_lossy(&server.seen()).starts_with("GET /secret HTTP/1.1\r\n"));
}

#[test]
fn ports_that_are_not_the_services_are_not_open_to_the_network_and_never_loop() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    let (inbound, outbound) = (port::free(), port::free());
    let [inbound, outbound] = [inbound, outbound].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    crate::support::sidecar::write_policy(
        &root.path().join("api"),
        "api.yaml",
        &allow_all("api", &authority.id(SERVER), &authority.id(SERVER), "http", inbound.port()),
    );
    let backend = Backend::http();
    let sidecar = Setup::new("api")
        .pem(&root.path().join("pem"))
        .inbound("http", inbound, backend.address())
        .outbound("http", outbound, inbound, &authority.id(SERVER))
        .start(root.path());

    let via_self = http::get(outbound, "/self").unwrap();
    let admin = sidecar.admin("/config").unwrap();
    let rebound = {
        let mut stream = http::connect(sidecar.admin_address()).unwrap();
        stream
            .write_all(b"GET /config HTTP/1.1\r\nHost: rebound.attacker.test\r\nConnection: close\r\n\r\n")
            .unwrap();
        http::read_answer(&mut stream).unwrap()
    };
    let open = open_descriptors(sidecar.process.pid());
    for _ in 0..20 {
        let _answer = http::get(outbound, "/self").unwrap();
    }

    assert_eq!(via_self.status, 200, "a sidecar may call itself, through TLS and policy: {via_self:?}");
    assert!(!admin.text().contains("PRIVATE KEY"), "the configuration dump holds a key");
    assert!(rebound.status >= 400, "DNS rebinding: a foreign Host was answered {}", rebound.status);
    eventually("the number of open descriptors is back", || {
        (open_descriptors(sidecar.process.pid()) <= open + 8).then_some(())
    });
}

fn open_descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
