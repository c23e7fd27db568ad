//! HAProxy in front of every port: whom a balancer names is who is on record, and nobody else is believed. Refuses to know what is
//! carried.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::client::{SOCKS5_OPEN, connect, socks5};
use crate::fixtures::haproxy::{BALANCER, Haproxy};
use crate::fixtures::vendor::secured;
use crate::harness::entries::Entries;
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes};
use crate::harness::{SOON, connect_from};

/// The address of the clients.
const CLIENT: &str = "127.0.0.5";

async fn behind_a_balancer(echo: &Target) -> Entries {
    let balancers = format!(", proxy_protocol_from: [{BALANCER}]");
    Entries::with(&Agent::targets(&[("echo", echo.address())]), &["echo"], &balancers).await
}

#[tokio::test]
async fn f41_behind_haproxy_both_audits_have_the_clients_own_address() {
    let echo = Target::echo().await;
    let entries = behind_a_balancer(&echo).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let haproxy = Haproxy::start(&[
        (entries.site.at("echo"), "send-proxy"),
        (entries.site.at("echo"), "send-proxy-v2"),
        (entries.connect, "send-proxy"),
        (entries.connect, "send-proxy-v2"),
        (entries.connect_tls, "send-proxy-v2"),
        (entries.socks5, "send-proxy-v2"),
    ])
    .await;
    for route in 0..6 {
        let mut client = connect_from(CLIENT, haproxy.at(route)).await.unwrap();
        let source = client.local_addr().unwrap().to_string();
        match route {
            2 | 3 => drop(connect(&mut client, "acme/dc1/echo", Some(&token)).await.unwrap()),
            4 => {
                let mut inside = secured(&entries.vendor.connector(None), client).await.unwrap();
                connect(&mut inside, "acme/dc1/echo", Some(&token)).await.unwrap();
                inside.write_all(b"through").await.unwrap();
                inside.flush().await.unwrap();
                inside.read_exact(&mut [0; 7]).await.unwrap();
                client = inside.into_inner().0;
            }
            5 => assert!(socks5(&mut client, "acme/dc1/echo", Some(&token)).await.unwrap().ends_with(&SOCKS5_OPEN)),
            _ => {}
        }
        if route != 4 {
            echoes(&mut client, b"through").await.unwrap();
        }
        let row = entries.site.gateway.audited("opened", |row| row["source"] == source.as_str()).await;
        entries
            .site
            .agent
            .audited("opened", |other| (&other["request"], &other["source"]) == (&row["request"], &row["source"]))
            .await;
    }
}

#[tokio::test]
async fn f41_a_balancers_connection_without_a_header_is_refused_by_name() {
    let echo = Target::echo().await;
    let entries = behind_a_balancer(&echo).await;
    for at in [entries.site.at("echo"), entries.connect, entries.socks5] {
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4\r\n", b"\x05\x01\x02"] {
            let mut balancer = connect_from(BALANCER, at).await.unwrap();
            balancer.write_all(said).await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(SOON, balancer.read_to_end(&mut answer)).await.expect("it is let go");
            assert_eq!(answer, b"", "{said:?}");
        }
        entries.site.gateway.audited("connect_refused", |row| row["code"] == "proxy_header" && row["source"] == BALANCER).await;
    }
    assert_eq!(echo.connections(), 0);
}

#[tokio::test]
async fn f41_a_header_from_anywhere_else_counts_for_nothing() {
    let echo = Target::echo().await;
    let entries = behind_a_balancer(&echo).await;
    let header = b"PROXY TCP4 192.0.2.66 192.0.2.1 4711 443\r\n";
    let mut client = connect_from(CLIENT, entries.site.at("echo")).await.unwrap();
    echoes(&mut client, header).await.expect("the target gets it as it is");
    let source = client.local_addr().unwrap().to_string();
    entries.site.gateway.audited("opened", |row| row["source"] == source.as_str()).await;
    for at in [entries.connect, entries.socks5] {
        let mut client = connect_from(CLIENT, at).await.unwrap();
        client.write_all(header).await.unwrap();
        let _ = timeout(SOON, client.read_to_end(&mut Vec::new())).await.expect("it is let go");
        entries
            .site
            .gateway
            .audited("connect_refused", |row| row["code"] == "request_invalid" && row["source"] == CLIENT)
            .await;
    }
    let audit = entries.site.gateway.audit();
    assert!(!audit.iter().any(|row| row.to_string().contains("192.0.2.66:") || row["source"] == "192.0.2.66"), "{audit:?}");
}

#[tokio::test]
async fn f41_an_agent_behind_haproxy_is_on_record_with_its_own_address() {
    let mut gateway = Gateway::init().await;
    gateway.configure_gateway(&format!("  proxy_protocol_from: [{BALANCER}]\n  allow_from: [127.0.0.1]\n"), "");
    gateway.start().await;
    let haproxy = Haproxy::start(&[(gateway.at, "send-proxy-v2")]).await;
    // It enrolls without a balancer between.
    let mut agent = Agent::enroll(&gateway, "a1").await;
    agent.configure_endpoint(&format!("wss://{}", haproxy.at(0)), "");
    agent.start().await;
    let row = gateway.audited("connected", |_| true).await;
    assert!(row["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");

    let mut bare: TcpStream = connect_from(BALANCER, gateway.at).await.unwrap();
    bare.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0]).await.unwrap();
    let _ = timeout(SOON, bare.read_to_end(&mut Vec::new())).await.expect("it is let go");
    gateway.audited("connect_refused", |row| row["code"] == "proxy_header" && row["source"] == BALANCER).await;
    let mut lied = connect_from(CLIENT, gateway.at).await.unwrap();
    let _ = lied.write_all(b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 443\r\n").await;
    let _ = timeout(SOON, lied.read_to_end(&mut Vec::new())).await.expect("it is let go");
    gateway.audited("connect_refused", |row| row["code"] == "tls_plaintext" && row["source"] == CLIENT).await;
    assert!(agent.is_connected().await);
}
