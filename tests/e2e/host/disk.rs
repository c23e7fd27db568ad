//! State directories on disks that are full, read-only or broken: at enrollment, under a running agent, under a running gateway.
//! Refuses to know what is in their files.

use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::fixtures::filesystem::{FailingDisk, Filesystem};
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, eventually};

/// Pages that are room enough for an enrollment, and a few more.
const ENOUGH: u64 = 12;

/// Enrolls with more and more room on the disk, until there is enough; yields how often there was not. `refused` is asked each time.
async fn enrolls_at_last(agent: &mut Agent, disk: &Filesystem, token: &str, mut refused: impl AsyncFnMut(&mut Agent)) -> usize {
    let mut times = 0;
    for room in 0..ENOUGH {
        disk.fill_but(room);
        let done = agent.enrollment(token).run().await;
        disk.free();
        if done.code() == 0 {
            break;
        }
        times += 1;
        let why = done.exits(69).stderr;
        assert!(why.contains("state_unwritable") && why.contains("No space left"), "{why}");
        refused(agent).await;
    }
    times
}

#[tokio::test]
async fn f28_an_enrollment_on_a_full_disk_says_so_and_burns_no_token() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let token = gateway.token("acme", "dc1").await;
    let mut agent = Agent::blank(&gateway, "a1");
    let disk = Filesystem::over(&agent.dir(), "128k").await;
    let refused = enrolls_at_last(&mut agent, &disk, &token, async |_| {}).await;
    assert!(refused >= 3, "the disk was full {refused} times");
    agent.configure("");
    agent.start().await;
}

#[tokio::test]
async fn f28_f29_a_new_certificate_for_which_there_is_no_room_leaves_an_identity() {
    let echo = Target::echo().await;
    let Site { mut gateway, mut agent, .. } = Site::new(&[("echo", echo.address())]).await;
    agent.process().kill();
    let disk = Filesystem::over(&agent.dir(), "128k").await;
    let token = gateway.token("acme", "dc1").await;
    let still_serves = async |agent: &mut Agent| {
        agent.start().await;
        agent.process().kill();
    };
    let refused = enrolls_at_last(&mut agent, &disk, &token, still_serves).await;
    assert!(refused >= 2, "the disk was full {refused} times");
    let token = gateway.token("acme", "dc1").await;
    disk.read_only(true).await;
    let refused = agent.enrollment(&token).run().await;
    assert!(refused.stderr.contains("state_unwritable") && refused.stderr.contains("Read-only"), "{}", refused.stderr);
    disk.read_only(false).await;
    still_serves(&mut agent).await;
    agent.enrollment(&token).run().await.ok();
    agent.start().await;
    assert!(gateway.process().is_running());
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
        (!serves(site.at("echo")).await).then_some(())
    })
    .await;
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
            let told = ["audit_full", "store_failed"].iter().any(|code| refused.stderr.contains(code));
            assert!(told && refused.stderr.contains("full"), "{}", refused.stderr);
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
