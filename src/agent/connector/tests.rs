//! Where a session's further connections are dialled. Refuses to know TLS.

use super::*;
use crate::agent::bridge::resolve::Resolver;
use crate::agent::fixture::{agent_with, policy};
use crate::agent::link::tests::grounds;
use crate::base::tasks::Tasks;

/// The connector of a session of `wss://gw.example` that resolves to these addresses, and who owns its agent's tasks.
pub(in crate::agent) fn connector(resolved: &[&str], direct: Option<&str>, reached: Option<&str>) -> (Arc<Connector>, Tasks) {
    let addresses = resolved.iter().map(|text| text.parse().unwrap()).collect();
    let (agent, _, tasks) = agent_with(policy(&[]), 9, Resolver::answering("gw.example", addresses));
    let connector = Connector {
        agent,
        endpoint: "wss://gw.example".parse().unwrap(),
        origin: Origin {
            gateway: Role::parse("spiffe://test.example/gateway/gw").unwrap(),
            address: reached.map(|at| at.parse().unwrap()),
        },
        session: SessionId::fresh(),
        instance: InstanceId::fresh(),
        secret: Secret::new("c2VjcmV0"),
        grounds: grounds(),
        direct_address: direct.map(|at| at.parse().unwrap()),
        pace: Arc::new(Pace::new()),
    };
    (Arc::new(connector), tasks)
}

async fn dialled(resolved: &[&str], direct: Option<&str>, reached: Option<&str>) -> Vec<String> {
    let (connector, _tasks) = connector(resolved, direct, reached);
    connector.addresses().await.iter().map(HostPort::to_string).collect()
}

#[tokio::test]
async fn the_direct_address_comes_first_then_where_the_session_began_then_the_others() {
    let resolved = ["203.0.113.1", "203.0.113.2", "203.0.113.3"];
    let dialled = dialled(&resolved, Some("198.51.100.7:443"), Some("203.0.113.2:443")).await;
    assert_eq!(dialled, ["198.51.100.7:443", "203.0.113.2:443", "203.0.113.1:443", "203.0.113.3:443"]);
}

#[tokio::test]
async fn through_a_proxy_the_endpoint_keeps_its_name() {
    let dialled = dialled(&["203.0.113.1"], Some("198.51.100.7:443"), None).await;
    assert_eq!(dialled, ["198.51.100.7:443", "gw.example:443"]);
}

#[tokio::test]
async fn e1_a_gateway_cannot_make_an_agent_dial_into_its_own_site() {
    let (public, private) = (["203.0.113.1"], ["10.1.1.1"]);
    for (direct, resolved, taken) in [
        ("198.51.100.7:443", &public[..], true),
        ("198.51.100.7:22", &public, false),
        ("10.0.0.5:443", &public, false),
        ("10.0.0.5:443", &private, true),
        ("[::ffff:10.0.0.5]:443", &public, false),
        ("127.0.0.1:443", &public, false),
        ("127.0.0.1:443", &private, false),
        ("127.0.0.1:443", &["127.0.0.2"], true),
        ("169.254.169.254:443", &private, false),
        ("100.100.100.200:443", &private, false),
        ("224.0.0.1:443", &public, false),
    ] {
        let dialled = dialled(resolved, Some(direct), Some("203.0.113.1:443")).await;
        assert_eq!(dialled.contains(&direct.to_owned()), taken, "{direct} beside {resolved:?}: {dialled:?}");
    }
}
