//! Client tokens: making, listing and revoking them. The text leaves once, in the answer; what stays is its hash. Refuses to know
//! who logs in and how live streams are cut: it publishes whose token counts.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::op::{Caller, Op};
use super::records::{self, ClientToken, Group, Record, Stored, Tenant};
use super::store::{CommitError, Expect, Write};
use super::{ATTEMPTS, Control, text};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::grant::{Grant, Grants};
use crate::base::id::Name;
use crate::base::limits;
use crate::base::secret::Secret;
use crate::gateway::callers::{PublishedToken, TokenHash, token_hash};
use crate::gateway::quota::Limits;
use crate::observe::audit::Event;
use crate::wire::token::{self, TokenSecret};

/// What a client token is asked for with.
#[derive(Clone, Debug)]
pub struct ClientWish {
    /// Its name, which no usable token may have yet; one is made up if there is none.
    pub name: Option<Name>,
    /// What it may reach.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// How long it is valid; for ever if that is absent.
    pub ttl: Option<Duration>,
}

/// A client token that was just made.
#[derive(Debug)]
pub struct NewClientToken {
    /// The string to hand over; it is kept nowhere.
    pub token: Secret,
    /// What is known of it.
    pub info: ClientTokenInfo,
    /// Parts of its grants that nobody has made, such as `tenant acme`: perhaps a name was mistyped.
    pub unknown: Vec<String>,
}

/// What is known of a client token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTokenInfo {
    /// Its caller's name.
    pub name: Name,
    /// What the audit calls the token itself: a name may be used again.
    pub id: String,
    /// What it may reach.
    pub grants: Grants,
    /// Streams at a time, on each gateway.
    #[serde(default)]
    pub max_streams: Option<usize>,
    /// Bytes per second, both ways together, on each gateway.
    #[serde(default)]
    pub rate: Option<NonZeroU32>,
    /// When it was made.
    #[serde(with = "text::utc")]
    pub created: OffsetDateTime,
    /// When it ends by itself.
    #[serde(with = "text::optional_utc", default)]
    pub expires: Option<OffsetDateTime>,
    /// Who made it.
    pub by: String,
    /// When it was revoked, if it was.
    #[serde(with = "text::optional_utc", default)]
    pub revoked: Option<OffsetDateTime>,
    /// Whether it counts, by the gateway's clock.
    pub state: ClientTokenState,
}

/// Whether a client token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientTokenState {
    /// It does.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody has ended it.
    Revoked,
}

/// What revoking a client token did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedClientToken {
    /// Its caller's name.
    pub name: Name,
    /// What the audit calls it.
    pub id: String,
    /// Whether the audit has it. Revoking is done even if the audit is full and otherwise refuses work.
    pub audited: bool,
}

impl Control {
    /// Makes a client token. It counts when this returns.
    ///
    /// # Errors
    /// `client_token_exists` if a usable one has the name; `usage` for a name that could be an id, a validity or a limit out of its
    /// bounds, and when there are [`limits::MAX_CLIENT_TOKENS`] usable ones; `audit_full`, `store_failed`.
    pub async fn create_client_token(&self, wish: &ClientWish, caller: &Caller) -> Result<NewClientToken, Failure> {
        let op = Op { name: "client-token create", on: wish.grants.to_string(), caller };
        op.begin(self)?;
        let outcome = self.make_client_token(wish, caller, OffsetDateTime::now_utc()).await;
        op.end(self, outcome, |made, control| {
            let ClientTokenInfo { name, id, grants, expires, by, .. } = &made.info;
            control.parts.audit.record(&Event::ClientTokenCreated { token: id, name, grants, expires: *expires, by })
        })
    }

    /// Every client token, in the order of their names; those that count no more for [`limits::CLIENT_TOKEN_KEPT`].
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn client_tokens(&self) -> Result<Vec<ClientTokenInfo>, Failure> {
        let now = OffsetDateTime::now_utc();
        let tokens = records::list::<ClientToken>(self.store()).await?;
        Ok(tokens.iter().map(|token| token.record.info(now)).collect())
    }

    /// Revokes the client token of this name or this id: its streams are cut, and nobody logs in with it, when this
    /// returns. Revoking twice is no error.
    ///
    /// # Errors
    /// `client_token_unknown`; `usage` if it is the name of one and the id of another; `store_failed`. Nothing is revoked then.
    pub async fn revoke_client_token(&self, token: &Name, caller: &Caller) -> Result<RevokedClientToken, Failure> {
        let op = Op { name: "client-token revoke", on: token.to_string(), caller };
        let begun = op.begin(self);
        let outcome = self.end_client_token(token, OffsetDateTime::now_utc()).await;
        let mut audited = begun.is_ok();
        let ended = op.end(self, outcome, |ended, control| {
            let (name, id, by) = (&ended.name, &ended.public_id(), &caller.by);
            tracing::info!(%name, id, by, "client token revoked");
            let recorded = control.parts.audit.record(&Event::ClientTokenRevoked { token: id, name, by });
            audited = audited && recorded.is_ok();
            Ok(())
        })?;
        if !audited {
            tracing::error!(name = %ended.name, by = caller.by, "client token revoked, but the audit has no record of it");
        }
        Ok(RevokedClientToken { id: ended.public_id(), name: ended.name, audited })
    }

    /// Publishes what the store says. Only one reads and publishes at a time: an older list never replaces a newer one.
    pub(super) async fn publish_client_tokens(&self) -> Result<(), Failure> {
        let mut published = self.client_tokens.lock().await;
        let tokens = records::list::<ClientToken>(self.store()).await?;
        let counting = tokens.iter().map(|token| &token.record).filter(|token| token.revoked.is_none());
        *published = counting.map(|token| (token.name.clone(), token.published())).collect();
        self.parts.callers.publish(published.values().cloned().collect());
        Ok(())
    }

    /// The changes that delete what has ended long ago.
    pub(super) async fn old_client_tokens(&self, now: OffsetDateTime) -> Result<Vec<Write>, Failure> {
        let tokens = records::list::<ClientToken>(self.store()).await?;
        let old =
            |token: &&Stored<ClientToken>| token.record.ended(now).is_some_and(|ended| ended + limits::CLIENT_TOKEN_KEPT < now);
        Ok(tokens.iter().filter(old).map(Stored::delete).collect())
    }

    pub(super) async fn make_client_token(
        &self,
        wish: &ClientWish,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<NewClientToken, Failure> {
        check(wish)?;
        let unknown = self.unknown_parts(&wish.grants).await?;
        for _ in 0..ATTEMPTS {
            let token = token::ClientToken {
                endpoints: self.parts.endpoints.clone(),
                pin: *self.parts.authority.pin().as_bytes(),
                secret: TokenSecret::generate()?,
            };
            let token = token.encode();
            let sha256 = token_hash(token.expose());
            let record = ClientToken {
                name: wish.name.clone().map_or_else(|| made_up(&sha256), Ok)?,
                sha256,
                grants: wish.grants.clone(),
                max_streams: wish.limits.max_streams,
                rate: wish.limits.rate,
                created: text::seconds(now),
                expires: wish.ttl.map(|ttl| text::seconds(now + ttl)),
                by: caller.by.clone(),
                revoked: None,
            };
            match self.keep_client_token(&record, now).await {
                Ok(()) => return Ok(NewClientToken { token, info: record.info(now), unknown }),
                Err(Unkept::Taken) if wish.name.is_some() => {
                    return Err(Failure::new(Code::ClientTokenExists, format_args!("`{}`", record.name)));
                }
                Err(Unkept::Taken | Unkept::Conflict) => {}
                Err(Unkept::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }

    /// Keeps a token in the place of one of its name that counts no more, and publishes it. If there are as many as may be, one that
    /// has ended makes room.
    async fn keep_client_token(&self, token: &ClientToken, now: OffsetDateTime) -> Result<(), Unkept> {
        let mut published = self.client_tokens.lock().await;
        let kept = records::list::<ClientToken>(self.store()).await?;
        let before = kept.iter().find(|kept| kept.record.name == token.name);
        if before.is_some_and(|before| before.record.ended(now).is_none()) {
            return Err(Unkept::Taken);
        }
        let mut batch = vec![token.put(before.map_or(Expect::Absent, Stored::unchanged))];
        let full = before.is_none() && kept.len() >= limits::MAX_CLIENT_TOKENS;
        let gone = if full { Some(first_ended(&kept, now).ok_or_else(too_many)?) } else { None };
        batch.extend(gone.map(Stored::delete));
        self.store().commit(batch).await?;
        if let Some(gone) = gone {
            published.remove(&gone.record.name);
        }
        published.insert(token.name.clone(), token.published());
        self.parts.callers.publish(published.values().cloned().collect());
        Ok(())
    }

    async fn end_client_token(&self, token: &Name, now: OffsetDateTime) -> Result<ClientToken, Failure> {
        let mut published = self.client_tokens.lock().await;
        for _ in 0..ATTEMPTS {
            let before = self.find_client_token(token).await?;
            let revoked = before.record.revoked.or(Some(text::seconds(now)));
            let ended = ClientToken { revoked, ..before.record.clone() };
            match self.store().commit(vec![ended.put(before.unchanged())]).await {
                Ok(_) => {
                    published.remove(&ended.name);
                    self.parts.callers.publish(published.values().cloned().collect());
                    return Ok(ended);
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }

    async fn find_client_token(&self, token: &Name) -> Result<Stored<ClientToken>, Failure> {
        let tokens = records::list::<ClientToken>(self.store()).await?;
        let mut found =
            tokens.into_iter().filter(|kept| kept.record.name == *token || kept.record.public_id() == token.as_str());
        match (found.next(), found.next()) {
            (None, _) => Err(Failure::new(Code::ClientTokenUnknown, format_args!("`{token}`"))),
            (Some(found), None) => Ok(found),
            (Some(one), Some(other)) => Err(ambiguous(token, &one.record, &other.record)),
        }
    }

    /// The tenants and groups of grants that nobody has made.
    async fn unknown_parts(&self, grants: &Grants) -> Result<Vec<String>, Failure> {
        let tenants = records::list::<Tenant>(self.store()).await?;
        let groups = records::list::<Group>(self.store()).await?;
        let is_tenant = |name: &Name| tenants.iter().any(|tenant| tenant.record.name == *name);
        let is_group = |of: Option<&Name>, name: &Name| {
            groups.iter().any(|Stored { record, .. }| record.name == *name && of.is_none_or(|tenant| record.tenant == *tenant))
        };
        let unknown = |grant: &Grant| match (grant.tenant(), grant.group()) {
            (Some(tenant), _) if !is_tenant(tenant) => Some(format!("tenant {tenant}")),
            (Some(tenant), Some(group)) if !is_group(Some(tenant), group) => Some(format!("group {tenant}/{group}")),
            (None, Some(group)) if !is_group(None, group) => Some(format!("group */{group}")),
            _ => None,
        };
        let mut parts: Vec<_> = grants.iter().filter_map(unknown).collect();
        parts.sort();
        parts.dedup();
        Ok(parts)
    }
}

impl ClientToken {
    /// As whoever logs clients in knows it. An expired one too, so that it is told from an unknown one in the audit.
    fn published(&self) -> PublishedToken {
        PublishedToken {
            hash: self.sha256,
            name: self.name.to_string(),
            grants: self.grants.clone(),
            limits: Limits { max_streams: self.max_streams, rate: self.rate },
            expires: self.expires,
        }
    }

    fn info(&self, now: OffsetDateTime) -> ClientTokenInfo {
        let state = match (self.revoked, self.ended(now)) {
            (Some(_), _) => ClientTokenState::Revoked,
            (None, Some(_)) => ClientTokenState::Expired,
            (None, None) => ClientTokenState::Active,
        };
        ClientTokenInfo {
            name: self.name.clone(),
            id: self.public_id(),
            grants: self.grants.clone(),
            max_streams: self.max_streams,
            rate: self.rate,
            created: self.created,
            expires: self.expires,
            by: self.by.clone(),
            revoked: self.revoked,
            state,
        }
    }
}

/// Why a token was not kept.
enum Unkept {
    /// A usable one has its name.
    Taken,
    /// Somebody changed the same records meanwhile.
    Conflict,
    Failed(Failure),
}

impl From<Failure> for Unkept {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<CommitError> for Unkept {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Conflict,
            CommitError::Failed(failure) => Self::Failed(failure),
        }
    }
}

fn check(wish: &ClientWish) -> Result<(), Failure> {
    if let Some(name) = wish.name.as_ref().filter(|name| is_like_an_id(name)) {
        let detail = format_args!("`{name}` could be a token's id, by which it is revoked: choose another name");
        return Err(Failure::new(Code::Usage, detail));
    }
    let valid = limits::CLIENT_TOKEN_TTL_MIN..=limits::CLIENT_TOKEN_TTL_MAX;
    if wish.ttl.is_some_and(|ttl| !valid.contains(&ttl)) {
        return Err(Failure::new(Code::Usage, "a client token is valid for 1 minute to 10 years, or never expires"));
    }
    let most = limits::MAX_STREAMS_CONFIGURED;
    if wish.limits.max_streams.is_some_and(|streams| !(1..=most).contains(&streams)) {
        return Err(Failure::new(Code::Usage, format_args!("a client token's `max_streams` is from 1 to {most}")));
    }
    Ok(())
}

/// Whether a name has the form of a [`ClientToken::public_id`].
fn is_like_an_id(name: &Name) -> bool {
    name.as_str().len() == 16 && name.as_str().bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn ambiguous(said: &Name, one: &ClientToken, other: &ClientToken) -> Failure {
    let (named, meant) = if one.name == *said { (one, other) } else { (other, one) };
    let (id, name) = (named.public_id(), &meant.name);
    let detail = format_args!(
        "`{said}` is the name of one token and the id of another: say `{id}` for the first, `{name}` for the other"
    );
    Failure::new(Code::Usage, detail)
}

fn first_ended(kept: &[Stored<ClientToken>], now: OffsetDateTime) -> Option<&Stored<ClientToken>> {
    let ended = kept.iter().filter_map(|kept| Some((kept.record.ended(now)?, kept)));
    ended.min_by_key(|(at, _)| *at).map(|(_, kept)| kept)
}

fn too_many() -> Failure {
    let most = limits::MAX_CLIENT_TOKENS;
    Failure::new(Code::Usage, format_args!("there are {most} client tokens in use, and no more can be: revoke one first"))
}

fn made_up(hash: &TokenHash) -> Result<Name, Failure> {
    Name::parse(&format!("client-{}", text::hex(&hash[..4]))).or_fail(Code::Internal, "a made-up name")
}
