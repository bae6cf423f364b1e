//! The listeners on the threads of the data path: each socket is accepted from on every thread, and what is made of its
//! connections can be changed without closing it.
//!
//! A connection that was accepted goes on with what it was accepted by. A change has effect on those that come after it.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Weak},
};

use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use super::{
    change::debug,
    sockets::{Bound, Kind, Place},
};
use crate::{
    config::{self, Config, Limits},
    control::Settings,
    handshakes::Handshakes,
    http1::Pool,
    inbound::{Door, Inbound},
    listener::{self, Accept, Places, Stop},
    outbound::{Exits, Outbound},
    shared::Shared,
    transparent::{TransparentInbound, TransparentOutbound},
    tunnel,
    workers::listener_on,
};

/// Everything that accepts, and every connection.
pub(super) struct Serving {
    threads: Vec<Thread>,
    units: Vec<Unit>,
    shared: Arc<Shared>,
    /// Counts the sets of limits that there were.
    epoch: u64,
    /// The places of all listeners together.
    all: Places,
    pub(super) tasks: JoinSet<()>,
    settings: watch::Sender<Settings>,
}

/// What one thread has for all its listeners.
struct Thread {
    runtime: Handle,
    doors: Vec<(config::Inbound, Arc<Door>)>,
    exits: Arc<Exits>,
}

/// One listener.
struct Unit {
    place: Place,
    made_of: String,
    places: Places,
    stop: Stop,
}

/// Listeners that are ready to accept, and do not so far.
pub(super) struct Prepared {
    shared: Arc<Shared>,
    keep: Vec<usize>,
    start: Vec<Start>,
}

/// One of them, with a copy of its socket for each thread.
struct Start {
    place: Place,
    port: u16,
    made_of: String,
    copies: Vec<tokio::net::TcpListener>,
}

impl Serving {
    pub(super) fn new(runtimes: Vec<Handle>, shared: Arc<Shared>, settings: watch::Sender<Settings>) -> Self {
        let thread =
            |runtime| Thread { runtime, doors: Vec::new(), exits: Arc::new(Exits::new(Arc::clone(&shared))) };
        Self {
            threads: runtimes.into_iter().map(thread).collect(),
            units: Vec::new(),
            epoch: 0,
            all: Places::new(&shared.limits),
            tasks: JoinSet::new(),
            settings,
            shared,
        }
    }

    /// Gets everything that a configuration needs, so that nothing can fail any more. Nothing changes by it.
    pub(super) fn prepare(&self, config: &Config, sockets: &[Bound]) -> io::Result<Prepared> {
        let shared = self.shared_with(&config.limits);
        let epoch = self.epoch + u64::from(!Arc::ptr_eq(&shared, &self.shared));
        let (mut keep, mut start) = (Vec::new(), Vec::new());
        for bound in sockets {
            let (Some(made_of), Some(socket)) = (made_of(&bound.place, config), bound.tcp()) else {
                continue;
            };
            let made_of = format!("{epoch} {made_of}");
            match self.units.iter().position(|unit| unit.place == bound.place && unit.made_of == made_of) {
                Some(unit) => keep.push(unit),
                None => {
                    let (place, port) = (bound.place.clone(), bound.port());
                    start.push(Start { place, port, made_of, copies: self.copies(socket)? });
                }
            }
        }
        Ok(Prepared { shared, keep, start })
    }

    fn copies(&self, socket: &TcpListener) -> io::Result<Vec<tokio::net::TcpListener>> {
        self.threads.iter().map(|thread| listener_on(&thread.runtime, socket)).collect()
    }

    /// Puts it in force: what is not part of it accepts no more.
    pub(super) fn commit(&mut self, config: &Config, prepared: Prepared, sockets: &[Bound]) {
        let Prepared { shared, keep, start } = prepared;
        if !Arc::ptr_eq(&shared, &self.shared) {
            self.renew(shared);
        }
        self.open_doors(config, sockets);
        let mut before: Vec<Option<Unit>> = self.units.drain(..).map(Some).collect();
        let mut units: Vec<Unit> =
            keep.into_iter().filter_map(|unit| before.get_mut(unit).and_then(Option::take)).collect();
        for start in start {
            let same = before.iter().flatten().find(|unit| unit.place == start.place);
            let places =
                same.map_or_else(|| self.all.for_listener(&self.shared.limits), |unit| unit.places.clone());
            let Start { place, port, made_of, copies } = start;
            let unit = Unit { place, made_of, places, stop: Stop::default() };
            for (number, copy) in copies.into_iter().enumerate() {
                self.accept(config, &unit, port, (number, copy));
            }
            units.push(unit);
        }
        for unit in before.into_iter().flatten() {
            // Those who wait at a socket that stays are served by what it is used for now.
            let stays = units.iter().any(|other| other.place.address == unit.place.address);
            if stays { unit.stop.hand_on() } else { unit.stop.close() }
        }
        self.units = units;
        self.tell();
    }

    /// Goes on with other limits; connections that are there keep those that they have.
    fn renew(&mut self, shared: Arc<Shared>) {
        for thread in &mut self.threads {
            thread.doors.clear();
            thread.exits = Arc::new(Exits::new(Arc::clone(&shared)));
        }
        self.all = Places::new(&shared.limits);
        for unit in &mut self.units {
            unit.places = self.all.for_listener(&shared.limits);
        }
        self.epoch += 1;
        self.shared = shared;
    }

    fn shared_with(&self, limits: &Limits) -> Arc<Shared> {
        let now = &self.shared;
        if now.limits == *limits {
            return Arc::clone(now);
        }
        let same = now.limits.handshakes == limits.handshakes && now.limits.connections == limits.connections;
        let handshakes = if same { Arc::clone(&now.handshakes) } else { Arc::new(Handshakes::new(limits)) };
        Arc::new(Shared { limits: limits.clone(), handshakes, ..now.as_ref().clone() })
    }

    /// Has a door for each called port on each thread. Those that stay as they are keep their connections.
    fn open_doors(&mut self, config: &Config, sockets: &[Bound]) {
        for thread in &mut self.threads {
            let mut before = std::mem::take(&mut thread.doors);
            for inbound in &config.inbound {
                let same = before.iter().position(|(other, _)| other == inbound);
                let door = match same.map(|same| before.swap_remove(same)) {
                    Some((_, door)) => door,
                    None => {
                        let port =
                            port(sockets, Kind::Inbound, &inbound.name).unwrap_or(inbound.listen.port());
                        Arc::new(Door::new(inbound, port, Arc::clone(&self.shared)))
                    }
                };
                thread.doors.push((inbound.clone(), door));
            }
        }
    }

    /// Has one thread accept from its copy of a socket.
    fn accept(&mut self, config: &Config, unit: &Unit, port: u16, on: (usize, tokio::net::TcpListener)) {
        let (number, listener) = on;
        let Some(thread) = self.threads.get(number) else { return };
        let (runtime, shared) = (thread.runtime.clone(), Arc::clone(&self.shared));
        match unit.place.kind {
            Kind::Inbound => {
                let door = thread.doors.iter().find(|(inbound, _)| inbound.name == unit.place.name);
                if let Some((_, door)) = door {
                    let inbound = Inbound::new(Arc::clone(door), shared);
                    self.spawn(&runtime, unit, listener, inbound);
                }
            }
            Kind::Outbound => {
                if let Some(found) = config.outbound.iter().find(|outbound| outbound.name == unit.place.name)
                {
                    let outbound = Outbound::new(found, port, &thread.exits, shared);
                    self.spawn(&runtime, unit, listener, outbound);
                }
            }
            Kind::Tunnel => {
                if let Some(found) = &config.tunnel {
                    let doors: Vec<Arc<Door>> =
                        thread.doors.iter().map(|(_, door)| Arc::clone(door)).collect();
                    let captured = TransparentInbound::new(config, Arc::clone(&shared));
                    let work = (unit.places.clone(), unit.stop.clone());
                    let tunnels = tunnel::Inbound::new((&doors, captured), found, work, shared);
                    self.spawn(&runtime, unit, listener, tunnels);
                }
            }
            Kind::Called | Kind::CalledTransparently => {
                if let Some(called) = TransparentInbound::new(config, shared) {
                    self.spawn(&runtime, unit, listener, called);
                }
            }
            Kind::Calling => {
                if let Some(calling) = TransparentOutbound::new(config, &thread.exits, shared) {
                    self.spawn(&runtime, unit, listener, calling);
                }
            }
            Kind::Admin | Kind::AdminSocket | Kind::Handover => {}
        }
    }

    fn spawn<A: Accept>(
        &mut self,
        runtime: &Handle,
        unit: &Unit,
        listener: tokio::net::TcpListener,
        accept: A,
    ) {
        let (places, metrics) = (unit.places.clone(), Arc::clone(&self.shared.metrics));
        let serving = listener::serve(listener, Arc::new(accept), places, metrics, unit.stop.clone());
        self.tasks.spawn_on(serving, runtime);
    }

    /// Tells who looks after connections that are idle.
    fn tell(&self) {
        let doors = self.threads.iter().flat_map(|thread| &thread.doors);
        let new: Vec<Weak<Pool>> = doors.map(|(_, door)| Arc::downgrade(door.pool())).collect();
        let limits = self.shared.limits.clone();
        self.settings.send_modify(|settings| {
            settings.pools.retain(|old| old.strong_count() > 0 && !new.iter().any(|pool| pool.ptr_eq(old)));
            settings.pools.extend(new);
            settings.limits = limits;
        });
    }

    /// Accepts no more. Who waits at a socket is served, unless another process has it.
    pub(super) fn close(&self, elsewhere: bool) {
        for unit in &self.units {
            if elsewhere { unit.stop.hand_on() } else { unit.stop.close() }
        }
    }

    /// Waits for the end of every connection.
    pub(super) async fn finished(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What makes a listener what it is, in a form that can be compared; nothing where it carries no connections of the workload.
fn made_of(place: &Place, config: &Config) -> Option<String> {
    match place.kind {
        Kind::Inbound => config.inbound.iter().find(|one| one.name == place.name).map(debug),
        Kind::Outbound => config.outbound.iter().find(|one| one.name == place.name).map(debug),
        // These lead to the doors of other listeners, and must not lead to a listener.
        Kind::Tunnel | Kind::Called | Kind::CalledTransparently | Kind::Calling => {
            let Config { inbound, outbound, tunnel, transparent, probes, admin, .. } = config;
            Some(debug(&(inbound, outbound, tunnel, transparent, probes, admin)))
        }
        Kind::Admin | Kind::AdminSocket | Kind::Handover => None,
    }
}

fn port(sockets: &[Bound], kind: Kind, name: &str) -> Option<u16> {
    let bound = sockets.iter().find(|bound| bound.place.kind == kind && bound.place.name == name);
    bound.map(Bound::port).filter(|port| *port != 0)
}
