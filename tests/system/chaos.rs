//! Chaos: daemons are killed at random under traffic; nothing is ever let through that policy forbids, and
//! everything heals.

use std::time::{Duration, Instant};

use crate::support::cluster::{API, Pair, WEB, id};
use crate::support::http;
use crate::support::sidecar::allow_path;
use crate::support::wait::within;

/// How long the short form goes on; `tests/run.sh --long` sets more.
const SECONDS: u64 = 15;

#[test]
fn killing_daemons_at_random_never_opens_a_door_and_always_heals() {
    let mut pair = Pair::start("svid_ttl: 30s\n", "30s");
    pair.api.policy("http.yaml", &allow_path("http", &id(API), &id(WEB), pair.http.inbound.port()));
    within(HEALED, "the narrow policy is in force", || {
        (status(&pair, "/forbidden") == Some(403)).then_some(())
    });
    pair.http.backend.forget();
    let span = std::env::var("VOUCHSAFE_CHAOS_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(span);
    let mut random = Random(u64::from(std::process::id()) | 1);
    println!("seed {}", random.0);

    while Instant::now() < end {
        disturb(&mut pair, random.next() % 4);
        for _ in 0..10 {
            assert_ne!(status(&pair, "/forbidden"), Some(200), "a forbidden call passed");
            std::thread::sleep(Duration::from_millis(20));
        }
        within(HEALED, "an allowed call passes again", || {
            (status(&pair, "/allowed/x") == Some(200)).then_some(())
        });
    }

    assert!(
        !pair.http.backend.seen_text().contains("/forbidden"),
        "a forbidden request reached the application"
    );
}

fn disturb(pair: &mut Pair, which: u64) {
    match which {
        0 => {
            pair.ca.process.kill();
            pair.ca.restart();
        }
        1 => {
            pair.agent.process.kill();
            pair.agent.restart();
        }
        2 => {
            pair.web.process.kill();
            pair.web.restart();
        }
        _ => {
            pair.api.process.kill();
            pair.api.restart();
        }
    }
}

fn status(pair: &Pair, path: &str) -> Option<u16> {
    http::get(pair.http.outbound, path).ok().map(|answer| answer.status)
}

/// A xorshift generator: the seed is printed, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const HEALED: Duration = Duration::from_secs(30);
