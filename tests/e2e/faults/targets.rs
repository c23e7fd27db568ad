//! Targets that are slow to answer, or never do. Refuses to know networks and tunnels that fail.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{lasts, measured, shortened};
use crate::harness::site::Site;
use crate::harness::target::{Target, serves, told};
use crate::harness::{SOON, eventually, loopback};

/// A listener that the kernel accepts nothing more for: a connection to it has no answer, as if packets vanished.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(loopback(0)).unwrap();
    let (listener, mut waiting) = (socket.listen(1).unwrap(), Vec::new());
    let at = listener.local_addr().unwrap();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(at)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 10, "the queue has no end");
    }
    (listener, waiting)
}

#[tokio::test]
async fn f18_a_target_that_answers_no_connection_is_refused_in_time_and_holds_up_nobody() {
    let (full, echo) = (full().await, Target::echo().await);
    let site = Site::new(&[("full", full.0.local_addr().unwrap()), ("echo", echo.address())]).await;
    let since = Instant::now();
    let pending: Vec<_> = (0..50).map(|_| told(site.at("full"))).collect();
    let waits = futures_util::future::join_all(pending);
    let others = async {
        while since.elapsed() < Duration::from_secs(3) {
            assert!(timeout(Duration::from_secs(1), serves(site.at("echo"))).await.expect("another target answers at once"));
        }
    };
    let (answers, ()) = tokio::join!(timeout(Duration::from_secs(8), waits), others);
    measured("50 refusals of a target that answers no connection", since);
    assert!(answers.expect("refused once the connect timeout is over").iter().all(String::is_empty));
    eventually("each is in the audit with its code", SOON, async || {
        let refused = |row: &&serde_json::Value| row["event"] == "refused" && row["code"] == "target_timeout";
        (site.gateway.audit().iter().filter(refused).count() >= 50).then_some(())
    })
    .await;
}

#[tokio::test]
async fn f18_a_target_that_is_long_silent_is_waited_for() {
    let slow = Target::start(|mut stream| async move {
        let asked = stream.read_u8().await?;
        lasts(shortened(8)).await;
        stream.write_u8(asked).await
    })
    .await;
    let site = Site::new(&[("slow", slow.address())]).await;
    let mut client = site.client("slow").await;
    client.write_u8(42).await.unwrap();
    let answer = timeout(shortened(8) + SOON, client.read_u8()).await.expect("an answer in the end");
    assert_eq!(answer.unwrap(), 42);
}
