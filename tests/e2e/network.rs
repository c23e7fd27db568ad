//! An agent behind a firewall, in a network of its own. Refuses to know proxies.

use std::time::{Duration, Instant};

use crate::fixtures::netns::{CLOUD, Networks, SITE};
use crate::fixtures::nginx::Nginx;
use crate::harness::site::{Agent, Gateway};
use crate::harness::{SOON, eventually, free_port};

/// A site whose firewall lets nothing in, with nginx as its target, and a gateway in the cloud.
struct Walled {
    networks: Networks,
    gateway: Gateway,
    agent: Agent,
    port: u16,
    _nginx: Nginx,
}

impl Walled {
    async fn new() -> Self {
        let networks = Networks::new().await;
        let mut gateway = Gateway::init_at(CLOUD, Some(&networks.cloud)).await;
        networks.outbound_only(gateway.at.port()).await;
        let nginx = Nginx::start_at((SITE, free_port()).into(), Some(&networks.site));
        let port = free_port();
        gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/web")]));
        gateway.start().await;
        let agent = Agent::blank(&gateway, "a1").in_netns(&networks.site);
        let token = gateway.token("acme", "dc1").await;
        agent.enrollment(&token).run().await.ok();
        let address = nginx.address();
        // The site's own address is no loopback, so it needs no permission.
        agent.configure(&format!("targets:\n  web: {{kind: tcp, address: \"{address}\"}}\n"));
        let mut walled = Self { networks, gateway, agent, port, _nginx: nginx };
        walled.agent.start().await;
        walled
    }

    /// Fetches nginx's page as a client in the cloud.
    async fn page(&self) -> Option<String> {
        let url = format!("http://127.0.0.1:{}/index.html", self.port);
        let done = self.networks.in_cloud("curl", &["-sSf", "--max-time", "10", &url]).await;
        done.status.success().then_some(done.stdout)
    }
}

#[tokio::test]
async fn an_agent_enrolls_and_serves_from_behind_a_firewall_that_lets_nothing_in() {
    let walled = Walled::new().await;
    let page = eventually("nginx answers through the tunnel", SOON, async || walled.page().await).await;
    assert_eq!(page, "hello from nginx\n");
    let direct = walled.networks.in_cloud("curl", &["-sS", "--max-time", "1", &format!("http://{SITE}:80/")]).await;
    assert_eq!(direct.code(), 28, "the firewall drops what comes in");
}

/// A dead path is noticed within 6 s; the rest is what a busy machine and the looking itself take.
const NOTICED: Duration = Duration::from_secs(9);

async fn noticed_and_mended(directions: &[&str]) {
    let mut walled = Walled::new().await;
    eventually("nginx answers through the tunnel", SOON, async || walled.page().await).await;
    let since = Instant::now();
    walled.networks.black_hole(directions).await;
    eventually("the agent no longer says connected", NOTICED, async || (!walled.agent.is_connected().await).then_some(()))
        .await;
    let within = NOTICED.saturating_sub(since.elapsed());
    eventually("the gateway knows, too", within, async || {
        walled.gateway.audit().iter().any(|row| row["event"] == "lane_broken").then_some(())
    })
    .await;
    walled.networks.mend().await;
    walled.agent.connected().await;
    walled.gateway.audited("lane_resumed", |row| row["lane"] == 0).await;
    eventually("nginx answers again", SOON, async || walled.page().await).await;
}

#[tokio::test]
async fn c1_f7_a_silent_path_is_not_called_connected() {
    noticed_and_mended(&["input", "output"]).await;
}

#[tokio::test]
async fn c1_f8_a_path_silent_in_one_direction_is_not_called_connected() {
    noticed_and_mended(&["input"]).await;
    noticed_and_mended(&["output"]).await;
}
