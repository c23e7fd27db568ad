//! Directories that are gone, that are not who they should be, and those that take StartTLS. Refuses to know what is searched.

use std::net::SocketAddr;

use super::{ldaps, names, start_tls};
use crate::fixtures::hostile_directory::{Answer, HostileDirectory, Request, done, result, tag};
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::slapd::{SUFFIX, Slapd, person};
use crate::fixtures::vendor::Vendor;
use crate::harness::{free_port, loopback};
use crate::http::Web;
use crate::search::searched;

/// Searches a target by raw bytes and by a post, neither of which may succeed, and yields the post's code.
async fn refused(web: &Web, target: &str) -> String {
    let raw = Directory::at(web.raw(target)).search(&["-b", SUFFIX, "-s", "base"]).await;
    assert_eq!((raw.status.success(), names(&raw.stdout)), (false, 0), "{target}");
    let (status, code, body) = searched(web, target, &serde_json::json!({"base": SUFFIX})).await;
    assert!(status >= 500, "{target}: {status} {body}");
    web.agent.audited("refused", |row| row["target"] == target && row["code"] == code.as_str()).await;
    code
}

#[tokio::test]
async fn when_the_first_directory_stops_the_second_serves() {
    let vendor = Vendor::new();
    let (mut first, mut second) = (Slapd::start(&vendor).await, Slapd::start(&vendor).await);
    let alternates = |at: SocketAddr| format!(", alternates: [\"ldaps://{at}\"]");
    let web = Web::new(&[("hr", ldaps(first.ldaps(), &vendor, &alternates(second.ldaps())))]).await;
    let serves = async || {
        let found = Directory::at(web.raw("hr")).search(&["-b", &person(1), "-s", "base", "mail"]).await.ok();
        assert!(found.contains("u0001@"), "{found}");
        let (status, code, found) = searched(&web, "hr", &serde_json::json!({"base": person(1), "scope": "base"})).await;
        assert_eq!((status, code.as_str(), found["count"].as_u64()), (200, "", Some(1)));
    };
    serves().await;
    first.stop();
    serves().await;
    second.stop();
    assert_eq!(refused(&web, "hr").await, "target_refused");
    first.restart().await;
    serves().await;
}

#[tokio::test]
async fn e7_a_directory_is_believed_by_its_certificate_alone() {
    let (vendor, other) = (Vendor::new(), Vendor::new());
    let directory = HostileDirectory::secured(&vendor, |request| Answer::Send(result(request.id, tag::DONE, 0))).await;
    let at = directory.address();
    let misnamed = ldaps(at, &vendor, "").replace("server_name: vendor.test", "server_name: other.test");
    let web = Web::new(&[("hr", ldaps(at, &vendor, "")), ("untrusted", ldaps(at, &other, "")), ("misnamed", misnamed)]).await;
    assert_eq!(refused(&web, "untrusted").await, "target_tls_untrusted");
    assert_eq!(refused(&web, "misnamed").await, "target_tls_name_mismatch");
    Directory::at(web.raw("hr")).search(&["-b", SUFFIX]).await.ok();
}

#[tokio::test]
async fn e7_start_tls_is_taken_and_stripped_or_injected_it_is_refused() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let stripped = HostileDirectory::clear(|request| Answer::Send(result(request.id, tag::EXTENDED, 52))).await;
    let ends = |request: Request| Answer::Send(done(request.id));
    let upgraded = HostileDirectory::upgraded(&vendor, &[], ends).await;
    // The directory is who it should be; somebody in between has put an answer before its TLS.
    let injected = HostileDirectory::upgraded(&vendor, &done(2), ends).await;
    // It says that TLS begins, and goes on in the clear.
    let pretended = HostileDirectory::clear(|request| match request.tag {
        0x77 => Answer::Send(result(request.id, tag::EXTENDED, 0)),
        _ => Answer::Send(result(request.id, tag::DONE, 0)),
    })
    .await;
    let web = Web::new(&[
        ("hr", start_tls(slapd.ldap(), &vendor, "")),
        ("stripped", start_tls(stripped.address(), &vendor, "")),
        ("upgraded", start_tls(upgraded.address(), &vendor, "")),
        ("injected", start_tls(injected.address(), &vendor, "")),
        ("pretended", start_tls(pretended.address(), &vendor, "")),
        ("nobody", start_tls(loopback(free_port()), &vendor, "")),
        // LDAPS to a port that speaks in the clear.
        ("clear", ldaps(slapd.ldap(), &vendor, "")),
    ])
    .await;
    let found = Directory::at(web.raw("hr")).search(&["-b", &person(1), "-s", "base", "mail"]).await.ok();
    assert!(found.contains("u0001@"), "{found}");
    let (status, ..) = searched(&web, "hr", &serde_json::json!({"base": person(1)})).await;
    assert_eq!(status, 200);
    assert_eq!(searched(&web, "upgraded", &serde_json::json!({})).await.0, 200);
    for target in ["stripped", "injected", "pretended", "clear"] {
        assert_eq!(refused(&web, target).await, "target_tls_failed", "{target}");
    }
    assert_eq!(refused(&web, "nobody").await, "target_refused");
}
