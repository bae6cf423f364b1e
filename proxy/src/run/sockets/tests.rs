use std::os::fd::OwnedFd;

use policy::strict::Source;

use super::*;

fn config(inbound: &[(&str, SocketAddr)]) -> Config {
    let mut text = "vouchsafe: proxy/v1\npolicies: p\ninbound:\n".to_owned();
    for (name, listen) in inbound {
        text +=
            &format!("  - {{name: {name}, listen: \"{listen}\", protocol: tcp, application: 127.0.0.1:1}}\n");
    }
    Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn ports(sockets: &[Bound]) -> Vec<u16> {
    sockets.iter().map(Bound::port).collect()
}

#[tokio::test]
async fn a_socket_that_is_still_wanted_stays_open_whatever_its_listener_is_called() {
    let before = fit(&config(&[("a", any()), ("b", any())]), Vec::new()).await.unwrap();
    let (a, b) = (before[0].port(), before[1].port());

    let swapped = fit(&config(&[("b", any()), ("a", any())]), before).await.unwrap();
    let renamed = fit(&config(&[("c", any()), ("b", any())]), swapped).await.unwrap();

    assert_eq!(ports(&renamed), [a, b]);
}

#[tokio::test]
async fn where_one_cannot_be_opened_none_is() {
    let taken = TcpListener::bind(any()).unwrap();
    let free = TcpListener::bind(any()).unwrap().local_addr().unwrap();

    let refused = fit(&config(&[("a", free), ("b", taken.local_addr().unwrap())]), Vec::new()).await;

    assert!(matches!(refused, Err(RunError::Listen { name, .. }) if name == "b"));
    TcpListener::bind(free).expect("what was opened is closed again");
}

#[test]
fn a_socket_from_another_process_has_to_be_what_it_is_called() {
    let listening = TcpListener::bind(any()).unwrap();
    let bound = listening.local_addr().unwrap();
    let place = |kind, address: String| Place { kind, name: "a".to_owned(), address, mark: None };
    let copy = || OwnedFd::from(listening.try_clone().unwrap());

    let right = Bound::received(place(Kind::Inbound, bound.to_string()), copy());
    let any_port = Bound::received(place(Kind::Inbound, any().to_string()), copy());
    let elsewhere = Bound::received(place(Kind::Inbound, "127.0.0.2:1".to_owned()), copy());
    let other_family = Bound::received(place(Kind::Handover, "/a".to_owned()), copy());
    let connected = std::net::TcpStream::connect(bound).unwrap();
    let not_listening = Bound::received(place(Kind::Inbound, bound.to_string()), connected.into());
    let no_socket = std::fs::File::open("/dev/null").unwrap();
    let no_socket = Bound::received(place(Kind::Inbound, bound.to_string()), no_socket.into());

    assert!(right.is_ok() && any_port.is_ok(), "{right:?} {any_port:?}");
    for refused in [elsewhere, other_family, not_listening, no_socket] {
        assert!(refused.is_err(), "{refused:?}");
    }
}
