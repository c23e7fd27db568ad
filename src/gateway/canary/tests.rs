//! What a canary makes of agents of all kinds. Refuses to know sessions' ends.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::tasks::Tasks;
use crate::gateway::fixture::{Agent, agent, gateway};
use crate::tunnel::fixture::Rows;
use crate::wire::open::Open;

/// A gateway that watches the session of an agent in the test's hand.
struct Site {
    agent: Agent,
    rows: Rows,
    tasks: Tasks,
}

/// An agent that can be asked.
async fn echoing(name: &str) -> Agent {
    let mut agent = agent(name, &["db"]).await;
    Arc::get_mut(&mut agent.live).unwrap().echoes = true;
    agent
}

async fn site() -> Site {
    let ((gateway, rows, tasks), agent) = (gateway(), echoing("a").await);
    let live = agent.live.clone();
    tasks.spawn(async move { watch(&gateway, &live).await });
    Site { agent, rows, tasks }
}

impl Site {
    /// Answers the next canary as an agent does.
    async fn echoes(&mut self) -> Open {
        let (mut wired, open) = self.agent.asked().await;
        wired.send(&Reply::Accepted).await.unwrap();
        let (mut stream, mut bytes) = wired.into_parts();
        while stream.read_buf(&mut bytes).await.unwrap() > 0 {}
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        open
    }

    /// Once the verdict is there, or could be.
    async fn shows(&mut self) -> Serving {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.agent.live.serving.light().state
    }
}

#[tokio::test(start_paused = true)]
async fn c13_an_agent_that_echoes_serves_and_is_asked_again_after_a_while() {
    let mut site = site().await;
    assert_eq!(site.agent.live.serving.light().state, Serving::Unknown);
    let open = site.echoes().await;
    assert_eq!((open.spoken, open.target.as_str(), open.source), (Spoken::Echo, "echo", None));
    assert_eq!(site.shows().await, Serving::Serving);
    assert_eq!(site.agent.live.streams(), 0, "nothing of it is left");
    let before = tokio::time::Instant::now();
    site.echoes().await;
    assert!(before.elapsed() > CANARY_PERIOD / 2 && before.elapsed() <= CANARY_PERIOD);
    assert!(site.rows.take().is_empty(), "no row, since nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn c13_an_agent_that_hangs_while_its_tunnel_stands_is_red_until_it_serves_again() {
    let mut site = site().await;
    site.echoes().await;
    assert_eq!(site.shows().await, Serving::Serving);
    // It takes streams and says nothing: its heartbeats are another task's.
    let held = site.agent.asked().await;
    let light = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let light = site.agent.live.serving.light();
        if light.state != Serving::Serving {
            break light;
        }
    };
    assert_eq!((light.state, light.code), (Serving::NotServing, Some(Code::AgentNotServing)));
    assert!(light.since.is_some() && site.agent.live.usable(), "its session lives");
    assert_eq!(site.rows.take(), ["agent_light agent_not_serving"]);
    drop(held);
    site.echoes().await;
    assert_eq!(site.shows().await, Serving::Serving);
    assert_eq!(site.rows.take(), ["agent_light"]);
}

#[tokio::test(start_paused = true)]
async fn c13_what_says_nothing_of_the_agent_changes_nothing() {
    let mut site = site().await;
    site.echoes().await;
    for code in [Code::AgentStreams, Code::AgentDraining] {
        site.agent.refuse(code).await;
        assert_eq!(site.shows().await, Serving::Serving, "{code}");
    }
    site.agent.refuse(Code::OpenInvalid).await;
    assert_eq!(site.shows().await, Serving::Unknown, "a build that knows no echo");
    assert!(site.rows.take().is_empty());
    site.agent.refuse(Code::Internal).await;
    assert_eq!(site.shows().await, Serving::NotServing);
    assert_eq!(site.rows.take(), ["agent_light internal"]);
}

#[tokio::test(start_paused = true)]
async fn c13_something_else_than_was_sent_is_no_echo() {
    let mut site = site().await;
    let (mut wired, _) = site.agent.asked().await;
    wired.send(&Reply::Accepted).await.unwrap();
    let (mut stream, _) = wired.into_parts();
    stream.write_all(&[7; 4096]).await.unwrap();
    assert_eq!(site.shows().await, Serving::NotServing);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_or_cannot_is_not_asked() {
    let mut site = site().await;
    site.agent.live.drain();
    let asked = tokio::time::timeout(Duration::from_secs(120), site.agent.session.incoming.accept());
    assert!(asked.await.is_err(), "draining");
    // Full of clients' streams, it is asked all the same.
    let ((gateway, _rows, _others), mut full) = (gateway(), echoing("b").await);
    let mut clients = Vec::new();
    while let Ok(client) = full.live.lanes.open().await {
        clients.push(client);
    }
    let live = full.live.clone();
    site.tasks.spawn(async move { watch(&gateway, &live).await });
    let asked = tokio::time::timeout(Duration::from_secs(60), full.session.incoming.accept());
    assert!(asked.await.is_ok(), "a full session is asked, too");
}

#[tokio::test(start_paused = true)]
async fn an_older_agent_is_never_asked() {
    let ((gateway, ..), older) = (gateway(), agent("a", &[]).await);
    let asked = tokio::time::timeout(Duration::from_secs(120), watch(&gateway, &older.live));
    assert!(asked.await.is_err());
    assert_eq!(older.live.lights().agent.state, Serving::Unknown);
}

#[tokio::test(start_paused = true)]
async fn c13_a_canary_that_waited_for_another_connection_says_nothing_of_the_agent() {
    let mut site = site().await;
    site.agent.resumable();
    site.echoes().await;
    assert_eq!(site.shows().await, Serving::Serving);
    let held = site.agent.asked().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.agent.breaks();
    // Mended just before the canary's time is over.
    tokio::time::sleep(CANARY_DEADLINE - Duration::from_millis(200)).await;
    site.agent.resumes();
    assert!(site.agent.live.usable());
    assert_eq!(site.shows().await, Serving::Serving);
    assert!(site.rows.take().is_empty());
    drop(held);
}
