use std::time::Duration;

use super::*;
use crate::testing::id;

fn entry(peer: &str, port: u16) -> Entry {
    let key = Key::new(Role::InboundTcp, Some(id(peer)), Some([127, 0, 0, 1].into()), port);
    Entry { key, proof: None, opened: SystemTime::now(), waiting: Waiting::Relay }
}

struct Always;

impl Verdict for Always {
    fn of(&self, live: &Arc<Live>, ends: &mut Vec<Sentence>) {
        ends.push(Sentence { live: Arc::clone(live), request: None, cut: Cut::Trust });
    }
}

#[test]
fn a_change_is_decided_once_for_each_peer_and_port_and_cuts_only_those_it_concerns() {
    let registry = Registry::default();
    let shop: Vec<_> = (0..100).map(|_| registry.register(entry("spiffe://a/shop", 1))).collect();
    let bank: Vec<_> = (0..100).map(|_| registry.register(entry("spiffe://a/bank", 1))).collect();
    let asked = std::cell::Cell::new(0);

    let judged = registry.judge(|key| {
        asked.set(asked.get() + 1);
        (key.peer == Some(id("spiffe://a/shop"))).then_some(Always)
    });

    assert_eq!((asked.get(), judged.len()), (2, 100));
    assert!(judged.into_iter().all(Sentence::carry_out));
    assert!(shop.iter().all(|registered| registered.live().is_cut()));
    assert!(!bank.iter().any(|registered| registered.live().is_cut()));
}

#[test]
fn what_has_ended_is_forgotten() {
    let registry = Registry::default();
    let registered = registry.register(entry("spiffe://a/shop", 1));
    assert_eq!(registry.len(), 1);

    drop(registered);

    assert_eq!(registry.len(), 0);
    assert!(registry.judge(|_| Some(Always)).is_empty());
}

#[test]
fn the_first_reason_for_an_end_stays() {
    let registered = Registry::default().register(entry("spiffe://a/shop", 1));

    registered.live().cut(Cut::Drained);
    registered.live().cut(Cut::Trust);

    assert!(matches!(registered.live().cut_reason(), Some(Cut::Drained)));
}

#[tokio::test]
async fn a_cut_wakes_whoever_serves_the_connection_before_and_after() {
    let registered = Registry::default().register(entry("spiffe://a/shop", 1));
    let live = Arc::clone(registered.live());
    let waiting = tokio::spawn(async move {
        live.wait_cut().await;
    });
    tokio::task::yield_now().await;

    registered.live().cut(Cut::Identity);

    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("woken").unwrap();
    registered.live().wait_cut().await;
}

#[test]
fn a_live_connection_is_small() {
    assert!(size_of::<Live>() <= 320, "{}", size_of::<Live>());
}

#[tokio::test]
async fn a_request_among_others_ends_without_its_connection_and_the_only_one_with_it() {
    for (multiplexed, ends) in [(true, (true, false)), (false, (false, true))] {
        let registered = Registry::default().register(entry("spiffe://a/shop", 1));
        let live = registered.live();
        if multiplexed {
            live.multiplex();
        }
        let (doomed, other) = (live.enter(request("/doomed")), live.enter(request("/other")));
        let found = live.requests().into_iter().find(|request| request.line().path() == "/doomed");

        let sentence = Sentence { live: Arc::clone(live), request: found, cut: Cut::Trust };
        assert!(sentence.carry_out());

        let is_cut = |entered: &Entered| {
            entered.poll_cut(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert_eq!((is_cut(&doomed), live.is_cut()), ends);
        assert!(!is_cut(&other));
        drop((doomed, other));
        assert!(live.requests().is_empty());
    }
}

fn request(path: &str) -> Arc<crate::http1::RequestLine> {
    let request = http::Request::get(path).header("host", "a.test").body(()).unwrap();
    Arc::new(crate::http1::RequestLine::read(&mut request.into_parts().0).unwrap())
}
