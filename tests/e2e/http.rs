//! HTTP targets end to end: curl and raw bytes, through every entry point, to origins behind the agent. Refuses to know what rules are
//! made of.

mod entry;
mod protocols;
mod rules;
mod smuggling;

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::vendor::{NAME, Vendor};
use crate::harness::process::{Finished, Program};
use crate::harness::site::{Agent, Gateway};
use crate::harness::{SOON, free_port, loopback};

/// A gateway with an HTTP entry point, in clear and with TLS, a raw one for each target, and an agent.
pub(crate) struct Web {
    pub(crate) gateway: Gateway,
    pub(crate) agent: Agent,
    pub(crate) vendor: Vendor,
    pub(crate) entry: SocketAddr,
    pub(crate) entry_tls: SocketAddr,
    pub(crate) token: String,
    raw: Vec<(String, u16)>,
}

impl Web {
    /// For targets that agent.yaml describes: the name of each, and its keys.
    pub(crate) async fn new(targets: &[(&str, String)]) -> Self {
        let vendor = Vendor::new();
        let [entry, entry_tls] = [(); 2].map(|()| loopback(free_port()));
        let raw: Vec<_> = targets.iter().map(|(name, _)| ((*name).to_owned(), free_port())).collect();
        let mut gateway = Gateway::init().await;
        let mut listeners = format!(
            "listeners:\n  - {{listen: \"{entry}\", kind: http, base_domain: {NAME}}}\n  \
             - {{listen: \"{entry_tls}\", kind: http, base_domain: {NAME}, {}}}\n",
            vendor.tls()
        );
        for (name, port) in &raw {
            listeners += &format!("  - {{listen: \"127.0.0.1:{port}\", target: acme/dc1/{name}}}\n");
        }
        gateway.configure(&listeners);
        gateway.start().await;
        let mut agent = Agent::enroll(&gateway, "a1").await;
        agent.configure(&Self::targets(targets));
        agent.start().await;
        let token = gateway.admin(&["client-token", "create", "--name", "ci", "--grant", "acme/dc1/*"]).run().await.ok();
        Self { gateway, agent, vendor, entry, entry_tls, token: token.trim().to_owned(), raw }
    }

    /// `targets` of agent.yaml.
    pub(crate) fn targets(targets: &[(&str, String)]) -> String {
        let mut text = "targets:\n".to_owned();
        for (name, keys) in targets {
            text += &format!("  {name}: {{allow_loopback: true, {keys}}}\n");
        }
        text
    }

    /// Where raw bytes go to this target.
    pub(crate) fn raw(&self, target: &str) -> SocketAddr {
        loopback(self.raw.iter().find(|(name, _)| name == target).expect("the site has that target").1)
    }

    /// The URL of a path of a target.
    pub(crate) fn url(&self, target: &str, path: &str) -> String {
        format!("http://{}/t/acme/dc1/{target}{path}", self.entry)
    }

    /// curl with the token.
    pub(crate) async fn curl(&self, options: &[&str], url: &str) -> Finished {
        let bearer = format!("Authorization: Bearer {}", self.token);
        Program::new("curl").args(["-sS", "--max-time", "25", "-H", &bearer]).args(options).arg(url).run().await
    }

    /// What curl is told: status, the code of a refusal, and the body.
    pub(crate) async fn told(&self, options: &[&str], url: &str) -> (u16, String, String) {
        let format = "\n%{http_code} %header{underpass-refusal}";
        let said = self.curl(&[&["--path-as-is", "-w", format], options].concat(), url).await.ok();
        let (body, end) = said.rsplit_once('\n').unwrap();
        let (status, code) = end.split_once(' ').unwrap();
        (status.parse().unwrap(), code.to_owned(), body.to_owned())
    }

    /// The request rows of an audit.
    pub(crate) fn requests(rows: &[Value]) -> Vec<Value> {
        rows.iter().filter(|row| row["event"] == "request").cloned().collect()
    }
}

/// `kind: http` for an origin in clear text, with more keys, each with a comma before it.
pub(crate) fn http(origin: SocketAddr, more: &str) -> String {
    format!("kind: http, address: \"http://{origin}\"{more}")
}

/// Sends bytes as they are, and yields all that comes back until the end.
pub(crate) async fn says(to: SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(to).await.unwrap();
    let mut answer = Vec::new();
    // The other end may refuse what it has not read to its end.
    let _ = client.write_all(bytes).await;
    let _ = timeout(SOON, client.read_to_end(&mut answer)).await.expect("a client is answered or let go");
    String::from_utf8_lossy(&answer).into_owned()
}
