//! What a session's lanes have shown, and what follows from it. Refuses to know sessions' ends.

use time::Duration;

use super::*;
use crate::gateway::fixture::{agent, gateway};

fn certificate(hours: i64) -> Certificate {
    Certificate { serial: Serial::random().unwrap(), not_after: OffsetDateTime::now_utc() + Duration::hours(hours) }
}

#[tokio::test]
async fn s0_10_the_first_end_of_its_lanes_certificates_is_the_sessions() {
    let ((gateway, mut rows, _tasks), agent) = (gateway(), agent("a", &[]).await);
    let (live, code) = (&agent.live, |live: &Live| reauthorise(&gateway, live).err().map(|failure| failure.code));
    assert_eq!(code(live), None);
    let short = certificate(1);
    live.certificates().shown(1, short);
    assert_eq!((live.certificates().until(), code(live)), (short.not_after, None));
    live.certificates().shown(1, certificate(-1));
    assert_eq!(code(live), Some(Code::CertificateExpired));
    live.certificates().forget(1);
    assert_eq!(code(live), None);
    let (began, renewed) = (live.certificates().first(), certificate(2));
    live.certificates().shown(0, renewed);
    assert_eq!(live.certificates().until(), renewed.not_after, "resumed with another certificate");
    gateway.revocations.publish([began.serial].into());
    assert_eq!(code(live), None, "the one that it shows no more");
    gateway.revocations.publish([renewed.serial].into());
    assert_eq!(code(live), Some(Code::Revoked));
    assert_eq!(rows.take(), ["reauthorised"; 4]);
}
