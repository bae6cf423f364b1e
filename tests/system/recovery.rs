//! What comes back after chaos: endpoints that die, hang and lose packets under steady load, crowds of hostile callers, and a
//! clock that steps. Traffic goes on, and afterwards nothing is left of it: no descriptor, no memory, no connection.

mod clock;
mod crowd;
mod links;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::links::{Hub, Spoke};
use crate::support::backend::Backend;
use crate::support::http;
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::wait::within;

/// How long the short form goes on; `tests/run.sh --long` sets more.
const SECONDS: u64 = 10;
/// The share of calls that have to be answered.
const ANSWERED: f64 = 0.97;
/// How long what is over may take to be gone.
const GONE: Duration = Duration::from_secs(60);

#[test]
fn with_one_endpoint_dying_one_hanging_and_one_losing_packets_calls_are_answered_and_nothing_leaks() {
    let mut shop = Shop::start();
    shop.load(Duration::from_secs(2));
    let before = shop.rest();
    let span = std::env::var("VOUCHSAFE_CHAOS_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());

    let spoilt = shop.endpoints[2].spoke.spoil();
    let load = Load::start(&shop.hub, shop.at);
    let end = Instant::now() + Duration::from_secs(span);
    while Instant::now() < end {
        shop.endpoints[0].sidecar.process.kill();
        std::thread::sleep(MOMENT);
        shop.restart(0);
        shop.endpoints[1].sidecar.process.signal(Signal::STOP);
        std::thread::sleep(PAUSE);
        shop.endpoints[1].sidecar.process.signal(Signal::CONT);
        std::thread::sleep(MOMENT);
    }
    let (good, all) = load.stop();
    shop.endpoints[2].spoke.mend();

    let rate = good as f64 / all as f64;
    let [ejections, retries] =
        [("ejection", "failures"), ("retry", "")].map(|(event, cause)| shop.events(event, cause));
    let after = shop.rest();
    println!(
        "{good} of {all} calls answered in {span} s ({:.3} %), {ejections} ejections, {retries} retries, {spoilt}; {before:?}, then {after:?}",
        100.0 * rate
    );
    assert!(rate >= ANSWERED, "{good} of {all} calls were answered");
    assert!(ejections >= 1.0 && retries >= 1.0, "{ejections} ejections, {retries} retries");
    assert!(after.descriptors <= before.descriptors + 8, "{before:?}, then {after:?}");
    assert!(after.resident_kib <= before.resident_kib + GROWTH_KIB, "{before:?}, then {after:?}");
    assert_eq!(after.threads, before.threads);
    within(GONE, "all three endpoints are called again", || {
        let served = shop.served();
        shop.load(Duration::from_millis(500));
        shop.served().iter().zip(served).all(|(now, then)| *now > then).then_some(())
    });
}

/// A service of three endpoints on hosts of their own, and a caller.
struct Shop {
    caller: Sidecar,
    endpoints: Vec<Endpoint>,
    at: SocketAddr,
    hub: Hub,
    _root: tempfile::TempDir,
}

/// An application behind a sidecar.
struct Endpoint {
    sidecar: Sidecar,
    application: Backend,
    spoke: Spoke,
}

impl Shop {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        for (name, path) in [("server", SERVER), ("caller", CALLER)] {
            authority.svid(path).write(&root.path().join(name), &authority);
        }
        let hub = Hub::new();
        let (mut endpoints, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let name = format!("shop-{number}");
            let spoke = hub.spoke(number);
            let inbound = SocketAddr::from((spoke.address(), port::free()));
            let policy =
                allow_all("shop", &authority.id(SERVER), &authority.id(CALLER), "http", inbound.port());
            write_policy(&root.path().join(&name), "shop.yaml", &policy);
            let pem = root.path().join("server");
            let (application, sidecar) = spoke.enter(|| {
                let application = Backend::http();
                let setup = Setup::new(&name).pem(&pem).inbound("http", inbound, application.address());
                (application, setup.start(root.path()))
            });
            endpoints.push(Endpoint { sidecar, application, spoke });
            addresses.push(format!("{{address: \"{inbound}\"}}"));
        }
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let sections = format!(
            "services:\n  - name: shop\n    ports: [80]\n    protocol: http\n    expect: [{}]\n    endpoints: [{}]\n    \
             balance: {{method: least_request}}\n    timeouts: {{connect: 1s, request: 3s}}\n    \
             ejection: {{failures: 3, base: 1s, longest: 5s, share: 67}}\n\
             outbound:\n  - {{name: out, listen: \"{at}\", service: shop}}",
            authority.id(SERVER),
            addresses.join(", "),
        );
        let setup = Setup::new("caller").pem(&root.path().join("caller")).section(&sections);
        let caller = hub.enter(|| setup.start(root.path()));
        Self { caller, endpoints, at, hub, _root: root }
    }

    fn restart(&mut self, number: usize) {
        let endpoint = &mut self.endpoints[number];
        let Endpoint { sidecar, spoke, .. } = endpoint;
        spoke.enter(|| sidecar.restart());
    }

    fn load(&self, span: Duration) {
        let load = Load::start(&self.hub, self.at);
        std::thread::sleep(span);
        load.stop();
    }

    fn served(&self) -> Vec<usize> {
        let seen = self.endpoints.iter().map(|endpoint| {
            let served = endpoint.application.seen().len();
            endpoint.application.forget();
            served
        });
        seen.collect()
    }

    fn events(&self, event: &str, cause: &str) -> f64 {
        let labels = [format!("event=\"{event}\""), format!("cause=\"{cause}\"")];
        let labels = labels.each_ref().map(String::as_str);
        self.hub.enter(|| self.caller.metric("vouchsafe_proxy_service_events_total", &labels))
    }

    /// What the caller's sidecar holds once every connection is gone, those kept for later calls too.
    fn rest(&self) -> Held {
        within(GONE, "no connection is left", || {
            let live = self.hub.enter(|| self.caller.metric("vouchsafe_proxy_connections ", &[]));
            (live == 0.0).then_some(())
        });
        // What was held shortly before goes within a moment of its own.
        let mut held = Held::of(self.caller.process.pid());
        within(GONE, "descriptors stop to be closed", || {
            std::thread::sleep(MOMENT);
            let before = std::mem::replace(&mut held, Held::of(self.caller.process.pid()));
            (held.descriptors >= before.descriptors).then_some(())
        });
        held
    }
}

/// Callers that call and call.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(hub: &Hub, at: SocketAddr) -> Self {
        let (stop, good, all) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let threads = hub.enter(|| {
            let spawned = (0..CALLERS).map(|_| {
                let (stop, good, all) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&all));
                std::thread::spawn(move || call_until(at, &stop, &good, &all))
            });
            spawned.collect()
        });
        Self { stop, good, all, threads }
    }

    /// How many calls were answered, and how many there were.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.good.load(Ordering::SeqCst), self.all.load(Ordering::SeqCst))
    }
}

fn call_until(at: SocketAddr, stop: &AtomicBool, good: &AtomicUsize, all: &AtomicUsize) {
    while !stop.load(Ordering::SeqCst) {
        let status = http::get(at, "/").map_or(0, |answer| answer.status);
        good.fetch_add(usize::from(status == 200), Ordering::SeqCst);
        all.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(PACE);
    }
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
    peak_kib: u64,
}

impl Held {
    fn of(pid: u32) -> Self {
        let entries = |name: &str| std::fs::read_dir(format!("/proc/{pid}/{name}")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self {
            descriptors: entries("fd"),
            threads: entries("task"),
            resident_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
        }
    }
}

const CALLERS: usize = 8;
/// Between two calls of one caller.
const PACE: Duration = Duration::from_millis(5);
/// How long an endpoint hangs: longer than a call may take.
const PAUSE: Duration = Duration::from_secs(4);
/// Between two disturbances.
const MOMENT: Duration = Duration::from_secs(1);
/// What the allocator may keep of what was used, in KiB.
const GROWTH_KIB: u64 = 24 * 1024;
