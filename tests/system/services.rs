//! Where a call goes: three applications behind three sidecars, of which one dies, one hangs and one cannot serve.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::audit::{code, reason};
use crate::support::http;
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::wait::eventually;

/// An application that answers 200, or 503 while it is told to.
#[derive(Clone)]
struct Application {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    overloaded: Arc<AtomicBool>,
}

impl Application {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, served: Arc::default(), overloaded: Arc::default() };
        let serving = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let application = serving.clone();
                std::thread::spawn(move || application.serve(stream));
            }
        });
        this
    }

    fn serve(&self, mut stream: TcpStream) {
        while http::read_head(&mut stream).is_ok() {
            self.served.fetch_add(1, Ordering::SeqCst);
            let status =
                if self.overloaded.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
            if write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// A service of three endpoints, and a caller.
struct Shop {
    endpoints: Vec<(Application, Sidecar)>,
    caller: Sidecar,
    at: SocketAddr,
    _root: TempDir,
}

impl Shop {
    fn start(settings: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        for (name, path) in [("server", SERVER), ("caller", CALLER)] {
            authority.svid(path).write(&root.path().join(name), &authority);
        }
        let mut endpoints = Vec::new();
        let mut addresses = Vec::new();
        for number in 0..3 {
            let (name, application) = (format!("shop-{number}"), Application::start());
            let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
            let policy =
                allow_all("shop", &authority.id(SERVER), &authority.id(CALLER), "http", inbound.port());
            write_policy(&root.path().join(&name), "shop.yaml", &policy);
            let setup = Setup::new(&name).pem(&root.path().join("server"));
            let setup = setup.inbound("http", inbound, application.address);
            endpoints.push((application, setup.start(root.path())));
            addresses.push(format!("{{address: \"{inbound}\"}}"));
        }
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let sections = format!(
            "services:\n  - name: shop\n    ports: [80]\n    protocol: http\n    expect: [{}]\n    endpoints: [{}]\n    \
             balance: {{method: least_request}}\n    timeouts: {{connect: 1s, request: 3s}}\n{settings}\
             outbound:\n  - {{name: out, listen: \"{at}\", service: shop}}",
            authority.id(SERVER),
            addresses.join(", "),
        );
        let caller =
            Setup::new("caller").pem(&root.path().join("caller")).section(&sections).start(root.path());
        Self { endpoints, caller, at, _root: root }
    }

    /// The status of a call; 0 where there is no answer.
    fn call(&self) -> u16 {
        http::get(self.at, "/").map_or(0, |answer| answer.status)
    }

    /// Calls for as long, and returns the share of calls that were answered with 200.
    fn success_rate(&self, span: Duration) -> f64 {
        let end = Instant::now() + span;
        let (mut good, mut all) = (0u32, 0u32);
        while Instant::now() < end {
            good += u32::from(self.call() == 200);
            all += 1;
        }
        f64::from(good) / f64::from(all)
    }

    fn count(&self, event: &str, cause: &str) -> f64 {
        let labels = ["service=\"shop\"", &format!("event=\"{event}\""), &format!("cause=\"{cause}\"")];
        self.caller.metric("vouchsafe_proxy_service_events_total", &labels)
    }

    fn out(&self) -> f64 {
        self.caller.metric("vouchsafe_proxy_service_endpoints", &["state=\"ejected\""])
    }
}

const QUICK: &str = "    ejection: {failures: 3, base: 1s, longest: 2s, share: 67}\n";

#[test]
fn a_dead_endpoint_costs_no_call_and_is_called_again_when_it_lives() {
    let mut shop = Shop::start(QUICK);
    eventually("all have work", || {
        assert_eq!(shop.call(), 200);
        shop.endpoints.iter().all(|(application, _)| application.served() > 3).then_some(())
    });

    shop.endpoints[0].1.process.kill();

    assert_eq!(shop.success_rate(Duration::from_secs(2)), 1.0);
    assert!(shop.count("ejection", "failures") >= 1.0);
    assert!(shop.count("retry", "") >= 3.0);
    shop.endpoints[0].1.restart();
    let before = shop.endpoints[0].0.served();
    eventually("the endpoint is called again", || {
        assert_eq!(shop.call(), 200);
        (shop.endpoints[0].0.served() > before + 3).then_some(())
    });
    assert!(shop.caller.process.log().contains("endpoint ejected"));
}

#[test]
fn an_endpoint_that_hangs_is_left_out_after_three_calls() {
    let shop = Shop::start(QUICK);
    assert_eq!(shop.success_rate(Duration::from_millis(500)), 1.0);

    shop.endpoints[1].1.process.signal(Signal::STOP);
    let failed = (0..400).filter(|_| shop.call() != 200).count();

    // Those that were sent already wait for the time that the service has; what was not sent goes elsewhere.
    assert!(failed <= 6, "{failed} calls failed");
    assert!(shop.count("ejection", "failures") >= 1.0);
    shop.endpoints[1].1.process.signal(Signal::CONT);
    let before = shop.endpoints[1].0.served();
    eventually("the endpoint is called again", || {
        shop.call();
        (shop.endpoints[1].0.served() > before + 3).then_some(())
    });
}

#[test]
fn an_endpoint_that_cannot_serve_is_left_out_and_its_answers_are_passed_on() {
    let shop = Shop::start(QUICK);

    shop.endpoints[2].0.overloaded.store(true, Ordering::SeqCst);
    let answers: Vec<u16> = (0..300).map(|_| shop.call()).collect();

    let unavailable = answers.iter().filter(|status| **status == 503).count();
    assert!((3..=8).contains(&unavailable), "{unavailable} of 300");
    assert!(answers.iter().all(|status| matches!(status, 200 | 503)), "{answers:?}");
    assert!(shop.count("ejection", "failures") >= 1.0);
    assert!(shop.out() <= 2.0);
}

#[test]
fn with_one_dead_one_hanging_and_one_overloaded_calls_go_where_they_are_answered() {
    let mut shop = Shop::start("    ejection: {failures: 3, base: 1s, longest: 2s, share: 100}\n");
    shop.endpoints[0].1.process.kill();
    shop.endpoints[1].1.process.signal(Signal::STOP);

    // Two of three are out: the last one carries everything.
    for _ in 0..30 {
        shop.call();
    }
    let rate = shop.success_rate(Duration::from_secs(4));
    assert!(rate > 0.97, "{rate}");
    // The last one cannot serve either, and is never ejected: its answer is at least one.
    shop.endpoints[2].0.overloaded.store(true, Ordering::SeqCst);
    eventually("the last one answers for all", || (shop.call() == 503).then_some(()));
    shop.endpoints[2].0.overloaded.store(false, Ordering::SeqCst);

    eventually("calls are answered again", || (shop.call() == 200).then_some(()));
    shop.endpoints[1].1.process.signal(Signal::CONT);
}

#[test]
fn an_endpoint_of_another_identity_is_left_out_at_once_and_on_record() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    let stranger = "/stranger";
    for (name, path) in [("server", SERVER), ("caller", CALLER), ("stranger", stranger)] {
        authority.svid(path).write(&root.path().join(name), &authority);
    }
    let mut sidecars = Vec::new();
    let mut addresses = Vec::new();
    for (name, path) in [("server", SERVER), ("stranger", stranger)] {
        let application = Application::start();
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let policy = allow_all("all", &authority.id(path), &authority.id(CALLER), "http", inbound.port());
        let directory = format!("{name}-sidecar");
        write_policy(&root.path().join(&directory), "all.yaml", &policy);
        let setup = Setup::new(&directory).pem(&root.path().join(name));
        let setup = setup.inbound("http", inbound, application.address);
        sidecars.push((application, setup.start(root.path())));
        addresses.push(format!("{{address: \"{inbound}\"}}"));
    }
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
    let sections = format!(
        "services:\n  - {{name: shop, ports: [80], protocol: http, expect: [{}], endpoints: [{}]}}\noutbound:\n  - \
         {{name: out, listen: \"{at}\", service: shop}}",
        authority.id(SERVER),
        addresses.join(", "),
    );
    let caller = Setup::new("caller").pem(&root.path().join("caller")).section(&sections).start(root.path());

    let answers: Vec<u16> = (0..20).map(|_| http::get(at, "/").map_or(0, |answer| answer.status)).collect();

    // The one call that met it is refused, not tried again; no other one meets it.
    assert_eq!(answers.iter().filter(|status| **status == 502).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 19, "{answers:?}");
    let record = caller.audit.wait_for_denied(1);
    assert_eq!((reason(&record), code(&record)), ("handshake_failed", "unexpected_server"), "{record}");
    assert_eq!(sidecars[1].0.served(), 0, "no byte reached the stranger");
}

#[test]
fn a_directory_of_services_is_one_transaction_and_changes_without_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("server"), &authority);
    authority.svid(CALLER).write(&root.path().join("caller"), &authority);
    let (mut applications, mut sidecars, mut inbounds) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..2 {
        let (name, application) = (format!("shop-{number}"), Application::start());
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let policy = allow_all("shop", &authority.id(SERVER), &authority.id(CALLER), "http", inbound.port());
        write_policy(&root.path().join(&name), "shop.yaml", &policy);
        let setup = Setup::new(&name).pem(&root.path().join("server"));
        let setup = setup.inbound("http", inbound, application.address);
        sidecars.push(setup.start(root.path()));
        applications.push(application);
        inbounds.push(inbound);
    }
    let services = root.path().join("services");
    std::fs::create_dir(&services).unwrap();
    let write = |text: &str| {
        let fresh = root.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, services.join("shop.yaml")).unwrap();
    };
    let text = |inbound: SocketAddr| {
        format!(
            "vouchsafe: services/v1\nservices:\n  - {{name: shop, ports: [80], protocol: http, expect: [{}], endpoints: \
             [{{address: \"{inbound}\"}}]}}\n",
            authority.id(SERVER)
        )
    };
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
    let sections = format!(
        "services_dir: {}\noutbound:\n  - {{name: out, listen: \"{at}\", service: shop}}",
        services.display()
    );
    let caller = Setup::new("caller").pem(&root.path().join("caller")).section(&sections).start(root.path());
    let status = || http::get(at, "/").map_or(0, |answer| answer.status);
    assert_eq!(status(), 0, "nobody has named the service");

    write(&text(inbounds[0]));
    eventually("the service is called", || (status() == 200).then_some(()));
    let mut kept = http::connect(at).unwrap();
    let mut on_kept = |path: &str| {
        write!(kept, "GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        http::read_answer(&mut kept).unwrap().status
    };
    assert_eq!(on_kept("/"), 200);
    write("vouchsafe: services/v1\nservices:\n  - {name: shop}\n");
    eventually("the flaw is told", || {
        caller.readiness().1["warnings"].to_string().contains("\"services\"").then_some(())
    });
    assert_eq!((status(), caller.readiness().0), (200, 200), "the last good services stay");
    let before = applications[1].served();
    write(&text(inbounds[1]));
    eventually("the other endpoint is called", || {
        assert_eq!(status(), 200);
        (applications[1].served() > before).then_some(())
    });
    // The application's own connection was not touched by any of it.
    let first = applications[0].served();
    assert_eq!(on_kept("/again"), 200);
    assert_eq!(applications[0].served(), first, "the endpoint that is gone gets nothing more");
}
