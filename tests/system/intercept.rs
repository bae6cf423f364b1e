//! Interception in network namespaces: a pair of sidecars carries what neither application knows of, and whoever goes
//! around the called one gets nothing.

mod app;
mod pair;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use app::{App, ECHO, HTTP, REQUEST, asked, connect, greeted, say};
use pair::{Pair, Shape};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, ipproto};

use crate::support::audit::{code, reason};
use crate::support::command::{Ended, binary};
use crate::support::lan::{Host, Lan};
use crate::support::wait::{eventually, throughout};

#[test]
fn a_transparent_pair_carries_curl_unmodified_over_both_families() {
    let pair = Pair::start();
    let file = pair.root.path().join("body");
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[number as usize % 3]).collect();
    std::fs::write(&file, &body).unwrap();

    for address in pair.far.at(HTTP) {
        let told = curl(&pair.near, &[&format!("http://{address}/x")]).expect(0);
        let data = format!("@{}", file.display());
        let out = pair.root.path().join("out");
        let post =
            ["--data-binary", &data, "-o", &out.display().to_string(), &format!("http://{address}/post")];
        curl(&pair.near, &post).expect(0);

        assert_eq!(told.stdout, "of the application", "{address}");
        assert!(std::fs::read(&out).unwrap() == body, "{address}: the body came back changed");
    }
    // The server speaks first: nothing waits for a first byte of the client.
    for address in pair.far.at(ECHO) {
        let said = pair.near.enter(|| greeted(address).and_then(|mut stream| say(&mut stream, b"across")));
        said.unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    let opened =
        pair.called.audit.records().into_iter().find(|record| record["src_endpoint"]["port"].is_u64());
    let opened = opened.expect("a record of a connection");
    assert_eq!(opened["src_endpoint"]["ip"], pair.near.v4().to_string(), "{opened}");
    assert_eq!(opened["dst_endpoint"]["port"], HTTP, "{opened}");
    assert_eq!(pair.called.audit.denied(), 0);
}

#[test]
fn whoever_dials_the_application_from_outside_gets_nothing() {
    let pair = Pair::start();
    let link_local = link_local(&pair.far);

    let mut answers = Vec::new();
    for port in [HTTP, ECHO] {
        for address in pair.far.at(port) {
            answers.push(pair.stranger.enter(|| asked(address, REQUEST)));
            answers.push(pair.stranger.enter(|| asked(address, b"\x16\x03\x01\x00\x05hello")));
        }
    }
    let told = curl(&pair.stranger, &["--max-time", "3", &format!("http://[{link_local}%25eth0]:{HTTP}/x")]);

    for answer in answers {
        assert!(!answer.windows(3).any(|window| window == b"of "), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(
        told.code != 0 && told.stdout.is_empty(),
        "a link-local address leads past the sidecar: {}",
        told.stdout
    );
    assert_eq!(pair.app.came(), Vec::<IpAddr>::new());
    let denial = pair.called.audit.wait_for_denial(|record| reason(record) == "handshake_failed");
    assert_eq!(denial["dst_endpoint"]["port"], HTTP, "the port that was called is on record: {denial}");
}

#[test]
fn a_host_without_ipv4_is_no_way_around() {
    let pair = Pair::start();
    pair.stranger.ip(&["address", "flush", "dev", "eth0", "scope", "global"]);
    pair.stranger.ip(&["address", "add", "fd98::4/64", "dev", "eth0", "nodad"]);

    let [_, v6] = pair.far.at(HTTP);
    let answer = pair.stranger.enter(|| asked(v6, REQUEST));

    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(pair.app.came().is_empty());
    assert!(curl(&pair.near, &[&format!("http://{v6}/x")]).stdout.starts_with("of the application"));
}

#[test]
fn the_sidecars_own_ports_lead_nowhere() {
    let shape = Shape::default();
    let pair =
        Pair::shaped(Shape { inbound: format!("{}, outbound: {{}}", shape.inbound), ..Shape::default() });
    let admin = pair.called.admin_address().port();
    let before = descriptors(&pair);

    let mut dialled = 0;
    for port in [15001, 15006, 15008, admin] {
        for address in pair.far.at(port) {
            // From outside, and by the workload itself through its own addresses.
            for host in [&pair.stranger, &pair.far] {
                let answer = host.enter(|| asked(address, REQUEST));
                let outside = std::ptr::eq(host, &pair.stranger);
                // The workload may read its sidecar's metrics. No tunnel is offered: that port is one of the workload's,
                // where plaintext gets an alert.
                let harmless = (port == admin && !outside) || (port == 15008 && answer.len() <= TLS_ALERT);
                assert!(answer.is_empty() || harmless, "{address}: {}", String::from_utf8_lossy(&answer));
                dialled += 1;
            }
        }
        for ip in ["127.0.0.1", "::1"] {
            let address = SocketAddr::from((ip.parse::<IpAddr>().unwrap(), port));
            let answer = pair.far.enter(|| asked(address, REQUEST));
            assert!(answer.is_empty() || port == admin, "{address}: {}", String::from_utf8_lossy(&answer));
        }
    }

    // A listener of its own that speaks mutual TLS is reached as ever.
    for address in pair.far.at(8443) {
        pair.stranger.enter(|| asked(address, REQUEST));
        let ip = address.ip().to_string();
        pair.called.audit.wait_for_denial(|record| {
            reason(record) == "handshake_failed"
                && record["dst_endpoint"]["port"] == 8443
                && record["dst_endpoint"]["ip"] == ip.as_str()
        });
    }
    assert_eq!(dialled, 16);
    assert!(pair.app.came().is_empty());
    let denial = pair.called.audit.wait_for_denial(|record| code(record) == "own_port");
    assert_eq!(reason(&denial), "not_permitted", "{denial}");
    eventually("the descriptors of before", || (descriptors(&pair) <= before).then_some(()));
}

#[test]
fn what_is_no_tcp_does_not_get_in_and_neighbours_are_still_found() {
    let lan = Lan::new();
    let (far, stranger) = (lan.host(3), lan.host(4));
    let udp = far.enter(|| UdpSocket::bind(("::", HTTP)).unwrap());
    udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let sockets = [
        (AddressFamily::INET, ipproto::SCTP),
        (AddressFamily::INET6, ipproto::SCTP),
        (AddressFamily::INET, ipproto::GRE),
        (AddressFamily::INET, ipproto::DCCP),
    ]
    .map(|(family, protocol)| (protocol, family, raw(&far, family, protocol)));
    let send = || {
        for address in far.at(HTTP) {
            stranger.enter(|| send_datagram(address));
        }
        for (protocol, family, _) in &sockets {
            let to = if *family == AddressFamily::INET { far.v4() } else { far.v6() };
            send_raw(&stranger, *protocol, to);
        }
    };
    let arrived = || {
        let mut buffer = [0; 1500];
        let datagrams = std::iter::from_fn(|| udp.recv_from(&mut buffer).ok()).count();
        let packets = sockets
            .iter()
            .filter(|(_, _, socket)| rustix::net::recv(socket, &mut [0; 1500], RecvFlags::DONTWAIT).is_ok());
        (datagrams, packets.count())
    };
    send();
    assert_eq!(arrived(), (2, 4), "without rules everything arrives");

    let words = ["proxy", "intercept", "install", "--inbound", "all"];
    far.run(&binary().display().to_string(), &words).expect(0);
    stranger.ip(&["neigh", "flush", "all"]);
    far.ip(&["neigh", "flush", "all"]);
    send();

    assert_eq!(arrived(), (0, 0));
    for ip in [far.v4(), far.v6()] {
        let echo = pings(&stranger, ip);
        assert!(echo, "{ip} does not answer a ping");
    }
}

#[test]
fn connections_older_than_the_rules_are_cut() {
    for tracked in [false, true] {
        let lan = Lan::new();
        let (far, stranger) = (lan.host(3), lan.host(4));
        if tracked {
            // From here on the kernel follows connections: their first packets are not seen by our rules.
            far.run("nft", &["add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ct state new accept"]).expect(0);
        }
        let app = far.enter(App::start);
        let other = stranger.enter(App::start);
        let mut into: Vec<TcpStream> =
            far.at(ECHO).map(|address| stranger.enter(|| greeted(address).unwrap())).into_iter().collect();
        let mut out: Vec<TcpStream> =
            stranger.at(ECHO).map(|address| far.enter(|| greeted(address).unwrap())).into_iter().collect();
        for stream in into.iter_mut().chain(&mut out) {
            say(stream, b"before").unwrap();
        }

        let words = ["proxy", "intercept", "install", "--inbound", "all", "--outbound", "all"];
        far.run(&binary().display().to_string(), &words).expect(0);

        for stream in into.iter_mut().chain(&mut out) {
            let said = say(stream, b"after the rules");
            let error = said.expect_err("a connection that goes on").kind();
            let cut = matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            assert!(cut, "tracked before: {tracked}: {stream:?}: {error}");
        }
        for app in [&app, &other] {
            let seen = app.seen();
            assert!(!seen.windows(5).any(|window| window == b"after"), "tracked before: {tracked}");
        }
    }
}

#[test]
fn an_application_that_pushes_on_an_old_connection_is_cut_as_well() {
    let lan = Lan::new();
    let (far, stranger) = (lan.host(3), lan.host(4));
    far.run("nft", &["add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ct state new accept"]).expect(0);
    let listener = far.enter(|| TcpListener::bind(("::", ECHO)).unwrap());
    let _client = stranger.enter(|| connect(far.at(ECHO)[0]).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"before").unwrap();

    far.run(&binary().display().to_string(), &["proxy", "intercept", "install", "--inbound", "all"])
        .expect(0);

    eventually("the end of the connection", || server.write_all(b"after").is_err().then_some(()));
}

#[test]
fn a_sidecar_that_is_gone_leaves_the_door_shut() {
    for mode in ["redirect", "tproxy"] {
        let shape = Shape::default();
        let mut pair =
            Pair::shaped(Shape { inbound: format!("mode: {mode}, {}", shape.inbound), ..Shape::default() });
        pair.called.process.kill();

        for address in pair.far.at(HTTP) {
            let answer = pair.stranger.enter(|| asked(address, REQUEST));
            assert!(answer.is_empty(), "{mode} {address}");
        }
        // An application that takes the sidecar's place has no mark, and cannot give itself one.
        let impostor = App::default();
        let listener = pair.far.enter(|| TcpListener::bind(("::", 15006)).unwrap());
        impostor.serve(listener, app::http);
        for address in pair.far.at(HTTP) {
            let answer = pair.stranger.enter(|| asked(address, REQUEST));
            assert!(answer.is_empty(), "{mode} {address}: {}", String::from_utf8_lossy(&answer));
        }
        assert!(pair.app.came().is_empty() && impostor.came().is_empty(), "{mode}");

        pair.far.enter(|| pair.called.admin("/livez").expect_err("it is gone"));
    }
}

#[test]
fn tproxy_keeps_the_callers_address_for_the_application() {
    let shape = Shape::default();
    let pair =
        Pair::shaped(Shape { inbound: format!("mode: tproxy, {}", shape.inbound), ..Shape::default() });

    for address in pair.far.at(HTTP) {
        let told = curl(&pair.near, &[&format!("http://{address}/x")]).expect(0);
        assert_eq!(told.stdout, "of the application", "{address}");
    }
    for address in pair.far.at(ECHO) {
        let said =
            pair.near.enter(|| greeted(address).and_then(|mut stream| say(&mut stream, &[7; 300_000])));
        said.unwrap_or_else(|error| panic!("{address}: {error}"));
    }

    let (v4, v6) = (pair.near.v4(), pair.near.v6());
    assert_eq!(pair.app.came(), [v4, v6, v4, v6]);
    for address in pair.far.at(HTTP).into_iter().chain(pair.far.at(ECHO)) {
        let answer = pair.stranger.enter(|| asked(address, REQUEST));
        assert!(!answer.windows(3).any(|window| window == b"of "), "{address}");
    }
    assert_eq!(pair.app.came().len(), 4);
    pair.intercept(&pair.far, "check", "api").expect(0);
    pair.far.run(&binary().display().to_string(), &["proxy", "intercept", "remove"]).expect(0);
    let rules =
        pair.far.run("ip", &["-6", "rule", "show"]).stdout + &pair.far.run("ip", &["rule", "show"]).stdout;
    assert!(!rules.contains("15006"), "{rules}");
}

#[test]
fn multipath_tcp_is_captured_as_tcp() {
    let pair = Pair::start();

    for address in pair.far.at(HTTP) {
        let answer = pair.stranger.enter(|| multipath(address));
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{address}: {}", String::from_utf8_lossy(&answer));
    }
    assert!(pair.app.came().is_empty());

    for address in pair.far.at(HTTP) {
        let answer = pair.near.enter(|| multipath(address));
        assert!(answer.ends_with(b"of the application"), "{address}: {}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn a_probe_is_let_in_by_exact_path_port_and_source_alone() {
    let shape = Shape {
        called: format!("probes: [{{path: /healthz, port: {HTTP}, source: [10.98.0.2/32, fd98::2/128]}}]"),
        outbound: "outbound: {danger_exempt_ports: [8080, 9090]}".to_owned(),
        ..Shape::default()
    };
    let pair = Pair::shaped(shape);
    let status = |host: &Host, words: &[&str]| {
        let words = [&["-o", "/dev/null", "-w", "%{http_code}", "--max-time", "3"], words].concat();
        curl(host, &words).stdout
    };

    for address in pair.far.at(HTTP) {
        let (health, other) = (format!("http://{address}/healthz"), format!("http://{address}/x"));
        assert_eq!(status(&pair.near, &[&health]), "200");
        assert_eq!(status(&pair.near, &["-I", &health]), "200");
        assert_eq!(status(&pair.near, &[&other]), "403");
        assert_eq!(status(&pair.near, &["-d", "x", &health]), "403");
        assert_eq!(status(&pair.near, &[&format!("{health}?x")]), "403");
        assert_eq!(status(&pair.stranger, &[&health]), "000", "another source");
    }
    for address in pair.far.at(ECHO) {
        assert!(pair.near.enter(|| greeted(address)).is_err(), "another port");
    }
    // Another host takes the address of the one that may: the answers go to the one that has it.
    pair.stranger.ip(&["address", "add", "10.98.0.2/32", "dev", "eth0"]);
    pair.stranger.ip(&["-6", "address", "add", "fd98::2/128", "dev", "eth0", "nodad"]);
    let came = pair.app.came().len();
    for (address, from) in pair.far.at(HTTP).into_iter().zip(["10.98.0.2", "fd98::2"]) {
        let spoofed = status(&pair.stranger, &["--interface", from, &format!("http://{address}/healthz")]);
        assert_eq!(spoofed, "000", "{from}");
    }
    assert_eq!(pair.app.came().len(), came);
    let denial = pair.called.audit.wait_for_denial(|record| code(record) == "plaintext_and_no_probe");
    assert_eq!(denial["http_request"]["http_method"], "GET", "{denial}");
}

#[test]
fn calls_to_where_no_service_is_are_reset_and_recorded() {
    let pair = Pair::start();
    let other = pair.stranger.enter(App::start);

    for address in pair.stranger.at(HTTP) {
        let answer = pair.near.enter(|| asked(address, REQUEST));
        assert!(answer.is_empty(), "{address}: {}", String::from_utf8_lossy(&answer));
    }

    assert!(other.came().is_empty());
    let denial = pair.calling.audit.wait_for_denial(|record| code(record) == "unknown_destination");
    assert_eq!(denial["dst_endpoint"]["ip"], pair.stranger.v4().to_string(), "{denial}");
    assert_eq!(denial["dst_endpoint"]["port"], HTTP, "{denial}");
}

#[test]
fn passthrough_carries_what_is_unknown_but_never_to_where_credentials_are_given_out() {
    let shape = Shape {
        outbound: "outbound: {}, outbound_unknown: danger_passthrough".to_owned(),
        ..Shape::default()
    };
    let pair = Pair::shaped(shape);
    let other = pair.stranger.enter(App::start);
    pair.stranger.ip(&["address", "add", "169.254.169.254/32", "dev", "eth0"]);
    pair.near.ip(&["route", "add", "169.254.169.254/32", "dev", "eth0"]);

    for address in pair.stranger.at(HTTP) {
        let answer = pair.near.enter(|| asked(address, REQUEST));
        assert!(answer.ends_with(b"of the application"), "{address}");
    }
    let metadata = SocketAddr::from(([169, 254, 169, 254], HTTP));
    let answer = pair.near.enter(|| asked(metadata, REQUEST));

    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(other.came().len(), 2);
    pair.calling.audit.wait_for_denial(|record| code(record) == "link_local_destination");
}

#[test]
fn what_the_workload_sends_by_udp_is_refused_but_names_are_resolved() {
    let pair = Pair::start();
    let [quic, dns] = [443, 53].map(|port| pair.stranger.enter(|| UdpSocket::bind(("::", port)).unwrap()));
    for socket in [&quic, &dns] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }

    for port in [443, 53] {
        for address in pair.stranger.at(port) {
            pair.near.enter(|| send_datagram(address));
        }
    }

    let servers = App::default();
    servers.serve(pair.stranger.enter(|| TcpListener::bind(("::", 53)).unwrap()), app::http);
    for address in pair.stranger.at(53) {
        let answer = pair.near.enter(|| asked(address, REQUEST));
        assert!(answer.ends_with(b"of the application"), "{address}: a question by TCP got lost");
    }

    let mut buffer = [0; 64];
    assert!((0..2).all(|_| dns.recv_from(&mut buffer).is_ok()), "a question to a name server got lost");
    assert!(quic.recv_from(&mut buffer).is_err(), "UDP other than DNS leaves the host");
}

#[test]
fn the_rules_are_replaced_without_a_moment_between() {
    let pair = Pair::start();
    let address = pair.far.at(HTTP)[0];
    let (going, dialled) = (AtomicBool::new(true), AtomicU64::new(0));

    let calls: Vec<Ended> = std::thread::scope(|scope| {
        scope.spawn(|| {
            pair.stranger.enter(|| {
                while going.load(Ordering::Relaxed) {
                    let _refused = asked(address, REQUEST);
                    dialled.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let call = || {
            pair.intercept(&pair.far, "install", "api");
            curl(&pair.near, &[&format!("http://{address}/x")])
        };
        let calls = (0..30).map(|_| call()).collect();
        going.store(false, Ordering::Relaxed);
        calls
    });

    for told in calls {
        assert_eq!((told.code, told.stdout.as_str()), (0, "of the application"), "{}", told.stderr);
    }
    let came = pair.app.came();
    assert!(dialled.load(Ordering::Relaxed) > 20, "nobody tried");
    assert!(!came.contains(&pair.stranger.v4()), "the stranger got in between two sets of rules");
}

#[test]
fn check_tells_what_is_in_force_from_what_should_be_and_remove_leaves_nothing() {
    let pair = Pair::start();
    let program = binary().display().to_string();
    let tables = || pair.far.run("nft", &["list", "tables"]).stdout;

    pair.intercept(&pair.far, "check", "api").expect(0);
    pair.far
        .run("nft", &["insert", "rule", "inet", "vouchsafe", "wall_in", "tcp", "dport", "8080", "accept"])
        .expect(0);
    let tampered = pair.intercept(&pair.far, "check", "api").expect(3);
    pair.intercept(&pair.far, "install", "api").expect(0);
    pair.intercept(&pair.far, "check", "api").expect(0);
    let other = pair.far.run(&program, &["proxy", "intercept", "check", "--inbound", "8080"]).expect(3);
    let shown =
        pair.far.run(&program, &["proxy", "intercept", "show", "--inbound", "8080", "-o", "json"]).expect(0);
    pair.intercept(&pair.far, "check", "api").expect(0);
    assert_eq!(tables().trim(), "table inet vouchsafe", "check and show leave nothing behind");
    for _ in 0..2 {
        pair.far.run(&program, &["proxy", "intercept", "remove"]).expect(0);
    }
    let gone =
        pair.far.run(&program, &["proxy", "intercept", "check", "--inbound", "8080", "-o", "json"]).expect(3);

    assert!(tampered.stdout.contains("not those of the configuration"), "{}", tampered.stdout);
    assert!(other.stdout.contains("table"), "{}", other.stdout);
    assert!(shown.json()["rules"].as_str().unwrap().contains("tcp dport { 8080 } redirect to :15006"));
    assert_eq!(gone.json()["items"][0]["found"], "there is none");
    assert_eq!(tables().trim(), "");
    let answer = pair.stranger.enter(|| asked(pair.far.at(HTTP)[0], REQUEST));
    assert!(answer.ends_with(b"of the application"), "without rules the application is open");
}

#[test]
fn a_process_without_the_right_changes_nothing_and_is_told_the_cure() {
    let lan = Lan::new();
    let host = lan.host(3);
    let program = binary().display().to_string();

    let words = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &program,
        "proxy",
        "intercept",
        "install",
        "--inbound",
        "all",
    ];
    let told = host.run("setpriv", &words).expect(4);

    assert!(told.stderr.contains("CAP_NET_ADMIN"), "{}", told.stderr);
    assert_eq!(host.run("nft", &["list", "tables"]).stdout, "");
}

#[test]
fn everything_is_captured_only_in_a_namespace_of_its_own() {
    let program = binary().display().to_string();
    // `show` decides as `install` does, and touches nothing: this is the machine's own namespace.
    let show =
        |words: &[&str]| crate::support::command::run(&[&["proxy", "intercept", "show"], words].concat());
    let lan = Lan::new();
    let host = lan.host(3);

    for words in [["--inbound", "all"], ["--outbound", "all"]] {
        let told = show(&words).expect(2);
        assert!(told.stderr.contains("the host's own"), "{}", told.stderr);
        show(&[&words[..], &["--danger-capture-shared"]].concat()).expect(0);
        host.run(&program, &[&["proxy", "intercept", "show"], &words[..]].concat()).expect(0);
    }
    show(&["--inbound", "22"]).expect(2);
    show(&["--outbound", "uid:0"]).expect(2);
    show(&["--inbound", "8080", "--outbound", "uid:1000"]).expect(0);
}

#[test]
fn by_user_and_by_cgroup_only_those_are_captured_who_are_named() {
    let shape = Shape { outbound: "outbound: {capture: {uids: [65534]}}".to_owned(), ..Shape::default() };
    let pair = Pair::shaped(shape);
    let other = pair.stranger.enter(App::start);
    let address = pair.stranger.at(HTTP)[0];
    let url = format!("http://{address}/x");
    let named = || {
        let words =
            ["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS", "--max-time", "5", &url];
        pair.near.run("setpriv", &words)
    };

    assert_ne!(named().code, 0, "the calls of the user are captured, and no service is there");
    assert_eq!(curl(&pair.near, &[&url]).stdout, "of the application", "those of others are not");
    let group = Cgroup::new();
    let program = binary().display().to_string();
    let rules = ["proxy", "intercept", "install", "--outbound", &format!("cgroup:{}", group.name)];
    pair.near.run(&program, &rules).expect(0);
    assert_eq!(named().code, 0, "the user is named no longer");
    let script = format!("echo $$ > {}/cgroup.procs; exec curl -sS --max-time 5 {url}", group.path);
    let inside = pair.near.run("sh", &["-c", &script]);

    assert_ne!(inside.code, 0, "{}", inside.stdout);
    assert_eq!(other.came().len(), 2);
    throughout(Duration::from_millis(200), "only the named are captured", || other.came().len() == 2);
}

/// A cgroup that goes with the test.
struct Cgroup {
    name: String,
    path: String,
}

impl Cgroup {
    fn new() -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| std::path::Path::new(root).join("cgroup.controllers").exists())
            .expect("a cgroup2 tree");
        let name = format!("vouchsafe-test-{}", crate::support::port::free());
        let path = format!("{root}/{name}");
        std::fs::create_dir(&path).unwrap();
        Self { name, path }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _busy = std::fs::remove_dir(&self.path);
    }
}

/// The bytes of an alert (RFC 8446 6).
const TLS_ALERT: usize = 7;

fn curl(host: &Host, words: &[&str]) -> Ended {
    host.run("curl", &[&["-sS", "--max-time", "20", "--noproxy", "*"], words].concat())
}

fn link_local(host: &Host) -> String {
    let shown = host.run("ip", &["-6", "address", "show", "dev", "eth0", "scope", "link"]).expect(0).stdout;
    let address =
        shown.split_whitespace().find(|word| word.starts_with("fe80")).expect("a link-local address");
    address.split('/').next().unwrap().to_owned()
}

fn descriptors(pair: &Pair) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pair.called.process.pid())).unwrap().count()
}

fn send_datagram(to: SocketAddr) {
    let from: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((from, 0)).unwrap();
    let _refused = socket.send_to(b"datagram", to);
}

/// A socket that sees every packet of a protocol that the filters let in.
fn raw(host: &Host, family: AddressFamily, protocol: Protocol) -> OwnedFd {
    host.enter(|| rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap())
}

fn send_raw(host: &Host, protocol: Protocol, to: IpAddr) {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    host.enter(|| {
        let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap();
        rustix::net::sendto(&socket, &[0; 64], SendFlags::empty(), &SocketAddr::from((to, 0))).unwrap();
    });
}

fn pings(host: &Host, to: IpAddr) -> bool {
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    host.enter(|| {
        let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap();
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(Duration::from_secs(3))).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((to, 0))).unwrap();
        // Type, code, checksum (the kernel fills in that of ICMPv6), identifier, number.
        let checksum = !(u16::from(request) << 8);
        let mut packet = [request, 0, 0, 0, 0, 0, 0, 0];
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        rustix::net::send(&socket, &packet, SendFlags::empty()).unwrap();
        rustix::net::recv(&socket, &mut [0; 256], RecvFlags::empty()).is_ok()
    })
}

/// What a client with several paths gets for a request in plaintext.
fn multipath(to: SocketAddr) -> Vec<u8> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, Some(ipproto::MPTCP)).unwrap();
    let mut answer = Vec::new();
    if rustix::net::connect(&socket, &to).is_ok() {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let _broken = stream.write_all(REQUEST).and_then(|()| stream.read_to_end(&mut answer));
    }
    answer
}
