use std::sync::atomic::AtomicUsize;

use super::*;

/// Counts those who are served.
#[derive(Default)]
struct Count(AtomicUsize);

impl Accept for Count {
    async fn serve(self: Arc<Self>, _socket: TcpStream, _from: SocketAddr, _place: Place) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn turn_away(&self, _socket: TcpStream, _from: SocketAddr, _limit: &'static str) {}
}

/// A listener with that many clients in its queue.
async fn crowded(count: usize) -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    let socket = bind(([127, 0, 0, 1], 0).into()).await.unwrap().into_std().unwrap();
    let address = socket.local_addr().unwrap();
    let clients = (0..count).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    (socket, clients)
}

async fn served(socket: std::net::TcpListener, stop: &Stop) -> usize {
    let count = Arc::new(Count::default());
    let listener = TcpListener::from_std(socket).unwrap();
    let places = Places::new(&Limits::default());
    serve(listener, Arc::clone(&count), places, Arc::new(Metrics::new()), stop.clone()).await;
    count.0.load(Ordering::SeqCst)
}

#[tokio::test]
async fn whoever_waits_at_a_socket_that_closes_is_served() {
    let (socket, _clients) = crowded(20).await;
    let stop = Stop::default();

    stop.close();

    assert_eq!(served(socket, &stop).await, 20);
}

#[tokio::test]
async fn whoever_waits_at_a_socket_that_is_handed_on_is_left_to_the_next() {
    let (socket, _clients) = crowded(20).await;
    let copy = socket.try_clone().unwrap();
    let (hands_on, closes) = (Stop::default(), Stop::default());

    hands_on.hand_on();
    closes.close();

    assert_eq!(served(socket, &hands_on).await, 0);
    assert_eq!(served(copy, &closes).await, 20);
}
