//! Client tokens: what is published when, who may have which name, and what outlives what.

use futures_util::FutureExt;

use super::*;
use crate::base::grant::Grants;
use crate::base::limits;
use crate::control::clients::{ClientTokenState, ClientWish, NewClientToken};
use crate::control::records::{ClientToken, Record};
use crate::control::store::Expect;
use crate::gateway::callers::{Caller as KnownCaller, token_hash};
use crate::gateway::quota::Limits;

pub(super) fn wish(name: Option<&str>, grants: &[&str]) -> ClientWish {
    ClientWish {
        name: name.map(self::name),
        grants: Grants::new(grants.iter().map(|text| text.parse().unwrap()).collect()).unwrap(),
        limits: Limits::default(),
        ttl: Some(Duration::from_secs(3600)),
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

impl Gateway {
    pub(super) async fn client_token(&self, name: &str) -> NewClientToken {
        self.control.create_client_token(&wish(Some(name), &["acme/dc1/*"]), &admin()).await.unwrap()
    }

    /// As a listener does it.
    pub(super) fn login(&self, token: &Secret) -> Result<Arc<KnownCaller>, Failure> {
        self.control.parts.callers.login(token.expose(), OffsetDateTime::now_utc())
    }

    async fn states(&self) -> Vec<(String, ClientTokenState)> {
        let list = self.control.client_tokens().await.unwrap();
        list.into_iter().map(|info| (info.name.to_string(), info.state)).collect()
    }
}

fn state(name: &str, state: ClientTokenState) -> (String, ClientTokenState) {
    (name.to_owned(), state)
}

/// A token's record as another gateway would write it.
fn record(name: &str, text: &str, expires: Option<OffsetDateTime>) -> ClientToken {
    ClientToken {
        name: self::name(name),
        sha256: token_hash(text),
        grants: wish(None, &["acme/dc1/*"]).grants,
        max_streams: None,
        rate: None,
        created: OffsetDateTime::UNIX_EPOCH,
        expires,
        by: "another gateway".into(),
        revoked: None,
    }
}

/// Keeps records without telling this gateway.
async fn keep(gateway: &Gateway, records: &[ClientToken]) {
    let batch = records.iter().map(|record| record.put(Expect::Anything)).collect();
    gateway.control.store().commit(batch).await.unwrap();
}

#[tokio::test]
async fn a_client_token_logs_in_once_it_is_made_and_no_more_once_it_is_revoked() {
    let gateway = Gateway::new().await;
    let limits = Limits { max_streams: Some(3), rate: std::num::NonZeroU32::new(1 << 20) };
    let made = gateway.control.create_client_token(&ClientWish { limits, ..wish(Some("ci"), &["acme/dc1/*"]) }, &admin()).await;
    let made = made.unwrap();
    let other = gateway.client_token("ops").await;
    let caller = gateway.login(&made.token).unwrap();
    assert_eq!((caller.name(), caller.quota().limits()), ("token ci", limits));
    assert!(caller.may(&"acme/dc1/db".parse().unwrap()).is_ok() && caller.may(&"acme/dc2/db".parse().unwrap()).is_err());

    let (kept, id) = (gateway.login(&other.token).unwrap(), made.info.id.clone());
    let done = gateway.control.revoke_client_token(&name("ci"), &admin()).await.unwrap();
    assert_eq!((done.name.as_str(), &done.id, done.audited), ("ci", &id, true));
    assert!(caller.revoked().now_or_never().is_some(), "its streams are cut before the answer");
    assert_eq!(code(gateway.login(&made.token)), Code::LoginFailed);
    assert!(kept.revoked().now_or_never().is_none() && gateway.login(&other.token).is_ok(), "no other's are");
    assert_eq!(gateway.states().await, [state("ci", ClientTokenState::Revoked), state("ops", ClientTokenState::Active)]);
    let again = gateway.control.revoke_client_token(&name("ci"), &admin()).await.unwrap();
    assert_eq!(again, done, "revoking twice is no error");
    assert_eq!(code(gateway.control.revoke_client_token(&name("nobody"), &admin()).await), Code::ClientTokenUnknown);
}

#[tokio::test]
async fn client_tokens_and_their_revocations_outlive_the_process() {
    let gateway = Gateway::new().await;
    let (kept, gone) = (gateway.client_token("kept").await, gateway.client_token("gone").await);
    gateway.control.revoke_client_token(&name("gone"), &admin()).await.unwrap();
    let before = gateway.control.client_tokens().await.unwrap();
    let gateway = gateway.restart(AUDIT_SIZE).await;
    assert_eq!(gateway.login(&kept.token).unwrap().name(), "token kept");
    assert_eq!(code(gateway.login(&gone.token)), Code::LoginFailed);
    assert_eq!(gateway.control.client_tokens().await.unwrap(), before);
}

#[tokio::test]
async fn a_name_is_one_tokens_until_that_has_ended() {
    let gateway = Gateway::new().await;
    let first = gateway.client_token("ci").await;
    let again = wish(Some("ci"), &["acme/dc2/*"]);
    let refused = gateway.control.create_client_token(&again, &admin()).await.unwrap_err();
    assert_eq!((refused.code, refused.detail.as_str()), (Code::ClientTokenExists, "`ci`"));
    assert!(gateway.login(&first.token).is_ok(), "the first one is as it was");

    gateway.control.revoke_client_token(&name("ci"), &admin()).await.unwrap();
    let second = gateway.control.create_client_token(&again, &admin()).await.unwrap();
    assert!(gateway.login(&first.token).is_err());
    assert!(gateway.login(&second.token).unwrap().may(&"acme/dc2/db".parse().unwrap()).is_ok());
    // The id of the first one is nobody's: whoever revokes by it can't hit the second.
    let unknown = gateway.control.revoke_client_token(&name(&first.info.id), &admin()).await;
    assert_eq!(code(unknown), Code::ClientTokenUnknown);
    gateway.control.revoke_client_token(&name(&second.info.id), &admin()).await.unwrap();
    assert!(gateway.login(&second.token).is_err());

    let past = OffsetDateTime::now_utc() - time::Duration::minutes(1);
    keep(&gateway, &[record("old", "expired", Some(past))]).await;
    assert!(gateway.login(&gateway.client_token("old").await.token).is_ok());
}

#[tokio::test]
async fn a_name_is_never_taken_for_another_tokens_id() {
    let gateway = Gateway::new().await;
    let refused = gateway.control.create_client_token(&wish(Some("0123456789abcdef"), &["acme/dc1/*"]), &admin()).await;
    assert_eq!(code(refused), Code::Usage);
    gateway.client_token("0123456789abcde").await;
    gateway.client_token("0123456789abcdeg").await;

    // Of a version that allowed it.
    let made = gateway.client_token("ci").await;
    let (ci, id) = (made.token, made.info.id);
    let like_it = record(&id, "another", None);
    keep(&gateway, std::slice::from_ref(&like_it)).await;
    let failure = gateway.control.revoke_client_token(&name(&id), &admin()).await.unwrap_err();
    let (code, said) = (failure.code, failure.detail);
    assert!(code == Code::Usage && said.contains(&format!("say `{}`", like_it.public_id())) && said.contains("`ci`"), "{said}");
    assert!(gateway.login(&ci).is_ok());
    gateway.control.revoke_client_token(&name(&like_it.public_id()), &admin()).await.unwrap();
    assert!(gateway.login(&ci).is_ok());
    gateway.control.revoke_client_token(&name("ci"), &admin()).await.unwrap();
    assert!(gateway.login(&ci).is_err());
}

#[tokio::test]
async fn a_token_without_a_name_gets_one_of_its_own() {
    let gateway = Gateway::new().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let info = gateway.control.create_client_token(&wish(None, &["*/*/*"]), &admin()).await.unwrap().info;
        assert_eq!(info.name.as_str(), format!("client-{}", &info.id[..8]));
        names.insert(info.name);
    }
    assert_eq!(names.len(), 5);
}

#[tokio::test]
async fn parts_of_grants_that_nobody_has_made_are_named() {
    let gateway = Gateway::new().await;
    gateway.token("acme/dc1").await;
    let granted =
        ["acme/dc1/db", "acme/dc1/*", "acme/*/db", "*/*/*", "*/dc1/db", "acme/dc2/a", "acme/dc2/b", "acm/dc1/*", "*/dc2/*"];
    let made = gateway.control.create_client_token(&wish(None, &granted), &admin()).await.unwrap();
    assert_eq!(made.unknown, ["group */dc2", "group acme/dc2", "tenant acm"]);
}

#[tokio::test]
async fn what_has_ended_stays_listed_for_a_while_and_then_goes() {
    let gateway = Gateway::new().await;
    let now = OffsetDateTime::now_utc();
    gateway.client_token("active").await;
    gateway.client_token("revoked").await;
    gateway.control.revoke_client_token(&name("revoked"), &admin()).await.unwrap();
    keep(&gateway, &[record("expired", "x", Some(now - time::Duration::minutes(1))), record("forever", "y", None)]).await;
    let active = state("active", ClientTokenState::Active);
    let forever = state("forever", ClientTokenState::Active);
    let ended = [state("expired", ClientTokenState::Expired), state("revoked", ClientTokenState::Revoked)];
    let all = [active.clone(), ended[0].clone(), forever.clone(), ended[1].clone()];
    gateway.control.sweep(now + time::Duration::days(29)).await.unwrap();
    assert_eq!(gateway.states().await, all);
    gateway.control.sweep(now + time::Duration::days(31)).await.unwrap();
    assert_eq!(gateway.states().await.as_slice(), &all[2..3], "that of an hour has ended by then, too");
}

#[tokio::test]
async fn i5_an_expired_token_is_refused_and_the_audit_can_tell_it_from_an_unknown_one() {
    let gateway = Gateway::new().await;
    keep(&gateway, &[record("old", "its text", Some(OffsetDateTime::now_utc() - time::Duration::minutes(1)))]).await;
    let gateway = gateway.restart(AUDIT_SIZE).await;
    let (expired, unknown) = (gateway.login(&secret("its text")).unwrap_err(), gateway.login(&secret("another")).unwrap_err());
    assert_eq!((expired.code, unknown.code), (Code::LoginFailed, Code::LoginFailed));
    assert!(expired.detail.contains("token old has expired"), "{expired}");
}

#[tokio::test]
async fn there_are_so_many_and_those_that_have_ended_make_room_for_new_ones() {
    let gateway = Gateway::new().await;
    let all: Vec<_> = (0..limits::MAX_CLIENT_TOKENS).map(|n| record(&format!("t{n}"), &n.to_string(), None)).collect();
    keep(&gateway, &all).await;
    let gateway = gateway.restart(AUDIT_SIZE).await;
    let refused = gateway.control.create_client_token(&wish(Some("more"), &["a/b/c"]), &admin()).await.unwrap_err();
    assert_eq!(refused.code, Code::Usage);
    assert!(refused.detail.contains("10000 client tokens"), "{refused}");
    for ended in ["t7", "t6"] {
        gateway.control.revoke_client_token(&name(ended), &admin()).await.unwrap();
    }
    let revoked = OffsetDateTime::now_utc() - time::Duration::days(1);
    keep(&gateway, &[ClientToken { revoked: Some(revoked), ..record("t6", "6", None) }]).await;
    let made = gateway.client_token("more").await;
    assert!(gateway.login(&made.token).is_ok() && gateway.login(&secret("9999")).is_ok());
    let names: std::collections::BTreeSet<_> = gateway.states().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), limits::MAX_CLIENT_TOKENS);
    assert!(!names.contains("t6") && names.contains("t7"), "the one that ended first went");
}

#[tokio::test]
async fn a_change_made_through_another_gateway_is_followed() {
    let gateway = Gateway::new().await;
    let made = gateway.client_token("ci").await;
    let caller = gateway.login(&made.token).unwrap();
    let following = {
        let control = Arc::clone(&gateway.control);
        async move { control.follow().await }
    };
    let elsewhere = async {
        let mine = records::get::<ClientToken>(gateway.control.store(), "ci").await.unwrap().unwrap().record;
        keep(&gateway, &[ClientToken { revoked: Some(OffsetDateTime::now_utc()), ..mine }]).await;
        caller.revoked().await;
        keep(&gateway, &[record("new", "made elsewhere", None)]).await;
        while gateway.login(&secret("made elsewhere")).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = following => panic!("it ended"),
        followed = tokio::time::timeout(Duration::from_secs(30), elsewhere) => followed.expect("it is followed"),
    }
    assert!(gateway.login(&made.token).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_who_want_a_name_one_gets_it_and_what_is_published_is_what_is_kept() {
    let gateway = Gateway::new().await;
    for round in 1..=20 {
        let (caller, wished) = (admin(), format!("ci-{round}"));
        let wish = wish(Some(&wished), &["acme/dc1/*"]);
        let make = || gateway.control.create_client_token(&wish, &caller);
        let earlier = name(&format!("ci-{}", round - 1));
        let (one, two, _) = tokio::join!(make(), make(), gateway.control.revoke_client_token(&earlier, &caller));
        let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
        assert_eq!(code(lost), Code::ClientTokenExists);
        assert!(gateway.login(&won.unwrap().token).is_ok());
    }
    let published = |gateway: &Gateway| {
        let mut names: Vec<_> = gateway.control.client_tokens.try_lock().unwrap().keys().map(Name::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(published(&gateway), ["ci-20"]);
    assert_eq!(published(&gateway.restart(AUDIT_SIZE).await), ["ci-20"]);
}
