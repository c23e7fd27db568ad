//! curl, as whoever has a proxy setting: what it gets through CONNECT and SOCKS5, and what it is told when it gets nothing.
//! Refuses to know other clients.

use std::path::Path;

use crate::fixtures::client::host_of;
use crate::fixtures::nginx::Nginx;
use crate::fixtures::vendor::{NAME, Vendor};
use crate::harness::entries::Entries;
use crate::harness::process::{Finished, Program};
use crate::harness::target::pattern;
use crate::harness::{free_port, loopback, sha256_of};

/// A GET of a target's page by curl, through a proxy that `options` describe.
async fn get(url: &str, options: &[&str]) -> Finished {
    Program::new("curl").args(["-sS", "-f", "--max-time", "25", "-p"]).args(options).arg(url).run().await
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn curl_fetches_http_and_https_byte_by_byte_through_connect_and_socks5() {
    let nginx = Nginx::start().await;
    let vendor = Vendor::new();
    let secure = Nginx::start_tls(&vendor.server()).await;
    for server in [&nginx, &secure] {
        std::fs::write(server.file("big"), pattern(64 << 20)).unwrap();
    }
    let entries = Entries::new(&[("web", nginx.address()), ("secure", secure.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let (any, bearer) = (format!("any:{token}"), format!("Proxy-Authorization: Bearer {token}"));
    let (connect, inside) = (format!("http://{any}@{}", entries.connect), format!("https://{}", entries.connect_tls));
    let (plain, socks5) = (format!("http://{}", entries.connect), entries.socks5.to_string());
    let proxy_ca = entries.vendor.ca();
    let ways: [&[&str]; 4] = [
        &["-x", &connect],
        &["-x", &plain, "--proxy-header", &bearer],
        &["-x", &inside, "--proxy-cacert", path(&proxy_ca), "--proxy-user", &any],
        &["--socks5-hostname", &socks5, "--proxy-user", &any],
    ];
    let (target_ca, scratch) = (vendor.ca(), crate::harness::Scratch::new());
    let wanted = sha256_of(&nginx.file("big")).await;
    for way in ways {
        for url in ["http://web.dc1.acme.underpass/big", "https://secure.dc1.acme.underpass/big"] {
            let out = scratch.path("out");
            let options = [way, &["--cacert", path(&target_ca), "-o", path(&out)]].concat();
            get(url, &options).await.ok();
            assert_eq!(sha256_of(&out).await, wanted, "{url} by {way:?}");
            std::fs::remove_file(out).unwrap();
        }
    }
    // By the name of the target's own certificate, as the README has it.
    let (out, there) = (scratch.path("out"), format!("{NAME}:443:secure.dc1.acme.underpass:443"));
    let named =
        ["-x", &plain, "--proxy-header", &bearer, "--connect-to", &there, "--cacert", path(&target_ca), "-o", path(&out)];
    get(&format!("https://{NAME}/big"), &named).await.ok();
    assert_eq!(sha256_of(&out).await, wanted);
    assert_eq!(entries.audits_of("opened", "token ci"), [9, 9], "each is on record with its caller");
}

#[tokio::test]
async fn curl_is_told_by_status_and_code_why_it_is_refused() {
    let nginx = Nginx::start().await;
    let down = loopback(free_port());
    let entries = Entries::new(&[("web", nginx.address()), ("down", down)]).await;
    let granted = entries.token("ci", "acme/*/*", &[]).await.text;
    let other = entries.token("other", "acme/dc1/other", &[]).await.text;
    let wrong = granted.replace("underpass-client-1.", "underpass-client-1.x");
    for (token, target, status, code) in [
        (Some(&wrong), "acme/dc1/web", "407", "login_failed"),
        (None, "acme/dc1/web", "407", "login_required"),
        (Some(&other), "acme/dc1/web", "403", "not_granted"),
        (Some(&granted), "acme/dc1/unknown", "404", "target_unknown"),
        (Some(&granted), "acme/dc1/down", "502", "target_refused"),
        (Some(&granted), "acme/dc2/web", "503", "no_agent"),
    ] {
        let (url, proxy) = (format!("http://{}/", host_of(target)), format!("http://{}", entries.connect));
        let user = token.map(|token| format!("any:{token}"));
        let mut options = vec!["-v", "-w", "%{http_connect}", "-x", &proxy];
        options.extend(user.as_deref().map(|user| ["--proxy-user", user]).into_iter().flatten());
        let refused = get(&url, &options).await;
        assert_ne!(refused.code(), 0);
        assert_eq!(refused.stdout, status, "{code}");
        let header = format!("< Underpass-Refusal: {code}\r");
        assert!(refused.stderr.lines().any(|line| line == header.trim_end()), "{code}: {}", refused.stderr);
    }
    assert_eq!(entries.audits_of("refused", "token other")[0], 1);
    let down = entries.audits_of("refused", "token ci");
    assert!(down[0] == 3 && down[1] >= 1, "{down:?}");
}

#[tokio::test]
async fn curl_that_does_not_tunnel_or_resolves_names_itself_is_refused_with_the_reason() {
    let nginx = Nginx::start().await;
    let entries = Entries::new(&[("web", nginx.address())]).await;
    let user = format!("any:{}", entries.token("ci", "acme/dc1/*", &[]).await.text);
    let (url, proxy) = ("http://web.dc1.acme.underpass/", format!("http://{}", entries.connect));
    let forwarded =
        Program::new("curl").args(["-sS", "--max-time", "20", "-x", &proxy, "--proxy-user", &user, url]).run().await;
    assert!(forwarded.ok().contains("this listener takes CONNECT alone"));

    let socks5 = entries.socks5.to_string();
    let resolved = ["--resolve", "web.dc1.acme.underpass:80:127.0.0.1", "--socks5", &socks5, "--proxy-user", &user];
    let refused = get(url, &resolved).await.exits(97);
    assert!(refused.stderr.contains("(8)"), "address type not supported: {}", refused.stderr);
    entries
        .site
        .gateway
        .audited("connect_refused", |row| row["detail"].as_str().is_some_and(|it| it.contains("socks5h")))
        .await;
    for (proxy_user, code) in [("any:wrong", "login_failed"), ("any:", "request_invalid")] {
        get(url, &["--socks5-hostname", &socks5, "--proxy-user", proxy_user]).await.exits(97);
        entries.site.gateway.audited("connect_refused", |row| row["code"] == code).await;
    }
    get(url, &["--socks5-hostname", &socks5]).await.exits(97);
    entries.site.gateway.audited("connect_refused", |row| row["code"] == "login_required").await;
}
