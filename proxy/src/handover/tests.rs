use std::{net::TcpListener, os::fd::AsFd};

use tokio::{io::AsyncWriteExt, net::UnixListener};

use super::{
    wire::{MAX_MESSAGE, Message, Wire},
    *,
};
use crate::run::{Bound, Kind, Opened, Place};

fn bound(name: &str) -> Bound {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let place = Place { kind: Kind::Inbound, name: name.to_owned(), address, mark: None };
    Bound { place, opened: Opened::Tcp(socket) }
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// A taker that asks on a socket, and the stream that the giver accepts.
async fn met() -> (Taking, UnixStream, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let taking = Taking::ask(&path).await.unwrap().expect("somebody listens");
    (taking, listener.accept().await.unwrap().0, directory)
}

#[tokio::test]
async fn more_sockets_than_one_message_holds_arrive_in_order_and_work() {
    let sockets: Vec<Bound> = (0..150).map(|number| bound(&format!("l{number}"))).collect();
    let addresses: Vec<String> = sockets.iter().map(|bound| bound.place.address.clone()).collect();
    let (mut taking, stream, _directory) = met().await;
    let give = async {
        let mut giving = Giving::meet(stream).await.unwrap();
        giving.offer(&sockets).await.unwrap();
        giving.release().await.unwrap();
        giving.leave().await.unwrap();
        assert_eq!(giving.successor(), std::process::id());
    };
    let take = async {
        let taken = taking.sockets().await.unwrap();
        taking.ready().await.unwrap();
        taking.serving().await.unwrap();
        taken
    };

    let ((), taken) = tokio::join!(give, take);

    assert_eq!(taken.iter().map(|bound| bound.place.address.clone()).collect::<Vec<_>>(), addresses);
    drop(sockets);
    for bound in &taken {
        std::net::TcpStream::connect(&bound.place.address).expect("the copy listens");
    }
}

#[tokio::test]
async fn nobody_at_the_socket_is_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");

    assert!(Taking::ask(&path).await.unwrap().is_none());
    drop(UnixListener::bind(&path).unwrap());
    assert!(Taking::ask(&path).await.unwrap().is_none());
}

#[tokio::test]
async fn a_new_process_that_goes_away_gets_nothing() {
    let (taking, stream, _directory) = met().await;
    let mut giving = Giving::meet(stream).await.unwrap();

    drop(taking);

    let offered = giving.offer(&[bound("a")]).await;
    assert!(matches!(offered, Err(HandoverError::Gone | HandoverError::Broken(_))), "{offered:?}");
}

#[tokio::test]
async fn what_comes_out_of_turn_ends_the_exchange() {
    let (one, other) = pair();
    let (mut one, mut other) = (Wire::new(one), Wire::new(other));
    one.send(&Message::Serving {}, &[]).await.unwrap();
    assert!(matches!(other.receive(ANSWER).await, Ok((Message::Serving {}, _))));

    let (taking, stream) = (met().await, pair());
    let (mut stranger, met) = (Wire::new(stream.0), stream.1);
    stranger.send(&Message::Ready {}, &[]).await.unwrap();
    let refused = Giving::meet(met).await;

    assert!(matches!(refused, Err(HandoverError::OutOfTurn { said: "ready" })), "{refused:?}");
    drop(taking);
}

#[tokio::test]
async fn another_version_is_refused_with_the_reason() {
    let (one, other) = pair();
    let mut asking = Wire::new(one);
    asking.send(&Message::Hello { version: 2 }, &[]).await.unwrap();

    let refused = Giving::meet(other).await;

    assert!(matches!(refused, Err(HandoverError::Refused { .. })), "{refused:?}");
    let (told, _) = asking.receive(ANSWER).await.unwrap();
    assert!(matches!(told, Message::Refused { reason } if reason.contains("version 2")));
}

#[tokio::test]
async fn a_message_that_is_too_long_or_no_message_is_refused_before_it_is_kept() {
    let long = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    for bytes in [long.as_slice(), &[0, 0, 0, 2, b'x', b'x'], b"\0\0\0\x12{\"say\":\"farewell\"}"] {
        let (mut one, other) = pair();
        one.write_all(bytes).await.unwrap();

        let refused = Giving::meet(other).await;

        assert!(matches!(refused, Err(HandoverError::TooLong | HandoverError::Unclear(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn sockets_that_are_not_what_they_are_called_are_not_taken() {
    let (mut taking, stream, _directory) = met().await;
    let mut old = Wire::new(stream);
    let (right, other) = (bound("a"), bound("b"));
    let message = Message::Sockets { places: vec![right.place.clone()], more: false };

    assert!(matches!(old.receive(ANSWER).await, Ok((Message::Hello { .. }, _))));
    old.send(&message, &[other.opened.as_fd()]).await.unwrap();
    let refused = taking.sockets().await;

    assert!(matches!(refused, Err(HandoverError::Socket { .. })), "{refused:?}");
}

#[tokio::test]
async fn each_socket_has_a_descriptor_and_no_more_come() {
    let right = bound("a");
    let fd = right.opened.as_fd();
    for descriptors in [&[][..], &[fd, fd]] {
        let (mut taking, stream, _directory) = met().await;
        let mut old = Wire::new(stream);
        let message = Message::Sockets { places: vec![right.place.clone()], more: false };
        old.send(&message, descriptors).await.unwrap();

        let refused = taking.sockets().await;

        assert!(matches!(refused, Err(HandoverError::TooLong)), "{refused:?}");
    }
}
