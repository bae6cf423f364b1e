//! Free ports. They lie below the range that the kernel takes client ports from, so a daemon
//! that is killed finds its port again when it comes back.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of the loopback address that nobody listens on and no other test of this program gets.
pub(crate) fn free() -> u16 {
    for _ in 0..SPAN {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(STRIDE).wrapping_add(step) % SPAN) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", u32::from(FIRST) + SPAN);
}

const FIRST: u16 = 11_000;
const SPAN: u32 = 20_000;
/// Keeps two test programs that run side by side apart.
const STRIDE: u32 = 397;
static NEXT: AtomicU32 = AtomicU32::new(0);
