//! Revoking: every certificate of the agent, at once, for good.

use std::collections::BTreeMap;

use super::*;
use crate::base::id::{InstanceId, SessionId};
use crate::base::light::{Lamp, Lights, Serving, Tunnel};
use crate::control::agents::{Live, LiveSession};
use crate::control::records::{Agent, SerialRecord};

pub(in crate::control) struct Sessions(pub(in crate::control) Vec<LiveSession>);

impl Live for Sessions {
    fn sessions(&self) -> Vec<LiveSession> {
        self.0.clone()
    }
}

fn session(agent: &AgentId) -> LiveSession {
    LiveSession {
        agent: agent.clone(),
        session: SessionId::fresh(),
        lights: Lights { tunnel: Tunnel::Connected, agent: Lamp::new(Serving::Unknown).light(), targets: BTreeMap::new() },
        since: text::seconds(OffsetDateTime::now_utc()),
        peer: "203.0.113.7:4711".into(),
        lanes: 2,
        streams: 3,
        version: "0.1.0".into(),
        instance: InstanceId::fresh(),
        duplicate: false,
    }
}

#[tokio::test]
async fn agents_are_listed_with_their_certificates_and_sessions() {
    let gateway = Gateway::new().await;
    let two = gateway.enroll("acme/dc1/web-2").await;
    let one = gateway.enroll("acme/dc1/web-1").await;
    let live = session(&two.agent);
    let stranger = session(&"gone/gone/gone".parse().unwrap());
    let list = gateway.control.agents(&Sessions(vec![stranger, live.clone()])).await.unwrap();
    let names: Vec<_> = list.iter().map(|info| info.agent.to_string()).collect();
    assert_eq!(names, ["acme/dc1/web-1", "acme/dc1/web-2"]);
    assert_eq!((list[0].serial, list[0].not_after), (identity(&one).serial, one.not_after));
    assert!(list[0].sessions.is_empty() && list[0].revoked.is_none());
    assert_eq!(list.iter().map(|info| info.tunnel).collect::<Vec<_>>(), [Tunnel::Down, Tunnel::Connected]);
    assert_eq!(list[1].sessions, [live]);
}

#[tokio::test]
async fn revoking_an_agent_revokes_each_of_its_certificates_and_no_other() {
    let gateway = Gateway::new().await;
    let mine = [gateway.enroll("acme/dc1/web-1").await, gateway.enroll("acme/dc1/web-1").await];
    let other = gateway.enroll("acme/dc1/web-2").await;
    let mut changes = gateway.control.parts.revocations.subscribe();

    let done = gateway.control.revoke(&mine[0].agent, &admin()).await.unwrap();
    assert_eq!(done.serials, mine.each_ref().map(|enrolled| identity(enrolled).serial));
    assert!(done.audited && changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(mine.iter().all(|enrolled| gateway.is_revoked(identity(enrolled).serial)));
    assert!(!gateway.is_revoked(identity(&other).serial));
    let list = gateway.control.agents(&Sessions(Vec::new())).await.unwrap();
    assert_eq!(list.iter().map(|info| info.revoked.is_some()).collect::<Vec<_>>(), [true, false]);

    let again = gateway.control.revoke(&mine[0].agent, &admin()).await.unwrap();
    assert_eq!(again.serials, done.serials, "revoking twice is no error");
}

#[tokio::test]
async fn a_revocation_outlives_the_process_and_is_published_before_anything_is_served() {
    let gateway = Gateway::new().await;
    let enrolled = gateway.enroll("acme/dc1/web-1").await;
    gateway.control.revoke(&enrolled.agent, &admin()).await.unwrap();
    let gateway = gateway.restart(AUDIT_SIZE).await;
    assert!(gateway.is_revoked(identity(&enrolled).serial));
}

#[tokio::test]
async fn an_unknown_agent_cannot_be_revoked() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    assert_eq!(code(gateway.control.revoke(&"acme/dc1/web-9".parse().unwrap(), &admin()).await), Code::AgentUnknown);
    let rows = gateway.audit();
    let row = rows.last().unwrap();
    assert_eq!(
        (&row["event"], &row["on"], &row["code"]),
        (&"failed".into(), &"acme/dc1/web-9".into(), &"agent_unknown".into())
    );
}

#[tokio::test]
async fn a_used_token_gives_a_revoked_certificate_to_nobody_and_a_fresh_one_a_new_one() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let key = PrivateKey::generate().unwrap();
    let enrolled = gateway.try_enroll(ask_with(&token, &key, Some("web-1"))).await.unwrap();
    gateway.control.revoke(&enrolled.agent, &admin()).await.unwrap();
    assert_eq!(code(gateway.try_enroll(ask_with(&token, &key, Some("web-1"))).await), Code::Revoked);

    let fresh = gateway.enroll("acme/dc1/web-1").await;
    assert!(gateway.is_revoked(identity(&enrolled).serial) && !gateway.is_revoked(identity(&fresh).serial));
    assert_eq!(gateway.control.agents(&Sessions(Vec::new())).await.unwrap()[0].revoked, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_certificate_issued_while_its_agent_is_revoked_is_not_missed() {
    let gateway = Gateway::new().await;
    let agent: AgentId = "acme/dc1/web-1".parse().unwrap();
    gateway.enroll("acme/dc1/web-1").await;
    for _ in 0..20 {
        let caller = admin();
        let (revoked, enrolled) = tokio::join!(gateway.control.revoke(&agent, &caller), gateway.enroll("acme/dc1/web-1"));
        let (revoked, new) = (revoked.unwrap(), identity(&enrolled).serial);
        let record = records::get::<Agent>(gateway.control.store(), agent.to_string()).await.unwrap().unwrap().record;
        // Whichever came first: the record says of the latest certificate what the published set says.
        assert_eq!(record.serial, new);
        assert_eq!(revoked.serials.contains(&new), gateway.is_revoked(new));
        assert_eq!(record.revoked.is_some(), gateway.is_revoked(new));
        assert!(record.superseded.iter().all(|old| gateway.is_revoked(*old)), "all earlier ones are revoked");
    }
}

#[tokio::test]
async fn a_revocation_made_through_another_gateway_is_followed() {
    let gateway = Gateway::new().await;
    let enrolled = gateway.enroll("acme/dc1/web-1").await;
    let serial = identity(&enrolled).serial;
    let mut changes = gateway.control.parts.revocations.subscribe();
    let control = Arc::clone(&gateway.control);
    let following = async move { control.follow().await };
    let elsewhere = async {
        let kept = records::get::<SerialRecord>(gateway.control.store(), serial.to_string()).await.unwrap().unwrap().record;
        let at = OffsetDateTime::now_utc();
        let by = "another gateway".into();
        let revocation = Revocation { serial, agent: enrolled.agent.clone(), at, by, not_after: kept.not_after };
        let write = records::Record::put(&revocation, store::Expect::Absent);
        gateway.control.store().commit(vec![write]).await.unwrap();
        while !gateway.is_revoked(serial) {
            changes.changed().await.unwrap();
        }
    };
    tokio::select! {
        () = following => panic!("it ended"),
        followed = tokio::time::timeout(Duration::from_secs(30), elsewhere) => followed.expect("it is followed"),
    }
}

#[tokio::test]
async fn e8_a_clock_that_once_ran_ahead_makes_no_revoked_certificate_good_again() {
    let gateway = Gateway::new().await;
    let enrolled = gateway.enroll("acme/dc1/web-1").await;
    gateway.control.revoke(&enrolled.agent, &admin()).await.unwrap();
    gateway.control.sweep(enrolled.not_after + time::Duration::days(400)).await.unwrap();
    let gateway = gateway.restart(AUDIT_SIZE).await;
    assert!(gateway.is_revoked(identity(&enrolled).serial));
}
