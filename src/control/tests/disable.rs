//! Disabling: whom it covers, and that it is no revocation.

use super::*;
use crate::base::scope::Scope;
use crate::control::disable::DisabledScope;
use crate::control::records::{self, Disabled};
use crate::control::tests::agents::Sessions;

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

impl Gateway {
    fn is_disabled(&self, agent: &str) -> bool {
        self.control.parts.revocations.disables(&agent.parse().unwrap())
    }
}

#[tokio::test]
async fn s0_10_an_agent_a_group_or_a_tenant_is_disabled_until_it_is_enabled() {
    let gateway = Gateway::new().await;
    let enrolled = gateway.enroll("acme/dc1/web-1").await;
    gateway.enroll("acme/dc2/web-1").await;
    gateway.enroll("other/dc1/web-1").await;
    for (text, covered) in
        [("acme/dc1/web-1", [true, false, false]), ("acme/dc1", [true, false, false]), ("acme", [true, true, false])]
    {
        let mut changes = gateway.control.parts.revocations.subscribe();
        let done = gateway.control.disable(&scope(text), &admin()).await.unwrap();
        assert!(done.disabled.is_some() && done.audited && changes.has_changed().unwrap(), "{text}");
        let disabled = ["acme/dc1/web-1", "acme/dc2/web-1", "other/dc1/web-1"].map(|agent| gateway.is_disabled(agent));
        assert_eq!(disabled, covered, "{text}");
        let again = gateway.control.disable(&scope(text), &admin()).await.unwrap();
        assert_eq!(again.disabled, done.disabled, "since then");
        let list = gateway.control.agents(&Sessions(Vec::new())).await.unwrap();
        assert_eq!(list[0].disabled, [DisabledScope { scope: scope(text), since: done.disabled.unwrap() }]);
        changes.mark_unchanged();
        let done = gateway.control.enable(&scope(text), &admin()).await.unwrap();
        assert!(done.disabled.is_none() && changes.has_changed().unwrap() && !gateway.is_disabled("acme/dc1/web-1"));
        let again = gateway.control.enable(&scope(text), &admin()).await.unwrap();
        assert_eq!((done.changed, again.changed), (true, false), "{text}");
    }
    assert!(!gateway.is_revoked(identity(&enrolled).serial), "its certificate counts");
    let rows = gateway.audit();
    let count = |event: &str| rows.iter().filter(|row| row["event"] == event).count();
    assert_eq!((count("agents_disabled"), count("agents_enabled")), (3, 3), "what changes nothing is no row");
}

#[tokio::test]
async fn whoever_enables_is_told_what_keeps_the_agents_out_still() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    let set = async |text: &str, out: bool| {
        let control = &gateway.control;
        let (scope, admin) = (scope(text), admin());
        let done = if out { control.disable(&scope, &admin).await } else { control.enable(&scope, &admin).await }.unwrap();
        (done.changed, done.within.into_iter().map(|wider| wider.scope.to_string()).collect::<Vec<_>>())
    };
    for text in ["acme/dc1", "acme", "acme/dc1/web-1"] {
        assert!(set(text, true).await.0, "{text}");
    }
    let list = gateway.control.agents(&Sessions(Vec::new())).await.unwrap();
    let by: Vec<_> = list[0].disabled.iter().map(|disabled| disabled.scope.to_string()).collect();
    assert_eq!(by, ["acme", "acme/dc1", "acme/dc1/web-1"]);
    assert_eq!(set("acme/dc1/web-1", false).await, (true, vec!["acme".to_owned(), "acme/dc1".to_owned()]));
    assert_eq!(set("acme/dc1/web-1", false).await, (false, vec!["acme".to_owned(), "acme/dc1".to_owned()]));
    assert_eq!(set("acme/dc1", false).await, (true, vec!["acme".to_owned()]));
    assert!(gateway.is_disabled("acme/dc1/web-1"));
    assert_eq!(set("acme", false).await, (true, Vec::new()));
    assert!(!gateway.is_disabled("acme/dc1/web-1"));
}

#[tokio::test]
async fn who_is_disabled_is_so_after_a_restart_and_also_with_a_full_audit() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    let gateway = gateway.restart(1).await;
    let done = gateway.control.disable(&scope("acme"), &admin()).await.unwrap();
    assert!(!done.audited && gateway.is_disabled("acme/dc1/web-1"));
    assert_eq!(code(gateway.control.enable(&scope("acme"), &admin()).await), Code::AuditFull);
    let gateway = gateway.restart(AUDIT_SIZE).await;
    assert!(gateway.is_disabled("acme/dc1/web-1"), "before anything is served");
    assert!(gateway.control.enable(&scope("acme"), &admin()).await.is_ok() && !gateway.is_disabled("acme/dc1/web-1"));
}

#[tokio::test]
async fn what_is_mistyped_is_told_and_disables_nothing() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    for (text, unknown) in [
        ("acme/dc1/web-9", "agent `acme/dc1/web-9`"),
        ("acme/dc9", "group `acme/dc9`"),
        ("acme/dc9/web-1", "group `acme/dc9`"),
        ("amce", "tenant `amce`"),
        ("amce/dc1", "tenant `amce`"),
    ] {
        let failure = gateway.control.disable(&scope(text), &admin()).await.unwrap_err();
        assert_eq!((failure.code, failure.detail), (Code::AgentUnknown, format!("there is no {unknown}")), "{text}");
    }
    assert!(!gateway.is_disabled("acme/dc1/web-1"));
}

#[tokio::test]
async fn nothing_is_committed_while_an_earlier_change_is_yet_to_be_published() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    // As an earlier change has it from its commit to what it publishes: a later one that came between would be undone by it.
    let earlier = gateway.control.disabled.lock().await;
    let (scope, by) = (scope("acme"), admin());
    let later = gateway.control.disable(&scope, &by);
    tokio::pin!(later);
    for _ in 0..20 {
        // The store does one thing after the other, so that all that `later` asks of it is done within some of these.
        tokio::select! {
            biased;
            _ = &mut later => panic!("it was published before the one that came first"),
            stored = records::list::<Disabled>(gateway.control.store()) => assert!(stored.unwrap().is_empty()),
        }
    }
    drop(earlier);
    assert!(later.await.unwrap().disabled.is_some() && gateway.is_disabled("acme/dc1/web-1"));
}
