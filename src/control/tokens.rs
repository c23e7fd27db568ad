//! Making enrollment tokens. The secret leaves once, in the answer; what stays is its hash. Refuses to know how tokens are redeemed.

use std::time::Duration;

use aws_lc_rs::digest;
use time::OffsetDateTime;

use super::op::{Caller, Op};
use super::records::{self, Group, Record, Tenant, Token};
use super::store::{CommitError, Expect};
use super::{ATTEMPTS, Control, text};
use crate::base::code::{Code, Failure};
use crate::base::id::GroupId;
use crate::base::limits;
use crate::base::secret::Secret;
use crate::observe::audit::Event;
use crate::wire::token::{EnrollmentToken, TokenSecret};

/// A token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// The string to hand over; it is kept nowhere.
    pub token: Secret,
    /// What the audit calls it.
    pub id: String,
    /// Until when it may be used, in whole seconds.
    pub expires: OffsetDateTime,
    /// What was made along with it, such as `tenant acme`: perhaps a name was mistyped.
    pub created: Vec<String>,
}

impl Control {
    /// Makes a token that enrolls one agent into a group, valid for `ttl` or [`limits::TOKEN_TTL`]. A tenant or group that
    /// doesn't exist is made.
    ///
    /// # Errors
    /// `usage` for a validity of nothing or of more than [`limits::TOKEN_TTL_MAX`]; `audit_full`, `store_failed`.
    pub async fn create_token(&self, group: &GroupId, ttl: Option<Duration>, caller: &Caller) -> Result<NewToken, Failure> {
        let now = OffsetDateTime::now_utc();
        let op = Op { name: "token create", on: group.to_string(), caller };
        op.begin(self)?;
        let outcome = self.make_token(group, ttl, caller, now).await;
        op.end(self, outcome, |made, control| {
            let GroupId { tenant, group } = group;
            let event = Event::TokenCreated { tenant, group, token: &made.id, expires: made.expires, by: &caller.by };
            control.parts.audit.record(&event)
        })
    }

    pub(super) async fn make_token(
        &self,
        group: &GroupId,
        ttl: Option<Duration>,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<NewToken, Failure> {
        let ttl = ttl.unwrap_or(limits::TOKEN_TTL);
        if ttl.is_zero() || ttl > limits::TOKEN_TTL_MAX {
            let most = limits::TOKEN_TTL_MAX.as_secs() / (24 * 60 * 60);
            return Err(Failure::new(Code::Usage, format_args!("a token is valid for 1 second to {most} days")));
        }
        let secret = TokenSecret::generate()?;
        let record = Token {
            id: token_id(&secret),
            secret_sha256: secret_hash(&secret),
            tenant: group.tenant.clone(),
            group: group.group.clone(),
            created: text::seconds(now),
            expires: text::seconds(now + ttl),
            by: caller.by.clone(),
            used: None,
        };
        let created = self.keep_token(&record, now).await?;
        let token = EnrollmentToken {
            endpoints: self.parts.endpoints.clone(),
            pin: *self.parts.authority.pin().as_bytes(),
            secret,
            expires: record.expires,
            group: group.clone(),
        };
        Ok(NewToken { token: token.encode(), id: record.id, expires: record.expires, created })
    }

    async fn keep_token(&self, token: &Token, now: OffsetDateTime) -> Result<Vec<String>, Failure> {
        for _ in 0..ATTEMPTS {
            let mut batch = vec![token.put(Expect::Absent)];
            if records::get::<Tenant>(self.store(), token.tenant.as_str()).await?.is_none() {
                batch.push(Tenant { name: token.tenant.clone(), created: now }.put(Expect::Absent));
            }
            if records::get::<Group>(self.store(), token.group().to_string()).await?.is_none() {
                let group = Group { tenant: token.tenant.clone(), name: token.group.clone(), created: now };
                batch.push(group.put(Expect::Absent));
            }
            let created = batch[1..].iter().map(|write| write.key.to_string()).collect();
            match self.store().commit(batch).await {
                Ok(_) => return Ok(created),
                // Somebody made the tenant or the group at the same moment.
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }
}

/// The hash that stays. Of 256 random bits a plain hash is enough: there is nothing to guess.
pub(super) fn secret_hash(secret: &TokenSecret) -> String {
    text::hex(digest::digest(&digest::SHA256, secret.expose()).as_ref())
}

/// The part of the hash that names the token; the whole hash decides.
pub(super) fn token_id(secret: &TokenSecret) -> String {
    secret_hash(secret)[..16].to_owned()
}
