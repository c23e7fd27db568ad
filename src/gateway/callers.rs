//! Callers: who may open streams, to which targets, and how much of them; the published set of those who show a token.
//! It refuses to know who makes tokens, how they are kept, and how they are shown.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::quota::{Limits, Quota};
use crate::base::code::{Code, Failure};
use crate::base::grant::Grants;
use crate::base::id::TargetId;
use crate::base::secret::constant_time_eq;

/// How late a token's streams may end after it has expired.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

/// How often the wall clock is looked at while a certificate's end is waited for.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// SHA-256 of a token's text: what is kept of it. Of 256 random bits a plain hash is enough.
pub type TokenHash = [u8; 32];

/// The hash of a token's text.
#[must_use]
pub fn token_hash(text: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// Whoever opens streams.
pub struct Caller {
    /// As audits name it, such as `token ci` or `listener 127.0.0.1:5432`.
    name: String,
    grants: ArcSwap<Grants>,
    /// What it uses of its own limits.
    quota: Arc<Quota>,
    cut: Cut,
}

impl Caller {
    /// A caller without limits of its own unless some are given.
    #[must_use]
    pub fn new(name: String, grants: Grants, limits: Limits) -> Self {
        let quota = Quota::new("the caller");
        quota.limit(limits);
        Self { name, grants: ArcSwap::from_pointee(grants), quota, cut: Cut::default() }
    }

    /// As audits name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it uses of its limits.
    #[must_use]
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Takes the rights of another of the same name, if it loses none of its grants by that: then its streams may go on.
    #[must_use]
    pub fn becomes(&self, other: &Self) -> bool {
        let (own, new) = (self.grants.load(), other.grants.load_full());
        let grows = self.name == other.name && own.iter().all(|grant| new.iter().any(|other| other == grant));
        if grows {
            self.grants.store(new);
            self.quota.limit(other.quota.limits());
        }
        grows
    }

    /// Whether it may reach a target. The answer is the same for a target that doesn't exist.
    ///
    /// # Errors
    /// `not_granted`.
    pub fn may(&self, target: &TargetId) -> Result<(), Failure> {
        if self.grants.load().cover(target) {
            return Ok(());
        }
        Err(Failure::new(Code::NotGranted, format_args!("{} is not granted {target}", self.name)))
    }

    /// Ends its streams, and those it begins from now on.
    pub fn revoke(&self) {
        self.cut.set();
    }

    /// Whether it is revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.cut.said.load(Ordering::Acquire)
    }

    /// Ends when it is revoked.
    pub async fn revoked(&self) {
        self.cut.wait().await;
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A word that is said once, to many who wait for it while they do something else: asking again costs them one load.
#[derive(Default)]
struct Cut {
    said: AtomicBool,
    told: Notify,
}

impl Cut {
    fn set(&self) {
        self.said.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    async fn wait(&self) {
        let mut told = pin!(self.told.notified());
        let mut waits: Option<Waker> = None;
        poll_fn(|cx| {
            if !waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                waits = Some(cx.waker().clone());
                // Before the flag is looked at, so that a word said in between is not missed.
                let _ = told.as_mut().poll(cx);
            }
            if self.said.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Ends when that time has come. The wall clock may jump, so it is looked at again and again.
pub(super) async fn passes(at: OffsetDateTime) {
    while let Ok(left) = Duration::try_from(at - OffsetDateTime::now_utc()) {
        tokio::time::sleep(left.min(CLOCK_CHECK) + Duration::from_millis(1)).await;
    }
}

/// A token as its issuer publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedToken {
    /// The hash of its text.
    pub hash: TokenHash,
    /// Its caller's name.
    pub name: String,
    /// What it may reach.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// When it ends.
    pub expires: Option<OffsetDateTime>,
}

/// The published tokens; clones see the same ones. A login takes no lock.
#[derive(Clone, Default)]
pub struct Callers {
    tokens: Arc<ArcSwap<Tokens>>,
    publishing: Arc<Mutex<()>>,
}

/// By the first half of their hashes, so that the second can be compared in constant time.
type Tokens = HashMap<[u8; 16], Arc<Known>>;

struct Known {
    token: PublishedToken,
    caller: Arc<Caller>,
}

impl Known {
    fn new(token: PublishedToken) -> Arc<Self> {
        let caller = Caller::new(format!("token {}", token.name), token.grants.clone(), token.limits);
        Arc::new(Self { token, caller: Arc::new(caller) })
    }
}

impl Callers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the whole set. Tokens that are in it no more, or are others, have their streams cut before this returns; those that stay the same
    /// keep theirs, and what they use.
    pub fn publish(&self, tokens: Vec<PublishedToken>) {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.tokens.load_full();
        let known = tokens.into_iter().map(|token| {
            let key = half(&token.hash);
            let same = old.get(&key).filter(|known| known.token == token && !known.caller.is_revoked());
            (key, same.cloned().unwrap_or_else(|| Known::new(token)))
        });
        let new: Tokens = known.collect();
        self.tokens.store(Arc::new(new.clone()));
        for (key, known) in old.iter() {
            if !new.get(key).is_some_and(|other| Arc::ptr_eq(known, other)) {
                known.caller.revoke();
            }
        }
    }

    /// Whose token this is. Whatever the text is, it is hashed as a whole and compared once, so the time tells nothing about it.
    ///
    /// # Errors
    /// `login_failed`, for a token that nobody knows as for one that has expired; the detail, which is for the audit, tells them apart.
    pub fn login(&self, text: &str, now: OffsetDateTime) -> Result<Arc<Caller>, Failure> {
        let hash = token_hash(text);
        let tokens = self.tokens.load();
        let found = tokens.get(&half(&hash));
        let kept = found.map_or(&[0; 32], |known| &known.token.hash);
        let same = constant_time_eq(kept, &hash);
        let refused = |why: &dyn fmt::Display| Err(Failure::new(Code::LoginFailed, why));
        match found {
            Some(known) if same => match known.token.expires {
                Some(expires) if expires <= now => refused(&format_args!("{} has expired at {expires}", known.caller.name)),
                _ if known.caller.is_revoked() => Ok(self.renew(known)),
                _ => Ok(known.caller.clone()),
            },
            _ => refused(&"an unknown token, perhaps a revoked one"),
        }
    }

    /// The caller of a token that had expired by a clock which has been set back since. One that was published no more stays cut.
    fn renew(&self, expired: &Known) -> Arc<Caller> {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = half(&expired.token.hash);
        let mut tokens = Tokens::clone(&self.tokens.load());
        match tokens.get_mut(&key) {
            Some(known) if known.token == expired.token => {
                if known.caller.is_revoked() {
                    *known = Known::new(known.token.clone());
                }
                let caller = known.caller.clone();
                self.tokens.store(Arc::new(tokens));
                caller
            }
            _ => expired.caller.clone(),
        }
    }

    /// Cuts the streams of tokens as they expire. Runs until it is dropped.
    pub async fn expire(&self) {
        let mut tick = tokio::time::interval(EXPIRY_CHECK);
        loop {
            tick.tick().await;
            self.cut_expired(OffsetDateTime::now_utc());
        }
    }

    fn cut_expired(&self, now: OffsetDateTime) {
        let tokens = self.tokens.load();
        let expired = tokens.values().filter(|known| known.token.expires.is_some_and(|expires| expires <= now));
        expired.for_each(|known| known.caller.revoke());
    }
}

fn half(hash: &TokenHash) -> [u8; 16] {
    *hash.first_chunk().expect("32 bytes have a first half")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn token(text: &str, name: &str) -> PublishedToken {
        let grants = Grants::new(vec!["acme/dc1/*".parse().unwrap()]).unwrap();
        PublishedToken { hash: token_hash(text), name: name.to_owned(), grants, limits: Limits::default(), expires: None }
    }

    #[test]
    fn a_token_logs_its_caller_in_for_what_it_is_granted() {
        let (callers, now) = (Callers::new(), OffsetDateTime::now_utc());
        callers.publish(vec![token("one", "ci"), token("two", "ops")]);
        let caller = callers.login("two", now).unwrap();
        assert_eq!(caller.name(), "token ops");
        assert!(caller.may(&"acme/dc1/db".parse().unwrap()).is_ok());
        assert_eq!(caller.may(&"acme/dc2/db".parse().unwrap()).unwrap_err().code, Code::NotGranted);
        for text in ["", "on", "one ", "three", &"x".repeat(10_000)] {
            assert_eq!(callers.login(text, now).unwrap_err().code, Code::LoginFailed, "{text}");
        }
    }

    #[test]
    fn i5_an_expired_token_and_an_unknown_one_are_refused_alike() {
        let (callers, now) = (Callers::new(), OffsetDateTime::now_utc());
        let until = now + time::Duration::seconds(1);
        callers.publish(vec![PublishedToken { expires: Some(until), ..token("one", "ci") }]);
        assert!(callers.login("one", now).is_ok());
        let (expired, unknown) = (callers.login("one", until).unwrap_err(), callers.login("two", until).unwrap_err());
        assert_eq!(expired.code, unknown.code);
        assert!(expired.detail.contains("token ci has expired") && !unknown.detail.contains("two"));
    }

    #[test]
    fn f21_a_clock_that_ran_ahead_does_not_cut_a_token_for_ever() {
        let (callers, now) = (Callers::new(), OffsetDateTime::now_utc());
        let until = now + time::Duration::hours(1);
        callers.publish(vec![PublishedToken { expires: Some(until), ..token("one", "ci") }]);
        let before = callers.login("one", now).unwrap();
        callers.cut_expired(until);
        assert!(before.is_revoked() && callers.login("one", until).is_err());
        let after = callers.login("one", now).unwrap();
        assert!(!after.is_revoked() && Arc::ptr_eq(&after, &callers.login("one", now).unwrap()));
        callers.publish(Vec::new());
        assert!(after.is_revoked());
    }

    #[test]
    fn a_caller_that_gains_rights_goes_on_and_one_that_loses_some_does_not() {
        let caller = |name: &str, grants: &[&str], most: Option<usize>| {
            let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
            Caller::new(name.to_owned(), Grants::new(grants).unwrap(), Limits { max_streams: most, rate: None })
        };
        let now = caller("ci", &["acme/dc1/*"], Some(1));
        assert!(!now.becomes(&caller("ops", &["acme/dc1/*"], None)) && !now.becomes(&caller("ci", &["acme/dc1/db"], None)));
        let _held = now.quota().admit().unwrap_or_else(|_| panic!("one stream"));
        assert!(now.quota().admit().is_err());
        assert!(now.becomes(&caller("ci", &["acme/dc2/db", "acme/dc1/*"], None)));
        assert!(now.quota().admit().is_ok() && now.may(&"acme/dc2/db".parse().unwrap()).is_ok());
    }

    #[test]
    fn f27_who_is_published_no_more_is_cut_and_the_others_are_not() {
        let (callers, now) = (Callers::new(), OffsetDateTime::now_utc());
        callers.publish(vec![token("one", "ci"), token("two", "ops")]);
        let (gone, kept) = (callers.login("one", now).unwrap(), callers.login("two", now).unwrap());
        let (mut cut, mut goes_on) = (Box::pin(gone.revoked()), Box::pin(kept.revoked()));
        assert!((&mut cut).now_or_never().is_none());
        callers.publish(vec![token("two", "ops"), token("three", "new")]);
        assert!((&mut cut).now_or_never().is_some() && (&mut goes_on).now_or_never().is_none());
        assert!(gone.revoked().now_or_never().is_some(), "also for who asks later");
        assert!(callers.login("one", now).is_err() && callers.login("three", now).is_ok());
        callers.publish(vec![PublishedToken { grants: Grants::only(&"a/b/c".parse().unwrap()), ..token("two", "ops") }]);
        assert!((&mut goes_on).now_or_never().is_some(), "another grant is another caller");
    }

    #[tokio::test]
    async fn a_waiting_task_is_woken() {
        let caller = Arc::new(Caller::new("x".to_owned(), Grants::only(&"a/b/c".parse().unwrap()), Limits::default()));
        let tasks = crate::base::tasks::Tasks::new();
        let waits = caller.clone();
        let task = tasks.spawn(async move { waits.revoked().await });
        tokio::task::yield_now().await;
        caller.revoke();
        task.await.unwrap().unwrap();
    }
}
