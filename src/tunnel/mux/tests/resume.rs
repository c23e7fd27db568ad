//! A lane that loses its connections and goes on, between two honest ends and with a peer that lies. Refuses to know TLS and proofs.

use tokio::io::DuplexStream;

use super::*;
use crate::base::limits::{ACKNOWLEDGE_AFTER, ACKNOWLEDGE_BYTES, RETAINED};
use crate::base::memory::Budget;
use crate::tunnel::fixture::{half, upgraded};
use crate::wire::heartbeat::Heartbeat;

const WINDOW: Duration = Duration::from_secs(30);

/// Bytes that a network holds; odd, so that frames lie across its pieces.
const NETWORK: usize = 10_007;

/// A network that breaks when it is told to, or after so many bytes from either end.
struct Network {
    agent: DuplexStream,
    gateway: DuplexStream,
    cut: CancellationToken,
}

impl Network {
    fn new(tasks: &Tasks, bytes: usize) -> Self {
        let (agent, near) = tokio::io::duplex(NETWORK);
        let (gateway, far) = tokio::io::duplex(NETWORK);
        let cut = CancellationToken::new();
        let (near, far) = (tokio::io::split(near), tokio::io::split(far));
        let (up, down) = (carry(near.0, far.1, bytes), carry(far.0, near.1, bytes));
        let cancelled = cut.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = up => {}
                () = down => {}
            }
        });
        Self { agent, gateway, cut }
    }
}

/// Ends after so many bytes, or when either end has.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut bytes: usize) {
    let mut buffer = [0; 4096];
    while bytes > 0 {
        let most = buffer.len().min(bytes);
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { return };
        bytes -= count;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Both ends of a lane.
struct Lane {
    agent: Half,
    gateway: Half,
    cut: CancellationToken,
    tasks: Tasks,
}

impl Lane {
    fn new() -> Self {
        let tasks = Tasks::new();
        let Network { agent, gateway, cut } = Network::new(&tasks, usize::MAX);
        let agent = half(upgraded(agent, Side::Agent), Side::Agent);
        let gateway = half(upgraded(gateway, Side::Gateway), Side::Gateway);
        agent.link.resumable(WINDOW);
        gateway.link.resumable(WINDOW);
        Self { agent, gateway, cut, tasks }
    }

    /// Both ends notice that the connection is gone.
    async fn cut(&self) {
        self.cut.cancel();
        self.breaks().await;
    }

    async fn breaks(&self) {
        assert!(self.agent.link.paused().await.is_some() && self.gateway.link.paused().await.is_some());
    }

    /// Goes on over a network that breaks after so many bytes.
    fn go_on(&mut self, bytes: usize) {
        let network = Network::new(&self.tasks, bytes);
        let (generation, received) = self.agent.link.claim().unwrap();
        let told = self.gateway.link.fence(generation, received).unwrap();
        let theirs = Upgraded { received: Some(told), ..upgraded(network.agent, Side::Agent) };
        let ours = Upgraded { received: Some(received), ..upgraded(network.gateway, Side::Gateway) };
        self.gateway.link.attach(generation, ours).unwrap();
        self.agent.link.attach(generation, theirs).unwrap();
        self.cut = network.cut;
    }
}

/// Bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Writes them, and reads as many to the end; each way takes its time.
async fn exchange(mut stream: Stream, len: usize) {
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let bytes = pattern(len);
    let (sent, received) = tokio::join!(
        async {
            writer.write_all(&bytes).await?;
            writer.shutdown().await
        },
        async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.map(|_| received)
        }
    );
    sent.unwrap();
    assert!(received.unwrap() == bytes, "every byte once, in its place");
}

#[tokio::test(start_paused = true)]
async fn c1_streams_go_on_byte_for_byte_over_a_hundred_connections() {
    const LEN: usize = 400_000;
    let mut lane = Lane::new();
    let mut exchanges = Vec::new();
    for _ in 0..4 {
        let (theirs, ours) = opened(&mut lane.agent, &lane.gateway).await;
        exchanges.extend([theirs, ours].map(|stream| lane.tasks.spawn(exchange(stream, LEN))));
    }
    lane.cut().await;
    // Both directions break in the middle of frames, and of what goes out again.
    for connection in 0..100 {
        lane.go_on(1 + connection * 173);
        lane.breaks().await;
    }
    lane.go_on(usize::MAX);
    for exchange in exchanges {
        assert_eq!(exchange.await.unwrap(), Some(()));
    }
    assert!(!lane.agent.link.has_ended() && !lane.gateway.link.has_ended());
}

#[tokio::test(start_paused = true)]
async fn an_open_and_an_end_that_went_out_over_a_dead_connection_are_not_lost() {
    let mut lane = Lane::new();
    let mut ours = lane.gateway.opener.open().await.unwrap();
    lane.cut().await;
    // Written while there is no connection.
    ours.write_all(b"hello").await.unwrap();
    lane.go_on(usize::MAX);
    let mut theirs = lane.agent.incoming.accept().await.unwrap();
    let mut word = [0; 5];
    theirs.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
    theirs.shutdown().await.unwrap();
    lane.cut().await;
    drop(theirs);
    lane.go_on(usize::MAX);
    assert_eq!(ours.read(&mut word).await.unwrap(), 0, "an end of file, though its frame may have gone out twice");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_nobody_takes_up_ends_with_its_window_and_a_code() {
    let mut lane = Lane::new();
    let (_theirs, mut ours) = opened(&mut lane.agent, &lane.gateway).await;
    lane.cut().await;
    let since = Instant::now();
    assert!(!lane.gateway.link.pulse().alive() && lane.gateway.link.is_paused());
    assert_eq!(kind(read(&mut ours).await), io::ErrorKind::ConnectionAborted);
    assert!(since.elapsed() >= WINDOW && since.elapsed() < WINDOW + Duration::from_secs(1));
    for link in [&lane.agent.link, &lane.gateway.link] {
        let why = link.ended().await;
        assert_eq!(why.code, Code::ResumeExpired);
        assert!(why.detail.contains("without a farewell"), "{why}");
        assert!(link.claim().is_err() && link.fence(9, 0).is_err(), "too late");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_window_a_broken_connection_is_the_end_and_so_is_a_farewell() {
    let lane = Lane::new();
    lane.agent.link.resumable(Duration::ZERO);
    lane.gateway.link.resumable(Duration::ZERO);
    lane.cut.cancel();
    assert_eq!(lane.agent.link.ended().await.code, Code::LinkClosed);
    assert_eq!(lane.gateway.link.ended().await.code, Code::LinkClosed);
    let lane = Lane::new();
    lane.agent.link.close();
    assert_eq!(lane.gateway.link.ended().await.code, Code::Stopping);
    assert!(lane.gateway.link.claim().is_err());
    let lane = Lane::new();
    lane.cut().await;
    lane.gateway.link.close();
    assert_eq!(lane.gateway.link.ended().await.code, Code::Stopping, "also while it waits");
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_fences_the_one_before_and_an_older_one_comes_too_late() {
    let mut lane = Lane::new();
    let (theirs, ours) = opened(&mut lane.agent, &lane.gateway).await;
    // The gateway has not noticed anything.
    let old = lane.cut.clone();
    let stale = lane.agent.link.claim().unwrap();
    let newer = lane.agent.link.claim().unwrap();
    assert!(newer.0 > stale.0);
    lane.gateway.link.fence(newer.0, newer.1).unwrap();
    assert!(lane.gateway.link.is_paused(), "from here on the old connection counts for nothing");
    for generation in [0, stale.0, newer.0] {
        assert_eq!(lane.gateway.link.fence(generation, stale.1).unwrap_err().code, Code::LaneRefused);
    }
    let Network { agent, gateway, .. } = Network::new(&lane.tasks, usize::MAX);
    let late = Upgraded { received: Some(stale.1), ..upgraded(gateway, Side::Gateway) };
    assert_eq!(lane.gateway.link.attach(stale.0, late).unwrap_err().code, Code::LaneRefused);
    let unsaid = lane.agent.link.attach(newer.0, upgraded(agent, Side::Agent)).unwrap_err();
    assert_eq!(unsaid.code, Code::ProtocolViolation);
    lane.go_on(usize::MAX);
    old.cancel();
    tokio::join!(exchange(theirs, 100_000), exchange(ours, 100_000));
}

#[tokio::test(start_paused = true)]
async fn s1_an_offset_that_can_not_be_is_refused_and_the_lane_still_waits_for_a_true_one() {
    let mut lane = Lane::new();
    let (theirs, ours) = opened(&mut lane.agent, &lane.gateway).await;
    tokio::time::sleep(2 * HEARTBEAT).await;
    lane.cut().await;
    let (generation, received) = lane.agent.link.claim().unwrap();
    for offset in [0, received - 1, received + 1, u64::MAX] {
        let failure = lane.gateway.link.fence(generation, offset).unwrap_err();
        assert_eq!(failure.code, Code::LaneRefused, "{offset}");
    }
    lane.go_on(usize::MAX);
    tokio::join!(exchange(theirs, 1000), exchange(ours, 1000));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_acknowledged_after_so_many_bytes_or_so_long() {
    let (mut raw, gateway) = hostile().await;
    gateway.link.resumable(WINDOW);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let acknowledged = async |raw: &mut Raw| loop {
        if let Message::Pong(word) = raw.next().await.unwrap().unwrap()
            && let Some(word) = Heartbeat::from_bytes(&word).filter(|word| word.kind == Heartbeat::ACKNOWLEDGEMENT)
        {
            return word.received;
        }
    };
    let since = Instant::now();
    send(&mut raw, frame(0, 0, SYN, 1, 3, b"abc")).await;
    assert_eq!(acknowledged(&mut raw).await, 15);
    assert_eq!(since.elapsed(), ACKNOWLEDGE_AFTER);
    // Nobody reads them, so that nothing else goes back beside which an acknowledgement could ride.
    let since = Instant::now();
    for id in [1, 3, 5, 7, 9] {
        for part in 0..4 {
            let flags = if id > 1 && part == 0 { SYN } else { 0 };
            send(&mut raw, frame(0, 0, flags, id, 60_000, &vec![7; 60_000])).await;
        }
    }
    assert!(acknowledged(&mut raw).await >= ACKNOWLEDGE_BYTES);
    assert!(since.elapsed() < ACKNOWLEDGE_AFTER, "no time had to pass");
}

#[tokio::test(start_paused = true)]
async fn f31_where_memory_is_tight_a_lane_ends_whose_peer_takes_much_and_acknowledges_none_of_it() {
    for (streams, cut) in [(10, false), (10, true), (2, false), (2, true)] {
        let (mut raw, gateway) = hostile().await;
        gateway.link.resumable(WINDOW);
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(usize::MAX)));
        gateway.link.shared.change(|driver| driver.retains_within(budget));
        let mut open = Vec::new();
        for _ in 0..streams {
            let mut stream = gateway.opener.open().await.unwrap();
            open.push(gateway.tasks.spawn(async move { stream.write_all(&pattern(200_000)).await.map(|()| stream) }));
        }
        let mut taken = 0;
        while taken < streams * 200_000 {
            taken += raw.next().await.unwrap().unwrap().len();
        }
        let open = futures_util::future::join_all(open).await;
        if cut {
            drop(raw);
            gateway.link.paused().await.unwrap();
        }
        let kept = budget.kept();
        assert!(kept >= streams * 200_000, "{kept} bytes are kept");
        budget.limit_to(kept);
        tokio::time::sleep(2 * HEARTBEAT - Duration::from_millis(1)).await;
        assert_eq!(gateway.link.has_ended(), streams == 10, "{streams} streams, cut: {cut}");
        if streams == 10 {
            assert_eq!((gateway.link.ended().await.code, budget.kept()), (Code::MemoryBudget, 0));
        }
        drop(open);
    }
}

/// What a peer says of itself in a Pong or Ping.
async fn says(raw: &mut Raw, kind: u8, received: u64) {
    let word = Heartbeat { kind, sequence: 1, received }.to_bytes().to_vec();
    let message = if kind == Heartbeat::PING { Message::Ping(word.into()) } else { Message::Pong(word.into()) };
    let _ = raw.send(message).await;
}

#[tokio::test(start_paused = true)]
async fn s1_acknowledging_what_was_never_sent_ends_the_lane() {
    for kind in [Heartbeat::ACKNOWLEDGEMENT, Heartbeat::PING] {
        let (mut raw, gateway) = hostile().await;
        gateway.link.resumable(WINDOW);
        says(&mut raw, kind, 0).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!gateway.link.has_ended());
        says(&mut raw, kind, 1).await;
        assert_eq!(gateway.link.ended().await.code, Code::ProtocolViolation, "and it can't be taken up");
    }
}

#[tokio::test(start_paused = true)]
async fn d3_a_peer_that_echoes_and_acknowledges_nothing_holds_nothing_back() {
    let (mut raw, gateway) = hostile().await;
    gateway.link.resumable(WINDOW);
    let mut stream = gateway.opener.open().await.unwrap();
    // Tungstenite echoes by itself; the windows are granted by hand.
    let granting = gateway.tasks.spawn(async move {
        loop {
            match tokio::time::timeout(Duration::from_millis(100), raw.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    let more = u32::try_from(bytes.len()).unwrap();
                    send(&mut raw, frame(0, 1, 0, 2, more, b"")).await;
                    says(&mut raw, Heartbeat::ACKNOWLEDGEMENT, 0).await;
                }
                Ok(Some(Ok(_))) | Err(_) => {}
                _ => return,
            }
        }
    });
    let chunk = vec![7; 60_000];
    for _ in 0..2 * RETAINED / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
    }
    assert!(!gateway.link.has_ended() && !granting.is_finished());
}
