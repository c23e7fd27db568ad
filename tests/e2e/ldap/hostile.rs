//! A directory that lies and a client that does: each costs its own stream and nothing else. Refuses to know how that is noticed.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{asks_for, found, ldaps, names};
use crate::fixtures::hostile_directory::{Answer, HostileDirectory, Request, ber, done, entry, message, nested, reference};
use crate::fixtures::hostile_directory::{referral, result, tag};
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::vendor::Vendor;
use crate::harness::SOON;
use crate::http::Web;
use crate::search::{asked, searched};

/// What a directory says to every search.
type Lie = fn(u32) -> Vec<u8>;

/// Each of them is no answer.
const LIES: [(&str, Lie); 13] = [
    ("deep", |id| message(id, [&ber(tag::ENTRY, [ber(0x04, "cn=x"), nested(10_000)].concat())[..], &done(id)].concat())),
    ("deep-alone", |_| nested(10_000)),
    ("indefinite", |id| [&[0x30, 0x80][..], &message(id, ber(tag::DONE, "\n\x01\0\x04\0\x04\0"))[2..], &[0, 0]].concat()),
    ("indefinite-within", |id| message(id, [tag::ENTRY, 0x80, 0x04, 0, 0x30, 0x80, 0, 0, 0, 0])),
    ("four-gib", |_| vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x02, 1, 1]),
    ("too-large", |_| vec![0x30, 0x84, 0x01, 0x10, 0x00, 0x00, 0x02, 1, 1]),
    ("many-lengths", |_| vec![0x30, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("overrun", |id| message(id, [tag::ENTRY, 0x7f, 0x04, 0x7f, b'x'])),
    ("other-id", |id| [entry(id + 1, "cn=x", &[]), done(id + 1)].concat()),
    ("largest-id", |_| done(0x8000_0000)),
    ("other-operation", |id| result(id, tag::BOUND, 0)),
    ("no-ldap", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ("unasked", |id| [done(id), done(id)].concat()),
];

#[tokio::test]
async fn d7_what_a_directory_lies_costs_one_stream_and_nothing_else() {
    let vendor = Vendor::new();
    let mail: (&str, &[&[u8]]) = ("mail", &[b"alice@corp.example"]);
    let honest = move |Request { id, .. }| Answer::Send([entry(id, "cn=alice", &[mail]), done(id)].concat());
    let honest = HostileDirectory::secured(&vendor, honest).await;
    let mut targets = vec![("hr", ldaps(honest.address(), &vendor, ""))];
    let mut liars = Vec::new();
    for (name, lie) in LIES {
        let liar = HostileDirectory::secured(&vendor, move |request| Answer::Send(lie(request.id))).await;
        targets.push((name, ldaps(liar.address(), &vendor, "")));
        liars.push(liar);
    }
    let eager = HostileDirectory::eager(&vendor, &done(99)).await;
    targets.push(("eager", ldaps(eager.address(), &vendor, "")));
    let mut web = Web::new(&targets).await;
    let mut beside = TcpStream::connect(web.raw("hr")).await.unwrap();
    for (turn, (name, _)) in targets[1..].iter().enumerate() {
        let mut stream = TcpStream::connect(web.raw(name)).await.unwrap();
        stream.write_all(&asks_for(1, "cn=x")).await.unwrap();
        let mut said = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("a client is told, and let go");
        // The last that it hears is a notice of disconnection.
        assert!(said.ends_with(b"1.3.6.1.4.1.1466.20036"), "{name}: {}", String::from_utf8_lossy(&said));
        web.agent.audited("closed", |row| row["target"] == *name && row["code"] == "directory_invalid").await;
        if !matches!(*name, "unasked") {
            let (status, code, body) = searched(&web, name, &json!({"filter": "(cn=*)"})).await;
            assert_eq!((status, code.as_str()), (502, "directory_invalid"), "{name}: {body}");
        }
        let id = turn as u32 + 1;
        beside.write_all(&asks_for(id, "cn=alice")).await.unwrap();
        let alice = found(&mut beside, id).await;
        assert!(String::from_utf8_lossy(&alice).contains("alice@corp.example"), "after {name}");
    }
    assert!(web.agent.process().is_running());
    assert_eq!(honest.connections(), 1, "the stream beside was the same throughout");
}

#[tokio::test]
async fn d7_what_a_client_lies_costs_one_stream_and_nothing_else() {
    let vendor = Vendor::new();
    let honest = HostileDirectory::secured(&vendor, |Request { id, .. }| Answer::Send(done(id))).await;
    let mut web = Web::new(&[("hr", ldaps(honest.address(), &vendor, ""))]).await;
    let mut beside = TcpStream::connect(web.raw("hr")).await.unwrap();
    let nested_filter = {
        let inner = (0..10_000).fold(ber(0x87, "cn"), |filter, _| ber(0xa2, filter));
        let head = [ber(0x04, ""), vec![0x0a, 1, 2, 0x0a, 1, 0, 0x02, 1, 0, 0x02, 1, 0, 0x01, 1, 0]].concat();
        message(1, ber(tag::SEARCH, [head, inner, ber(0x30, "")].concat()))
    };
    let twice = {
        // Sent before the first is answered: a directory that has ended the first has been asked twice.
        let one = message(7, ber(tag::SEARCH, "no search"));
        [one.clone(), one].concat()
    };
    for (turn, lie) in [
        nested(10_000),
        nested_filter,
        vec![0x30, 0x80, 0x02, 1, 1],
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        asks_for(0x8000_0000, ""),
        asks_for(0, ""),
        twice,
        message(1, ber(0x7f, "what is this")),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(web.raw("hr")).await.unwrap();
        stream.write_all(&lie).await.unwrap();
        let mut said = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("a client is told, and let go");
        assert!(said.ends_with(b"1.3.6.1.4.1.1466.20036"), "{turn}: {}", String::from_utf8_lossy(&said));
        let ended = |row: &&serde_json::Value| row["event"] == "closed" && row["code"] == "ldap_invalid";
        let all = async || (web.agent.audit().iter().filter(ended).count() == turn + 1).then_some(());
        crate::harness::eventually("it is on record", SOON, all).await;
        let id = turn as u32 + 1;
        beside.write_all(&asks_for(id, "")).await.unwrap();
        found(&mut beside, id).await;
    }
    assert!(web.agent.process().is_running());
}

#[tokio::test]
async fn d7_endless_entries_stay_within_bounds_whether_or_not_anybody_reads_them() {
    let vendor = Vendor::new();
    let photo = vec![0xa5; 8 * 1024];
    let endless = move |Request { id, .. }| Answer::Endless(entry(id, "cn=again", &[("jpegPhoto", &[&photo])]));
    let endless = HostileDirectory::secured(&vendor, endless).await;
    let web = Web::new(&[("hr", ldaps(endless.address(), &vendor, ""))]).await;
    let before = web.agent.running().rss_kib();
    let grown = || web.agent.running().rss_kib().saturating_sub(before) / 1024;

    let mut stream = TcpStream::connect(web.raw("hr")).await.unwrap();
    stream.write_all(&asks_for(1, "")).await.unwrap();
    let mut block = vec![0; 1 << 20];
    for _ in 0..48 {
        timeout(SOON, stream.read_exact(&mut block)).await.expect("they come").unwrap();
        assert!(grown() < 32, "{} MiB more", grown());
    }
    // And now nobody reads.
    crate::harness::always("the agent holds what it has", std::time::Duration::from_secs(1), async || grown() < 32).await;
    let (status, code, _) = searched(&web, "hr", &json!({})).await;
    assert_eq!((status, code.as_str()), (422, "search_too_large"));
    assert!(grown() < 64, "{} MiB more", grown());
    let (status, _, lines) = asked(&web, "hr", &json!({"time_limit": 1}), "application/jsonl").await;
    assert_eq!(status, 200);
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "search_timeout", "{last}");
    assert!(grown() < 64, "{} MiB more", grown());
}

#[tokio::test]
async fn an_entry_of_megabytes_passes_whole_and_is_too_large_for_json() {
    let vendor = Vendor::new();
    let photo: Vec<u8> = crate::harness::target::pattern(5 << 20);
    let whole = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &photo);
    let large = move |Request { id, .. }| {
        let attributes: [(&str, &[&[u8]]); 2] = [("userPassword", &[b"secret"]), ("jpegPhoto", &[&photo])];
        Answer::Send([entry(id, "cn=large", &attributes), done(id)].concat())
    };
    let large = HostileDirectory::secured(&vendor, large).await;
    let web = Web::new(&[("hr", ldaps(large.address(), &vendor, ""))]).await;
    let said = Directory::at(web.raw("hr")).search(&["-b", "cn=large"]).await.ok();
    assert!(said == format!("dn: cn=large\njpegPhoto:: {whole}\n\n"), "{} bytes", said.len());
    let (status, code, _) = searched(&web, "hr", &json!({"base": "cn=large"})).await;
    assert_eq!((status, code.as_str()), (422, "search_too_large"));
}

#[tokio::test]
async fn d7_referrals_in_a_circle_are_not_followed() {
    let vendor = Vendor::new();
    let circle = HostileDirectory::secured(&vendor, |Request { id, .. }| {
        let again = "ldaps://127.0.0.1/dc=again";
        Answer::Send([entry(id, "cn=x", &[]), reference(id, again), referral(id, again)].concat())
    })
    .await;
    let pass = ldaps(circle.address(), &vendor, ", allow: {referrals: pass}");
    let web = Web::new(&[("hr", ldaps(circle.address(), &vendor, "")), ("more", pass)]).await;
    let dropped = Directory::at(web.raw("hr")).search(&["-b", "dc=x"]).await.exits(53);
    assert_eq!(
        (names(&dropped.stdout), dropped.stdout.contains("again"), dropped.stderr.contains("dc=again")),
        (1, false, false)
    );
    let passed = Directory::at(web.raw("more")).search(&["-b", "dc=x"]).await.exits(10);
    assert!(passed.stdout.contains("# refldaps://127.0.0.1/dc=again"), "{}", passed.stdout);
    assert_eq!(circle.connections(), 2);
    let (status, code, body) = searched(&web, "hr", &json!({"base": "dc=x"})).await;
    assert_eq!((status, code.as_str(), &body["result"]["name"]), (502, "", &json!("unwillingToPerform")));
    assert!(!body.to_string().contains("dc=again"), "{body}");
    assert_eq!(circle.connections(), 3);
}
