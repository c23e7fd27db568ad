//! Bytes from end to end: whole, in both directions, ended as the ends ended them, and held back when a reader is slow.
//! Refuses to know networks, proxies and attacks.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::fixtures::nginx::Nginx;
use crate::fixtures::postgres::Postgres;
use crate::harness::process::Program;
use crate::harness::site::{Agent, Site};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, Scratch, always, eventually, heavy, sha256_of};

const GIB: u64 = 1 << 30;
const MINUTES: Duration = Duration::from_secs(180);

/// A GiB in which no two blocks are equal.
fn write_gib(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let mut block = pattern(1 << 20);
    for at in 0..GIB >> 20 {
        block[..8].copy_from_slice(&at.to_be_bytes());
        block[500_000..500_008].copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        file.write_all_at(&block, at << 20).unwrap();
    }
}

#[tokio::test]
async fn a_gib_goes_up_and_down_through_nginx_unchanged() {
    let _turn = heavy().await;
    let nginx = Nginx::start().await;
    let site = Site::new(&[("web", nginx.address())]).await;
    write_gib(&nginx.file("gib"));
    let wanted = sha256_of(&nginx.file("gib")).await;

    let scratch = Scratch::new();
    let (url, copy) = (format!("http://{}", site.at("web")), scratch.path("gib"));
    let down = Program::new("curl").args(["-sSf", "-o"]).arg(&copy).arg(format!("{url}/gib"));
    down.run_within(MINUTES).await.ok();
    assert_eq!(sha256_of(&copy).await, wanted);

    let up = Program::new("curl").args(["-sSf", "-T"]).arg(&copy).arg(format!("{url}/up/gib"));
    up.run_within(MINUTES).await.ok();
    assert_eq!(sha256_of(&nginx.file("up/gib")).await, wanted);

    let closed = site.gateway.audited("closed", |row| row["up"].as_u64().is_some_and(|up| up > GIB)).await;
    assert_eq!(closed["code"], serde_json::Value::Null, "a clean end has no code: {closed}");
    site.agent.audited("closed", |row| row["down"].as_u64().is_some_and(|down| down > GIB)).await;
}

#[tokio::test]
async fn psql_and_pgbench_work() {
    let _turn = heavy().await;
    let postgres = Postgres::start().await;
    let site = Site::new(&[("db", postgres.address())]).await;
    let answer = Postgres::client("psql", site.at("db")).args(["-Atc", "select sum(i) from generate_series(1, 100000) i"]);
    assert_eq!(answer.run().await.ok().trim(), "5000050000");
    Postgres::client("pgbench", site.at("db")).args(["-i", "-q", "-s", "1", "postgres"]).run().await.ok();
    let load = ["-c", "20", "-j", "2", "-T", "10", "postgres"];
    let report = Postgres::client("pgbench", site.at("db")).args(load).run_within(MINUTES).await.ok();
    assert!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
    assert!(!report.contains("number of transactions actually processed: 0\n"), "{report}");
}

#[tokio::test]
async fn a_connection_carries_bytes_both_ways_and_many_at_a_time() {
    let echo = Target::echo().await;
    let site = Site::new(&[("echo", echo.address())]).await;
    let bytes = pattern(300_000);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(site.client("echo").await);
    }
    let all = clients.iter_mut().map(|client| echoes(client, &bytes));
    let results = timeout(SOON, futures_util::future::join_all(all)).await.expect("100 clients are served");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn f20_a_client_may_end_first_and_still_read() {
    let target = Target::start(|mut stream| async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await?;
        stream.write_all(format!("{} bytes", received.len()).as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    let site = Site::new(&[("count", target.address())]).await;
    let mut client = site.client("count").await;
    client.write_all(&pattern(1_000_000)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "1000000 bytes");
}

#[tokio::test]
async fn f20_a_target_may_end_first_and_still_read() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let target = Target::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"bye").await?;
            stream.shutdown().await?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await?;
            tell.send(received.len()).await.map_err(std::io::Error::other)
        }
    })
    .await;
    let site = Site::new(&[("bye", target.address())]).await;
    let mut client = site.client("bye").await;
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "bye");
    client.write_all(&pattern(1_000_000)).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, told.recv()).await.unwrap(), Some(1_000_000));
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard_by_a_silent_client() {
    let target = Target::named("220 ready\r\n").await;
    let site = Site::new(&[("smtp", target.address())]).await;
    let mut answer = String::new();
    timeout(SOON, site.client("smtp").await.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "220 ready\r\n");
}

#[tokio::test]
async fn f19_a_targets_reset_is_no_end_of_file() {
    let target = Target::start(|mut stream| async move {
        stream.write_all(b"half an answ").await?;
        stream.read_u8().await?;
        stream.set_zero_linger()?;
        drop(stream);
        Ok(())
    })
    .await;
    let site = Site::new(&[("torn", target.address())]).await;
    let mut client = site.client("torn").await;
    let mut half = [0; 12];
    client.read_exact(&mut half).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let end = timeout(SOON, client.read(&mut half)).await.unwrap();
    assert_eq!(end.expect_err("a cut answer must not look whole").kind(), std::io::ErrorKind::ConnectionReset);
    site.agent.audited("closed", |row| row["code"] == "target_reset").await;
}

#[tokio::test]
async fn f19_a_clients_reset_reaches_the_target() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let target = Target::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"go").await?;
            let end = stream.read_to_end(&mut Vec::new()).await;
            tell.send(end).await.map_err(std::io::Error::other)
        }
    })
    .await;
    let site = Site::new(&[("torn", target.address())]).await;
    let mut client = site.client("torn").await;
    client.read_exact(&mut [0; 2]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let end = timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert!(end.is_err(), "a cut request must not look whole: {end:?}");
    site.gateway.audited("closed", |row| row["code"] == "client_reset").await;
}

#[tokio::test]
async fn f17_one_stuck_stream_slows_no_other() {
    let flood = Target::start(|mut stream| async move {
        let block = pattern(1 << 16);
        loop {
            stream.write_all(&block).await?;
        }
    })
    .await;
    let echo = Target::echo().await;
    let site = Site::new(&[("flood", flood.address()), ("echo", echo.address())]).await;
    // Their windows fill; nobody reads.
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let mut client = site.client("flood").await;
        client.read_u8().await.unwrap();
        stuck.push(client);
    }
    let bytes = pattern(4 << 20);
    for _ in 0..5 {
        let mut client = site.client("echo").await;
        timeout(SOON, echoes(&mut client, &bytes)).await.expect("the others flow").unwrap();
    }
    drop(stuck);
}

/// A client that takes little into its own socket.
async fn small_client(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn d4_f17_a_slow_reader_holds_its_source_back_and_memory_stays_flat() {
    let _turn = heavy().await;
    let (count, total) = (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), 1u64 << 30);
    let sent = count.clone();
    let target = Target::start_small(move |mut stream| {
        let sent = sent.clone();
        async move {
            let block = pattern(1 << 16);
            for _ in 0..total >> 16 {
                stream.write_all(&block).await?;
                sent.fetch_add(block.len() as u64, std::sync::atomic::Ordering::SeqCst);
            }
            Ok(())
        }
    })
    .await;
    let mut site = Site::new(&[("pump", target.address())]).await;
    let before = (site.gateway.process().rss_kib(), site.agent.process().rss_kib());
    let mut client = small_client(site.at("pump")).await;
    client.read_u8().await.unwrap();

    // The source comes to a stand: two looks a second apart see the same count.
    let so_far = || count.load(std::sync::atomic::Ordering::SeqCst);
    eventually("the source is held back", SOON, async || {
        let seen = so_far();
        let mut same = true;
        always("", Duration::from_secs(1), async || {
            same &= so_far() == seen;
            true
        })
        .await;
        same.then_some(())
    })
    .await;
    assert!(so_far() < 64 << 20, "{} bytes left the source for a reader that took one", so_far());
    let after = (site.gateway.process().rss_kib(), site.agent.process().rss_kib());
    for (before, after) in [(before.0, after.0), (before.1, after.1)] {
        assert!(after < before + 48 * 1024, "RSS grew from {before} to {after} KiB");
    }
    // And it flows on when the reader does.
    let mut taken = vec![0; 8 << 20];
    timeout(SOON, client.read_exact(&mut taken)).await.unwrap().unwrap();
    let wanted: Vec<u8> = pattern(1 << 16).into_iter().cycle().skip(1).take(taken.len()).collect();
    assert!(taken == wanted, "bytes came changed");
}

#[tokio::test]
async fn what_a_client_sends_at_once_reaches_the_target_after_the_connection() {
    let echo = Target::echo().await;
    let site = Site::new(&[("echo", echo.address())]).await;
    for size in [1, 1000, 65_536, 65_537, 200_000] {
        let mut client = site.client("echo").await;
        let bytes = pattern(size);
        // Written before anything can have been dialled.
        let written = client.try_write(&bytes).unwrap();
        client.write_all(&bytes[written..]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        timeout(SOON, client.read_to_end(&mut back)).await.unwrap().unwrap();
        assert!(back == bytes, "{size} bytes: {} came back", back.len());
    }
}

#[tokio::test]
async fn a_target_that_asks_for_it_learns_the_clients_address() {
    let target = Target::start(|mut stream| async move {
        let mut header = [0; 28];
        stream.read_exact(&mut header).await?;
        stream.write_all(&header).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        stream.write_all(&rest).await
    })
    .await;
    let agent =
        format!("targets:\n  web: {{kind: tcp, address: \"{}\", allow_loopback: true, send_proxy: v2}}\n", target.address());
    let site = Site::with(&["web"], "", &agent).await;
    let mut client = site.client("web").await;
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.write_all(b"payload").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    // The PROXY protocol, version 2: signature, PROXY, TCP over IPv4, 12 bytes of addresses and ports.
    assert_eq!(answer[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "{answer:02x?}");
    assert_eq!(answer[16..20], [127, 0, 0, 1]);
    assert_eq!(answer[24..26], from.port().to_be_bytes(), "the client's port ({from} to {to}): {answer:02x?}");
    assert_eq!(&answer[28..], b"payload");
}

#[tokio::test]
async fn a_listener_may_speak_tls() {
    let nginx = Nginx::start().await;
    let scratch = Scratch::new();
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=db.test \
                   -addext subjectAltName=DNS:db.test -addext basicConstraints=critical,CA:FALSE";
    let (cert, key) = (scratch.path("cert.pem"), scratch.write("key.pem", ""));
    let make = Program::new("openssl").args(request.split_whitespace()).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    make.run().await.ok();
    let port = crate::harness::free_port();
    let listeners = format!(
        "listeners:\n  - {{listen: \"127.0.0.1:{port}\", target: acme/dc1/web, tls: {{cert: \"{}\", key: \"{}\"}}}}\n",
        cert.display(),
        key.display()
    );
    let site = Site::with(&[], &listeners, &Agent::targets(&[("web", nginx.address())])).await;
    let url = format!("https://db.test:{port}/index.html");
    let curl = |ca: &Path| {
        let resolve = format!("db.test:{port}:127.0.0.1");
        Program::new("curl").args(["-sSf", "--resolve", &resolve, "--cacert"]).arg(ca).arg(&url)
    };
    assert_eq!(curl(&cert).run().await.ok(), "hello from nginx\n");
    let mut plain = TcpStream::connect(crate::harness::loopback(port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("a client without TLS is let go");
    assert!(!answer.starts_with(b"HTTP"), "no byte of the target without TLS");
    drop(site);
}
