//! Redeeming enrollment tokens: one token, one key, one certificate. Refuses to know how the ask came in and how the answer goes out.

use std::time::Instant;

use time::OffsetDateTime;

use super::records::{self, Agent, Record, Redemption, Revocation, SerialRecord, Stored, Token};
use super::store::{CommitError, Expect, Write};
use super::tokens::{secret_hash, token_id};
use super::{ATTEMPTS, Control, text};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::id::{AgentId, Name};
use crate::base::random;
use crate::base::secret::constant_time_eq;
use crate::base::throttle::Verdict;
use crate::gateway::issuer::{EnrollAsk, Enrolled, Enrolling, Issuer};
use crate::observe::audit::Event;
use crate::observe::metrics;
use crate::pki::authority::Issued;
use crate::pki::request::RequestedKey;
use crate::wire::token::TokenSecret;

impl Issuer for Control {
    fn enroll(&self, ask: EnrollAsk) -> Enrolling<'_> {
        Box::pin(self.enroll_at(ask, Instant::now(), OffsetDateTime::now_utc()))
    }
}

/// A certificate, and whether the same answer was given before.
struct Redeemed {
    redemption: Redemption,
    repeated: bool,
}

impl Control {
    /// One try: counted, decided, recorded. `tick` is what the tries per minute are counted by.
    pub(super) async fn enroll_at(&self, ask: EnrollAsk, tick: Instant, now: OffsetDateTime) -> Result<Enrolled, Failure> {
        let verdict = self.throttle().admit(ask.source, tick);
        let outcome = match verdict {
            Verdict::Admitted => self.redeem(&ask, now).await.and_then(|redeemed| self.record_enrolled(&ask, redeemed)),
            Verdict::Limited { .. } => Err(Failure::new(Code::EnrollLimited, ask.source)),
        };
        outcome.map_err(|failure| {
            metrics::enrollment_refused(failure.code);
            // A source that goes on and on is recorded once, so that it can't drown the others.
            if verdict != (Verdict::Limited { first: false }) {
                let event = Event::EnrollRefused { code: failure.code, detail: &failure.detail, source: ask.source };
                if self.parts.audit.limited(&event) {
                    tracing::warn!(source = %ask.source, code = %failure.code, "enrollment refused: {}", failure.detail);
                }
            }
            for_strangers(failure)
        })
    }

    /// If it can't be recorded it isn't answered. Nothing is lost: asking again yields the same certificate.
    fn record_enrolled(&self, ask: &EnrollAsk, redeemed: Redeemed) -> Result<Enrolled, Failure> {
        let Redeemed { redemption: Redemption { agent, serial, chain_pem, not_after, .. }, repeated } = redeemed;
        let serial = serial.to_string();
        let event = Event::Enrolled { agent: &agent, serial: &serial, not_after, source: ask.source, repeated };
        self.parts.audit.record(&event)?;
        metrics::enrolled();
        tracing::info!(%agent, serial, source = %ask.source, repeated, "enrolled");
        Ok(Enrolled { agent, chain_pem, not_after, endpoints: self.parts.endpoints.clone() })
    }

    /// Decides and commits. Whoever loses a race decides anew on what the winner left, and then finds the token used.
    async fn redeem(&self, ask: &EnrollAsk, now: OffsetDateTime) -> Result<Redeemed, Failure> {
        let secret = TokenSecret::parse(ask.secret.expose())?;
        for _ in 0..ATTEMPTS {
            let token = self.usable_token(&secret, now).await?;
            let key = RequestedKey::from_csr(&ask.csr)?;
            if let Some(used) = token.record.used {
                return self.repeat(used, &key, &token.record.id).await;
            }
            let agent = wished_or_made_up(&token.record, ask.agent.as_ref())?;
            let before = records::get::<Agent>(self.store(), agent.to_string()).await?;
            if before.is_some() && ask.agent.is_none() {
                continue;
            }
            let issued = self.parts.authority.issue_agent(&agent, &key, self.parts.certificate_lifetime, now)?;
            let redemption = Redemption {
                spki_sha256: text::hex(&key.spki_sha256()),
                agent,
                serial: issued.serial,
                chain_pem: issued.chain_pem.clone(),
                not_after: issued.not_after,
            };
            let mut batch = self.agent_with(before, &redemption, &issued, now).await?;
            let used = Token { used: Some(redemption.clone()), ..token.record };
            batch.push(used.put(Expect::At(token.revision)));
            match self.store().commit(batch).await {
                Ok(_) => return Ok(Redeemed { redemption, repeated: false }),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }

    /// Finds a token by a part of its secret's hash and compares the whole in constant time: how long it takes tells nothing.
    async fn usable_token(&self, secret: &TokenSecret, now: OffsetDateTime) -> Result<Stored<Token>, Failure> {
        let token = records::get::<Token>(self.store(), token_id(secret)).await?;
        let hash = secret_hash(secret);
        let known = token.filter(|token| constant_time_eq(token.record.secret_sha256.as_bytes(), hash.as_bytes()));
        let token = known.ok_or_else(|| Failure::new(Code::TokenRefused, "the gateway knows no such token"))?;
        if now >= token.record.expires {
            let Token { id, expires, .. } = &token.record;
            return Err(Failure::new(Code::TokenExpired, format_args!("token {id} expired at {expires}, it is {now}")));
        }
        Ok(token)
    }

    /// The answer that was given before, in case it was lost on the way.
    async fn repeat(&self, used: Redemption, key: &RequestedKey, token: &str) -> Result<Redeemed, Failure> {
        if used.spki_sha256 != text::hex(&key.spki_sha256()) {
            let why = format_args!("token {token} was used by another key, for {}", used.agent);
            return Err(Failure::new(Code::TokenRefused, why));
        }
        if records::get::<Revocation>(self.store(), used.serial.to_string()).await?.is_some() {
            let why = format_args!("the certificate {} that token {token} gave was revoked", used.serial);
            return Err(Failure::new(Code::Revoked, why));
        }
        Ok(Redeemed { redemption: used, repeated: true })
    }

    /// The changes that give an agent, new or known, a certificate. Those it had stay good until they expire or are revoked;
    /// expired ones are cleared away.
    async fn agent_with(
        &self,
        before: Option<Stored<Agent>>,
        redemption: &Redemption,
        issued: &Issued,
        now: OffsetDateTime,
    ) -> Result<Vec<Write>, Failure> {
        let mut batch = Vec::new();
        let mut superseded = Vec::new();
        for serial in before.iter().flat_map(|before| before.record.serials()) {
            match records::get::<SerialRecord>(self.store(), serial.to_string()).await? {
                Some(old) if old.record.not_after <= now => batch.push(old.delete()),
                Some(_) => superseded.push(serial),
                None => {}
            }
        }
        let expect = before.as_ref().map_or(Expect::Absent, Stored::unchanged);
        let agent = Agent {
            id: redemption.agent.clone(),
            created: before.map_or(now, |before| before.record.created),
            serial: issued.serial,
            superseded,
            revoked: None,
        };
        let serial = SerialRecord {
            serial: issued.serial,
            agent: redemption.agent.clone(),
            spki_sha256: redemption.spki_sha256.clone(),
            issued: now,
            not_after: issued.not_after,
        };
        batch.extend([agent.put(expect), serial.put(Expect::Absent)]);
        Ok(batch)
    }
}

fn wished_or_made_up(token: &Token, wished: Option<&Name>) -> Result<AgentId, Failure> {
    let agent = match wished {
        Some(name) => name.clone(),
        None => {
            let mut suffix = [0; 3];
            random::fill(&mut suffix)?;
            Name::parse(&format!("agent-{}", text::hex(&suffix))).or_fail(Code::Internal, "a made-up name")?
        }
    };
    Ok(AgentId { group: token.group(), agent })
}

/// What whoever holds no certificate yet may learn: what it did wrong, and not what is wrong inside the gateway.
fn for_strangers(failure: Failure) -> Failure {
    match failure.code {
        Code::TokenRefused | Code::TokenExpired | Code::CsrInvalid | Code::EnrollLimited | Code::Revoked => failure,
        code => Failure::new(Code::EnrollRefused, format_args!("the gateway's log says more ({code})")),
    }
}
