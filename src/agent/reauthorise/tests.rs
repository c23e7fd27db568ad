//! What makes an agent give up a session that it has. Refuses to know sessions.

use std::sync::Arc;

use time::Duration;

use super::*;
use crate::agent::fixture::{agent, policy};
use crate::base::tasks::Tasks;
use crate::pki::authority::Authority;
use crate::tunnel::fixture::Rows;

/// An agent with a root of its own, and a session's grounds.
struct Site {
    agent: Arc<Agent>,
    rows: Rows,
    _tasks: Tasks,
    grounds: Grounds,
    dir: tempfile::TempDir,
}

fn root() -> CertificateDer<'static> {
    let dir = tempfile::tempdir().unwrap();
    Authority::init(dir.path(), &"test.example".parse().unwrap(), OffsetDateTime::now_utc()).unwrap().root().clone()
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let (mut agent, rows, tasks) = agent(policy(&[]), 9);
    Arc::get_mut(&mut agent).unwrap().settings.credential.root = dir.path().join("root.pem");
    let root = root();
    pem::save(&agent.settings.credential.root, [&root]).unwrap();
    let hour = OffsetDateTime::now_utc() + Duration::hours(1);
    let grounds = Grounds { serial: Serial::random().unwrap(), not_after: hour, gateway_not_after: hour, root };
    Site { agent, rows, _tasks: tasks, grounds, dir }
}

impl Site {
    fn code(&self, grounds: &Grounds) -> Option<Code> {
        reauthorise(&self.agent, SessionId::fresh(), grounds).err().map(|failure| failure.code)
    }
}

#[test]
fn s0_10_either_certificate_ends_the_session_once_streams_had_their_time() {
    let mut site = site();
    let grace = site.agent.settings.drain_timeout;
    let (now, later) = (OffsetDateTime::now_utc(), site.grounds.not_after);
    for (ago, code) in [(Duration::ZERO, None), (Duration::hours(1), Some(Code::CertificateExpired))] {
        assert!(Duration::hours(1) > grace);
        assert_eq!(site.code(&Grounds { not_after: now - ago, ..site.grounds.clone() }), code, "its own, {ago} ago");
        assert_eq!(
            site.code(&Grounds { gateway_not_after: now - ago, ..site.grounds.clone() }),
            code,
            "the gateway's, {ago} ago"
        );
    }
    assert!(!site.grounds.is_outlived() && site.grounds.until() == later);
    assert_eq!(site.rows.take(), ["reauthorised", "reauthorised"]);
}

#[test]
fn s3_another_root_on_the_disk_ends_sessions_of_the_old_one_and_a_disk_that_fails_ends_none() {
    let mut site = site();
    assert_eq!(site.code(&site.grounds), None);
    std::fs::remove_file(&site.agent.settings.credential.root).unwrap();
    assert_eq!(site.code(&site.grounds), None, "nothing says that it is trusted no more");
    pem::save(&site.dir.path().join("root.pem"), [&root()]).unwrap();
    assert_eq!(site.code(&site.grounds), Some(Code::TrustChanged));
    assert_eq!(site.rows.take(), ["reauthorised", "reauthorised"]);
}
