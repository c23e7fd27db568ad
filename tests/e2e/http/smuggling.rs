//! Requests inside requests: whatever a client writes, what reaches the backend behind nginx, HAProxy and an origin of our own is what
//! was decided about, and nothing under `/secret`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Web, http};
use crate::fixtures::origin::Origin;
use crate::harness::process::{Process, Program};
use crate::harness::{Scratch, free_port, listens, loopback};

/// What every attack wants to have asked.
const SMUGGLED: &str = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";

/// Attacks by what they try: bytes of a client that may ask for `/public/**` alone.
fn attacks() -> Vec<(&'static str, String)> {
    let post = |head: &str, body: &str| format!("POST /public/a HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}");
    let inner = SMUGGLED.len();
    let chunk = format!("{inner:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    vec![
        ("cl.te", post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{SMUGGLED}"))),
        ("te.cl", post("Transfer-Encoding: chunked\r\nContent-Length: 4", &chunk)),
        ("te: xchunked", post("Transfer-Encoding: xchunked", &chunk)),
        ("te: chunked, identity", post("Transfer-Encoding: chunked, identity", &chunk)),
        ("te: identity, cl", post(&format!("Transfer-Encoding: identity\r\nContent-Length: {inner}"), SMUGGLED)),
        ("te twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &chunk)),
        ("te behind a space", post("Transfer-Encoding : chunked\r\nContent-Length: 4", &chunk)),
        ("te behind a tab", post("Transfer-Encoding:\tchunked\r\nContent-Length: 4", &chunk)),
        ("te in a folded line", post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 4", &chunk)),
        ("obs-fold", post("X: a\r\n b\r\nContent-Length: 0", SMUGGLED)),
        ("te with a vertical tab", post("Transfer-Encoding: \x0bchunked\r\nContent-Length: 4", &chunk)),
        ("cl twice", post(&format!("Content-Length: 0\r\nContent-Length: {inner}"), SMUGGLED)),
        ("cl list", post(&format!("Content-Length: 0, {inner}"), SMUGGLED)),
        ("cl +", post(&format!("Content-Length: +{inner}"), SMUGGLED)),
        ("cl hex", post(&format!("Content-Length: 0x{inner:x}"), SMUGGLED)),
        ("cl negative", post("Content-Length: -1", SMUGGLED)),
        ("cl beyond u64", post("Content-Length: 18446744073709551617", SMUGGLED)),
        (
            "http/1.0 with te",
            format!(
                "POST /public/a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n{chunk}{SMUGGLED}"
            ),
        ),
        ("http/0.9", "GET /secret\r\n".to_owned()),
        ("bare lf", format!("GET /public/a HTTP/1.1\nHost: x\n\n{SMUGGLED}")),
        ("bare cr", format!("GET /public/a HTTP/1.1\r\nHost: x\rX: y\r\n\r\n{SMUGGLED}")),
        ("nul in a value", "GET /public/a HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n".to_owned()),
        ("crlf in a value", format!("GET /public/a HTTP/1.1\r\nHost: x\r\nX: a\r\n\r\n{SMUGGLED}")),
        ("crlf in the target", format!("GET /public/a%0d%0a%0d%0aGET%20/secret HTTP/1.1\r\nHost: x\r\n\r\n{SMUGGLED}")),
        ("absolute-form", "GET http://x/secret HTTP/1.1\r\nHost: y\r\n\r\n".to_owned()),
        ("absolute-form elsewhere", "GET http://169.254.169.254/public/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("two hosts", "GET /public/a HTTP/1.1\r\nHost: x\r\nHost: 169.254.169.254\r\n\r\n".to_owned()),
        ("chunk extension", post("Transfer-Encoding: chunked", &format!("0;a=\"\r\n\r\n{SMUGGLED}"))),
        ("chunk size with a sign", post("Transfer-Encoding: chunked", &format!("+0\r\n\r\n{SMUGGLED}"))),
        ("chunk size beyond u64", post("Transfer-Encoding: chunked", &format!("10000000000000000\r\n{SMUGGLED}"))),
        ("chunk without crlf", post("Transfer-Encoding: chunked", &format!("1\r\nZZ\r\n0\r\n\r\n{SMUGGLED}"))),
        ("chunks by bare lf", post("Transfer-Encoding: chunked", &format!("0\n\n{SMUGGLED}"))),
        ("body of a get", format!("GET /public/a HTTP/1.1\r\nHost: x\r\nContent-Length: {inner}\r\n\r\n{SMUGGLED}")),
        ("expect", post("Expect: 100-continue\r\nContent-Length: 0", SMUGGLED)),
        (
            "upgrade h2c",
            format!(
                "GET /public/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "e4 websocket, bad version",
            format!(
                "GET /public/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{SMUGGLED}"
            ),
        ),
        ("connect", "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n".to_owned()),
        (
            "connection: host",
            "GET /public/a HTTP/1.1\r\nHost: x\r\nConnection: Host, Content-Length\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        ("no name", "GET /public/a HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n".to_owned()),
        ("spaces in the request line", "GET /public/a /secret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("two versions", "GET /public/a HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
    ]
}

/// Sends the attack, and then a harmless request if the connection is still there; reads until all is said.
async fn attack(at: SocketAddr, bytes: String) {
    let mut client = TcpStream::connect(at).await.unwrap();
    let _ = client.write_all(bytes.as_bytes()).await;
    let _ = client.write_all(b"GET /public/after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    // One that waits for more has said what it had to say.
    let _ = timeout(Duration::from_secs(3), client.read_to_end(&mut Vec::new())).await;
}

/// A web server in front of an origin, as many sites have it.
struct Front {
    at: SocketAddr,
    _scratch: Scratch,
    _process: Process,
}

async fn nginx_before(origin: SocketAddr) -> Front {
    let (scratch, at) = (Scratch::new(), loopback(free_port()));
    let tmp = scratch.dir_of("tmp", "www-data");
    let tmp = tmp.display();
    let config = format!(
        "daemon off; master_process off; pid {tmp}/pid; error_log stderr; events {{}}
         http {{ access_log off; client_body_temp_path {tmp}/b; proxy_temp_path {tmp}/p; fastcgi_temp_path {tmp}/f;
                 uwsgi_temp_path {tmp}/u; scgi_temp_path {tmp}/s;
           upstream o {{ server {origin}; keepalive 8; }}
           server {{ listen {at}; location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}"
    );
    let config = scratch.write("nginx.conf", config);
    crate::harness::give(&config, "www-data");
    let process = Program::new("nginx").user("www-data").arg("-e").arg("stderr").arg("-c").arg(config).start();
    listens("nginx", at).await;
    Front { at, _scratch: scratch, _process: process }
}

async fn haproxy_before(origin: SocketAddr) -> Front {
    let (scratch, at) = (Scratch::new(), loopback(free_port()));
    let config = scratch.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
             listen it\n  bind {at}\n  server it {origin}\n"
        ),
    );
    let process = Program::new("haproxy").args(["-db", "-f"]).arg(config).start();
    listens("HAProxy", at).await;
    Front { at, _scratch: scratch, _process: process }
}

#[tokio::test]
async fn e3_e4_no_request_is_smuggled_through_the_agent_to_nginx_haproxy_or_an_origin() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let nginx = nginx_before(origins[0].address()).await;
    let haproxy = haproxy_before(origins[1].address()).await;
    let allow = ", allow: [{path: /public/**}]";
    let targets =
        [("nginx", http(nginx.at, allow)), ("haproxy", http(haproxy.at, allow)), ("direct", http(origins[2].address(), allow))];
    let web = Web::new(&targets).await;
    for ((target, _), origin) in targets.iter().zip(&origins) {
        let raw = attacks().into_iter().map(|(_, bytes)| attack(web.raw(target), bytes));
        // The same through the gateway's own entry point, where each needs its login and the target's prefix.
        let (head, login) = (format!("/t/acme/dc1/{target}"), format!("Host: x\r\nAuthorization: Bearer {}\r\n", web.token));
        let entry = attacks().into_iter().map(|(_, bytes)| {
            let paths = ["/public/", "/secret"].iter().fold(bytes, |bytes, path| bytes.replace(path, &format!("{head}{path}")));
            attack(web.entry, paths.replace("Host: x\r\n", &login))
        });
        futures_util::future::join(futures_util::future::join_all(raw), futures_util::future::join_all(entry)).await;
        let seen = origin.seen();
        let reached: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
        assert!(seen.iter().all(|seen| seen.path.starts_with("/public/")), "through {target}: {reached:?}");
        assert!(!format!("{seen:?}").contains("169.254"), "through {target}: {seen:?}");
        assert!(reached.len() > 10, "harmless ones arrive: {reached:?}");
        let said = web.curl(&["-f"], &web.url(target, "/public/fine")).await.ok();
        assert_eq!(said, "GET /public/fine\n", "{target} serves on");
    }
    assert!(web.agent.is_connected().await);
}

#[tokio::test]
async fn e3_redirects_are_passed_on_and_never_followed() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let said = web.curl(&["-D", "-"], &web.url("erp-api", "/moved")).await.ok();
    assert!(said.starts_with("HTTP/1.1 302 "), "{said}");
    assert!(said.to_ascii_lowercase().contains("location: http://169.254.169.254/latest/meta-data\r\n"), "{said}");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn e3_an_origin_cannot_speak_for_the_tunnel() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let said = web.curl(&["-D", "-"], &web.url("erp-api", "/lies")).await.ok().to_ascii_lowercase();
    assert!(said.contains("x-mine: 1") && !said.contains("underpass-refusal") && !said.contains("x-hop"), "{said}");
}
