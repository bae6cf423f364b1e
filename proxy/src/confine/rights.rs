//! Capabilities: none is kept that the configuration does not need.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use crate::{config::Config, intercept::Mode, transparent::Way};

/// What a configuration needs for as long as the sidecar runs.
pub(super) fn needed(config: &Config) -> Vec<Capability> {
    let spoofs = config.transparent.as_ref().is_some_and(|transparent| transparent.mode == Mode::Tproxy);
    let captures = spoofs || Way::of(config).marked().is_some();
    let low = ports(config).into_iter().any(|port| LOW.contains(&port));
    let wanted = [(captures, Capability::CAP_NET_ADMIN), (low, Capability::CAP_NET_BIND_SERVICE)];
    wanted.into_iter().filter_map(|(needed, capability)| needed.then_some(capability)).collect()
}

/// Drops all others for good, from every set of this thread.
pub(super) fn keep(needed: &[Capability]) -> Result<String, String> {
    drop_others(needed).map_err(|error| error.to_string())
}

fn drop_others(needed: &[Capability]) -> Result<String, CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = needed.iter().copied().filter(|capability| held.contains(capability)).collect();
    // What the bounding set is for, a program that is run, does not come: with no right to narrow it, it stays.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    let names: BTreeSet<String> = kept.iter().map(ToString::to_string).collect();
    Ok(if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(" ") })
}

fn ports(config: &Config) -> Vec<u16> {
    let inbound = config.inbound.iter().map(|one| one.listen.port());
    let outbound = config.outbound.iter().map(|one| one.listen.port());
    let transparent = config.transparent.iter().flat_map(|transparent| {
        let called = transparent.inbound.iter().map(|called| called.listen.port());
        called.chain(
            transparent.outbound.iter().flat_map(|calling| calling.listen.iter().map(|one| one.port())),
        )
    });
    let tunnel = config.tunnel.iter().map(|tunnel| tunnel.listen.port());
    let admin = config.admin.listen.iter().map(|address| address.port());
    inbound.chain(outbound).chain(transparent).chain(tunnel).chain(admin).collect()
}

/// Ports that take a right to listen on; 0 is any port.
const LOW: std::ops::Range<u16> = 1..1024;
