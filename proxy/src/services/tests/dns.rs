//! Names, asked of a real server over UDP: packets in, packets out.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::net::UdpSocket;

use super::super::names::{Answer, Names};
use super::*;
use crate::config::Dns;

/// What a name is answered with.
#[derive(Debug, Clone, Default)]
struct Zone {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    ttl: u32,
    code: Option<ResponseCode>,
}

/// A name server on a port of this host.
struct Server {
    address: SocketAddr,
    zones: Arc<Mutex<HashMap<String, Zone>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zones: Arc<Mutex<HashMap<String, Zone>>> = Arc::default();
        let asked: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&zones), Arc::clone(&asked)));
        Self { address, zones, asked, task }
    }

    fn set(&self, name: &str, zone: Zone) {
        self.zones.lock().unwrap().insert(format!("{name}."), zone);
    }

    /// When `A` records were asked for.
    fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    fn names(&self) -> Names {
        Names::new(Dns::Servers(vec![self.address]))
    }
}

async fn serve(
    socket: UdpSocket,
    zones: Arc<Mutex<HashMap<String, Zone>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
) {
    let mut buffer = [0; 2_048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let query = question.queries[0].clone();
        let name = query.name().to_string().to_lowercase();
        if query.query_type() == RecordType::A {
            asked.lock().unwrap().push((name.clone(), Instant::now()));
        }
        let zone = zones
            .lock()
            .unwrap()
            .get(&name)
            .cloned()
            .unwrap_or(Zone { code: Some(ResponseCode::NXDomain), ..Zone::default() });
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.response_code = zone.code.unwrap_or(ResponseCode::NoError);
        answer.metadata.recursion_available = true;
        let data: Vec<RData> = match query.query_type() {
            RecordType::A => zone.v4.iter().map(|ip| RData::A(A(*ip))).collect(),
            RecordType::AAAA => zone.v6.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect(),
            _ => Vec::new(),
        };
        for data in data {
            answer.add_answer(Record::from_rdata(query.name().clone(), zone.ttl, data));
        }
        answer.add_query(query);
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}

async fn ask(names: &mut Names, name: &str) -> Option<Vec<IpAddr>> {
    let name: Arc<str> = Arc::from(name);
    names.want(&[Arc::clone(&name)], Instant::now());
    names.ask(Instant::now() + Duration::from_secs(3_600));
    let (answered, answer) = names.answer().await;
    assert_eq!(answered, name);
    names.take(&name, answer, Instant::now())
}

fn zone(v4: &[&str], v6: &[&str], ttl: u32) -> Zone {
    Zone {
        v4: v4.iter().map(|text| text.parse().unwrap()).collect(),
        v6: v6.iter().map(|text| text.parse().unwrap()).collect(),
        ttl,
        code: None,
    }
}

#[tokio::test]
async fn both_families_are_asked_for_and_hold_as_long_as_they_say() {
    let server = Server::start().await;
    server.set("shop.test", zone(&["10.0.0.2", "10.0.0.1"], &["2001:db8::1"], 300));
    let mut names = server.names();

    assert_eq!(ask(&mut names, "shop.test").await, Some(addresses(&["10.0.0.1", "10.0.0.2", "2001:db8::1"])));

    let due = names.ask(Instant::now()).expect("when to ask again") - Instant::now();
    assert!(due > Duration::from_secs(295) && due <= Duration::from_secs(300), "{due:?}");
}

#[tokio::test]
async fn one_family_is_enough() {
    let server = Server::start().await;
    server.set("four.test", zone(&["10.0.0.1"], &[], 60));
    server.set("six.test", zone(&[], &["2001:db8::1"], 60));

    assert_eq!(ask(&mut server.names(), "four.test").await, Some(addresses(&["10.0.0.1"])));
    assert_eq!(ask(&mut server.names(), "six.test").await, Some(addresses(&["2001:db8::1"])));
}

#[tokio::test]
async fn names_that_do_not_exist_or_fail_have_no_new_addresses() {
    let server = Server::start().await;
    server.set("empty.test", zone(&[], &[], 60));
    server.set("broken.test", Zone { code: Some(ResponseCode::ServFail), ..Zone::default() });

    for name in ["none.test", "empty.test", "broken.test"] {
        assert_eq!(ask(&mut server.names(), name).await, None, "{name}");
    }
}

#[tokio::test]
async fn the_number_of_addresses_is_bounded() {
    let server = Server::start().await;
    let many: Vec<String> = (1..=70).map(|number| format!("10.0.0.{number}")).collect();
    server.set("many.test", zone(&many.iter().map(String::as_str).collect::<Vec<_>>(), &[], 60));

    let found = ask(&mut server.names(), "many.test").await.unwrap();

    assert_eq!(found.len(), super::super::names::MAX_ADDRESSES);
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_records_have_expired_and_not_before() {
    let server = Server::start().await;
    server.set("shop.test", zone(&["10.0.0.1"], &[], 2));
    let mut names = server.names();
    let name: Arc<str> = Arc::from("shop.test");
    names.want(&[Arc::clone(&name)], Instant::now());

    let mut found = Vec::new();
    while found.len() < 2 {
        if let Some(due) = names.ask(Instant::now()) {
            tokio::time::sleep_until(due.into()).await;
            continue;
        }
        let (_, answer) = names.answer().await;
        assert!(matches!(answer, Answer::Addresses(..)), "{answer:?}");
        found.push(names.take(&name, answer, Instant::now()).unwrap());
        server.set("shop.test", zone(&["10.0.0.2"], &[], 2));
    }

    assert_eq!(found, [addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"])]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1] - asked[0] >= Duration::from_millis(1_900), "{:?}", asked[1] - asked[0]);
}
