//! State directories on disks that are full, read-only or broken: at enrollment, under a running agent, under a running gateway.
//! Refuses to know what is in their files, but for whose identity an agent has.

use std::path::Path;

use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::fixtures::filesystem::{FailingDisk, Filesystem};
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, serves, told};
use crate::harness::{SOON, eventually};

/// Pages that an enrollment needs: 5 files, each in a new place before it takes the old one's.
const ENOUGH: u64 = 12;

/// The files of an agent's identity, as far as they are there.
fn identity(dir: &Path) -> Vec<Option<String>> {
    ["agent.pem", "agent.key", "root.pem"].map(|name| std::fs::read_to_string(dir.join(name)).ok()).into()
}

/// Neither more nor less than a whole identity, or none.
async fn has_a_whole_identity_or_none(agent: &Agent, room: u64) -> bool {
    let checked = agent.command(&["agent", "check"]).run().await;
    let whole = identity(&agent.dir()).iter().all(Option::is_some);
    assert!(checked.stderr.is_empty() || !checked.stderr.contains("state_invalid"), "{room} pages: {}", checked.stderr);
    whole
}

#[tokio::test]
async fn f28_an_enrollment_on_a_full_disk_says_so_and_burns_no_token() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let token = gateway.token("acme", "dc1").await;
    let mut agent = Agent::blank(&gateway, "a1");
    let disk = Filesystem::over(&agent.dir(), "128k").await;
    let mut refused = 0;
    for room in 0..ENOUGH {
        disk.fill_but(room);
        let done = agent.enrollment(&token).run().await;
        if done.code() == 0 {
            break;
        }
        refused += 1;
        assert!(done.stderr.contains("state_unwritable") && done.stderr.contains("No space left"), "{}", done.stderr);
        has_a_whole_identity_or_none(&agent, room).await;
        disk.free();
    }
    assert!(refused >= 3, "the disk was full {refused} times");
    disk.free();
    agent.enrollment(&token).run().await.ok();
    agent.configure("");
    agent.start().await;
}

#[tokio::test]
async fn f28_f29_a_new_certificate_for_which_there_is_no_room_leaves_the_old_identity() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.agent.process().kill();
    let disk = Filesystem::over(&site.agent.dir(), "128k").await;
    let token = site.gateway.token("acme", "dc1").await;
    for room in 0..3 {
        let before = identity(&site.agent.dir());
        disk.fill_but(room);
        let refused = site.agent.enrollment(&token).run().await;
        assert_ne!(refused.code(), 0, "{room} pages are not enough");
        assert!(refused.stderr.contains("state_unwritable"), "{}", refused.stderr);
        disk.free();
        assert_eq!(identity(&site.agent.dir()), before, "{room} pages");
        site.agent.start().await;
        assert!(serves(site.at("echo")).await, "the old identity still serves");
        site.agent.process().kill();
    }
    disk.read_only(true).await;
    let refused = site.agent.enrollment(&token).run().await;
    assert!(refused.stderr.contains("state_unwritable") && refused.stderr.contains("Read-only"), "{}", refused.stderr);
    disk.read_only(false).await;
    site.agent.enrollment(&token).run().await.ok();
    site.agent.start().await;
    assert!(serves(site.at("echo")).await);
}

#[tokio::test]
async fn f29_who_starts_on_a_read_only_disk_is_told_so_and_loses_nothing() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.agent.process().kill();
    site.gateway.process().kill();
    let agents = Filesystem::over(&site.agent.dir(), "1m").await;
    let gateways = Filesystem::over(&site.gateway.dir(), "4m").await;
    agents.read_only(true).await;
    gateways.read_only(true).await;
    for run in [site.agent.command(&["agent", "run"]), site.gateway.admin(&["gateway", "run"])] {
        let refused = run.run().await;
        assert_ne!(refused.code(), 0);
        assert!(refused.stderr.contains("audit") && refused.stderr.contains("Read-only"), "{}", refused.stderr);
    }
    agents.read_only(false).await;
    gateways.read_only(false).await;
    site.gateway.start().await;
    site.agent.start().await;
    assert!(serves(site.at("echo")).await);
}

/// Breaks and mends the disk under a running agent or gateway: what is open goes on, new work is refused and told, and all is well
/// once the disk is.
async fn comes_through(site: &Site, mut client: TcpStream, fails: impl AsyncFnOnce(), mends: impl AsyncFnOnce()) {
    echoes(&mut client, b"before").await.unwrap();
    fails().await;
    eventually("no new work is taken that could not be recorded", SOON, async || {
        told(site.at("echo")).await.is_empty().then_some(())
    })
    .await;
    assert!(!serves(site.at("echo")).await);
    echoes(&mut client, b"meanwhile").await.expect("what is open goes on");
    assert!(site.agent.is_connected().await);
    mends().await;
    eventually("it serves again by itself", SOON, async || serves(site.at("echo")).await.then_some(())).await;
    echoes(&mut client, b"after").await.unwrap();
}

#[tokio::test]
async fn f28_a_full_disk_under_a_running_gateway_stops_new_work_alone() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.agent.process().kill();
    site.gateway.process().kill();
    let disk = Filesystem::over(&site.gateway.dir(), "8m").await;
    site.gateway.start().await;
    site.agent.start().await;
    let client = site.client("echo").await;
    let gateway = &site.gateway;
    comes_through(
        &site,
        client,
        async || {
            disk.fill();
            let refused = gateway.admin(&["token", "create", "--tenant", "acme", "--group", "dc1"]).run().await;
            assert_ne!(refused.code(), 0, "no token without its row and its record");
            let why = ["audit_full", "store_failed"].iter().any(|code| refused.stderr.contains(code));
            assert!(why && refused.stderr.contains("audit"), "{}", refused.stderr);
        },
        async || disk.free(),
    )
    .await;
    assert!(gateway.running().stderr().contains("audit_full"), "the log tells");
    gateway.token("acme", "dc1").await;
}

#[tokio::test]
async fn f28_a_full_disk_under_a_running_agent_stops_new_work_alone() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.agent.process().kill();
    let disk = Filesystem::over(&site.agent.dir(), "1m").await;
    site.agent.start().await;
    let client = site.client("echo").await;
    comes_through(&site, client, async || disk.fill(), async || disk.free()).await;
    site.gateway.audited("refused", |row| row["code"] == "audit_full").await;
    assert!(site.agent.running().stderr().contains("audit_full"), "the log tells");
}

#[tokio::test]
async fn f29_a_disk_that_fails_under_running_processes_stops_new_work_alone() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.agent.process().kill();
    site.gateway.process().kill();
    let (near, far) = (FailingDisk::of(&site.gateway.dir()).await, FailingDisk::of(&site.agent.dir()).await);
    site.gateway.set_env(&near.env());
    site.agent.set_env(&far.env());
    site.gateway.start().await;
    site.agent.start().await;
    // As the disk breaks, and as the kernel then makes its file system read-only.
    for (disk, error) in [(&near, Errno::IO), (&far, Errno::IO), (&near, Errno::ROFS), (&far, Errno::ROFS)] {
        let client = site.client("echo").await;
        comes_through(&site, client, async || disk.fails_with(error), async || disk.mend()).await;
    }
    near.fails_with(Errno::IO);
    let refused = site.gateway.admin(&["token", "create", "--tenant", "acme", "--group", "dc1"]).run().await;
    assert_ne!(refused.code(), 0, "no token that is not on the disk");
    near.mend();
    site.gateway.token("acme", "dc1").await;
    for said in [site.gateway.running().stderr(), site.agent.running().stderr()] {
        assert!(said.contains("Input/output error") && said.contains("Read-only"), "the log tells");
    }
}
