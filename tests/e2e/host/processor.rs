//! A host whose one processor is wanted by many. Refuses to know why.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::harness::process::{Process, Program};
use crate::harness::site::Site;
use crate::harness::target::{Target, echoes};
use crate::harness::{SOON, always, eventually, heavy};

/// Neighbours on the processor.
const NEIGHBOURS: usize = 6;

/// Holds all threads of a process to the first processor.
async fn confine(process: &Process) {
    Program::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", "0", &process.id().to_string()]).run().await.ok();
}

#[tokio::test]
async fn f32_a_starved_processor_lets_nobody_be_taken_for_dead() {
    let _turn = heavy().await;
    let (echo, endless) = (Target::echo().await, Target::endless().await);
    let site = Site::new(&[("echo", echo.address()), ("endless", endless.address())]).await;
    let session = site.agent.session().await.unwrap()["session"].clone();
    confine(site.gateway.running()).await;
    confine(site.agent.running()).await;
    let busy = Program::new("taskset").args(["--cpu-list", "0", "sh", "-c", "while :; do :; done"]);
    let neighbours: Vec<_> = (0..NEIGHBOURS).map(|_| busy.start()).collect();
    // And the tunnel itself has as much to do as it can.
    let (mut bulk, mut client) = (site.client("endless").await, site.client("echo").await);
    let download = async {
        let mut block = vec![0; 64 * 1024];
        loop {
            bulk.read_exact(&mut block).await.expect("the download goes on");
        }
    };
    let watched = always("the session lives", Duration::from_secs(15), async || {
        echoes(&mut client, b"tick").await.is_ok() && site.agent.is_connected().await
    });
    tokio::select! {
        () = download => unreachable!("it has no end"),
        () = watched => {}
    }
    drop(neighbours);
    eventually("the agent is connected", SOON, async || site.agent.is_connected().await.then_some(())).await;
    assert_eq!(site.agent.session().await.unwrap()["session"], session, "it is the same session");
    let lost = site.gateway.audit().into_iter().find(|row| row["event"] == "disconnected");
    assert!(lost.is_none(), "{lost:?}");
}
