//! The accept loop, one test for each of its properties, in paused time. Refuses to know sockets, but for one.

use std::sync::Mutex;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::*;

/// Yields what the test puts in.
struct Fake(mpsc::Receiver<io::Result<u32>>);

impl Acceptor for Fake {
    type Io = u32;
    type Peer = u32;

    async fn accept(&mut self) -> io::Result<(u32, u32)> {
        match self.0.recv().await {
            Some(next) => next.map(|number| (number, number)),
            None => std::future::pending().await,
        }
    }
}

/// Even numbers are through their handshake at once, odd ones never; 13 is not admitted.
#[derive(Default)]
struct Recorder {
    shaking: Mutex<Vec<u32>>,
    served: Mutex<Vec<u32>>,
    timed_out: Mutex<Vec<u32>>,
    end: Notify,
}

impl Service<u32, u32> for Recorder {
    type Ready = u32;

    fn admits(&self, peer: &u32) -> bool {
        *peer != 13
    }

    async fn handshake(&self, io: u32, _: u32) -> Option<u32> {
        self.shaking.lock().unwrap().push(io);
        if io % 2 == 1 {
            std::future::pending::<()>().await;
        }
        Some(io)
    }

    async fn serve(&self, ready: u32) {
        self.served.lock().unwrap().push(ready);
        self.end.notified().await;
    }

    /// From 100 on all are of one source, below each is of its own.
    fn source(&self, peer: &u32) -> Option<IpAddr> {
        Some(std::net::Ipv4Addr::from(*peer.min(&100)).into())
    }

    fn timed_out(&self, peer: u32) {
        self.timed_out.lock().unwrap().push(peer);
    }

    fn crowded(&self, _: u32) {
        unreachable!("so many don't come");
    }
}

struct Site {
    arrive: mpsc::Sender<io::Result<u32>>,
    service: Arc<Recorder>,
    drain: Drain,
    /// The loop, apart from its connections.
    accepting: Tasks,
    connections: Tasks,
}

fn listening(connections: usize, handshakes: usize) -> Site {
    let (arrive, arrivals) = mpsc::channel(64);
    let (service, drain) = (Arc::new(Recorder::default()), Drain::new());
    let (accepting, tasks) = (Tasks::new(), Tasks::new());
    let caps = Caps { connections, handshakes };
    accepting.spawn(serve(Fake(arrivals), caps, service.clone(), drain.clone(), tasks.clone()));
    Site { arrive, service, drain, accepting, connections: tasks }
}

impl Site {
    async fn arrive(&self, numbers: &[u32]) {
        for number in numbers {
            self.arrive.send(Ok(*number)).await.unwrap();
        }
    }

    async fn fail(&self, errno: i32) {
        self.arrive.send(Err(io::Error::from_raw_os_error(errno))).await.unwrap();
    }

    /// What is served once nothing moves any more: paused time passes only then.
    async fn served(&self) -> Vec<u32> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.service.served.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_its_cap_of_connections_are_served_at_a_time() {
    let site = listening(2, 9);
    site.arrive(&[2, 4, 6]).await;
    assert_eq!(site.served().await, [2, 4]);
    site.service.end.notify_one();
    assert_eq!(site.served().await, [2, 4, 6]);
    assert_eq!(site.connections.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn f30_without_descriptors_accepting_pauses_and_goes_on() {
    for errno in [24, 23, 105, 12] {
        let site = listening(9, 9);
        let before = Instant::now();
        site.fail(errno).await;
        site.arrive(&[2]).await;
        assert!(site.served().await.is_empty(), "no pause after error {errno}");
        while site.served().await.is_empty() {}
        assert!(before.elapsed() >= EXHAUSTED_PAUSE && before.elapsed() < 2 * EXHAUSTED_PAUSE);
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_socket_is_passed_over_without_a_pause() {
    let site = listening(9, 9);
    for errno in [103, 104, 71, 1] {
        site.fail(errno).await;
    }
    site.arrive(&[2]).await;
    assert_eq!(site.served().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_does_not_delay_the_next() {
    let site = listening(9, 9);
    site.arrive(&[1, 3, 2]).await;
    assert_eq!(site.served().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn d1_handshakes_have_a_deadline_and_give_their_place_back() {
    let site = listening(3, 9);
    site.arrive(&[1, 3, 5, 2]).await;
    assert!(site.served().await.is_empty(), "the cap counts handshakes, too");
    tokio::time::sleep(HANDSHAKE_DEADLINE).await;
    assert_eq!(*site.service.timed_out.lock().unwrap(), [1, 3, 5]);
    assert_eq!(site.served().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn d1_no_more_than_their_cap_of_handshakes_run_at_a_time() {
    let site = listening(9, 2);
    site.arrive(&[1, 3, 5]).await;
    site.served().await;
    assert_eq!(*site.service.shaking.lock().unwrap(), [1, 3]);
    tokio::time::sleep(HANDSHAKE_DEADLINE).await;
    assert_eq!(*site.service.shaking.lock().unwrap(), [1, 3, 5]);
}

#[tokio::test(start_paused = true)]
async fn d1_a_handshake_that_is_over_makes_room_for_the_next_while_its_connection_lives() {
    let site = listening(9, 1);
    site.arrive(&[2, 4, 6]).await;
    assert_eq!(site.served().await, [2, 4, 6]);
}

#[tokio::test(start_paused = true)]
async fn d1_a_source_that_uses_up_its_share_waits_for_itself_alone() {
    let site = listening(99, 16);
    site.arrive(&[101, 103]).await;
    assert!(site.served().await.is_empty());
    site.arrive(&[105, 100, 2]).await;
    assert_eq!(site.served().await, [2], "the share of sixteen is two");
    tokio::time::sleep(HANDSHAKE_DEADLINE).await;
    assert_eq!(site.served().await, [2, 100], "its turn comes");
    assert_eq!(*site.service.shaking.lock().unwrap(), [101, 103, 2, 105, 100]);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_admitted_takes_no_place() {
    let site = listening(1, 1);
    site.arrive(&[13, 13, 2]).await;
    assert_eq!(site.served().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn every_task_is_owned() {
    let site = listening(9, 9);
    site.arrive(&[1, 2, 4]).await;
    site.served().await;
    assert_eq!(site.connections.len(), 3);
    site.connections.abort().await;
    site.accepting.abort().await;
    assert!(site.connections.is_empty() && site.accepting.is_empty());
    assert_eq!(Arc::strong_count(&site.service), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_stops_accepting_and_connections_live_on() {
    let site = listening(9, 9);
    site.arrive(&[2]).await;
    assert_eq!(site.served().await, [2]);
    site.drain.begin();
    tokio::time::timeout(HANDSHAKE_DEADLINE, site.accepting.join()).await.expect("the loop ends");
    assert_eq!(site.connections.len(), 1);
    site.service.end.notify_one();
    site.connections.join().await;
    assert!(site.arrive.send(Ok(4)).await.is_err(), "the socket is closed");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    let failure = bind(address).unwrap_err();
    assert_eq!(failure.code, Code::ListenFailed);
    assert!(failure.detail.contains(&address.to_string()), "{failure}");
}
