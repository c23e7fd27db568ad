//! What a client may see of a directory's answers. Refuses to know what was asked.

use super::{Referrals, Rules};
use crate::ldap::attribute::Attribute;
use crate::ldap::ber::Malformed;
use crate::ldap::dn::Dn;
use crate::ldap::message::answer::{self, ResultCode};
use crate::ldap::message::response::{Done, Entry};
use crate::ldap::message::{Message, Operation};

/// What becomes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It passes as it is.
    Whole,
    /// Something of it does.
    Rebuilt(Vec<u8>),
    /// Nothing of it does.
    Hidden,
}

impl Rules {
    /// An entry without the attributes that may not be read; nothing of one that lies outside of every base, or whose name shows a value
    /// of a denied attribute.
    pub(super) fn entry(&self, message: &Message<'_>, mut entry: Entry<'_>) -> Result<Seen, Malformed> {
        let shown = Dn::parse(entry.dn.as_bytes()).is_ok_and(|dn| self.is_dn_within_base(&dn) && !self.names_denied(&dn));
        let (mut kept, mut all) = (Vec::new(), true);
        while let Some(attribute) = entry.next_attribute()? {
            if Attribute::of(attribute.description).is_ok_and(|it| self.is_readable(&it)) {
                kept.push(attribute.whole);
            } else {
                all = false;
            }
        }
        Ok(match (shown, all) {
            (false, _) => Seen::Hidden,
            (true, true) => Seen::Whole,
            (true, false) => Seen::Rebuilt(answer::entry(message.id, entry.name, &kept, message.controls.whole())),
        })
    }

    /// Whether a name has a value of an attribute that is denied. What merely is not listed may name entries: something must.
    fn names_denied(&self, dn: &Dn) -> bool {
        dn.attributes().any(|attribute| self.denied.contains(attribute))
    }

    /// Where else a search could go on.
    pub(super) fn reference(&self) -> Seen {
        if self.raw.referrals == Referrals::Pass { Seen::Whole } else { Seen::Hidden }
    }

    /// How an operation ended; without where else to ask.
    pub(super) fn done(&self, message: &Message<'_>, operation: Operation, done: &Done<'_>) -> Seen {
        const REFERRAL: u32 = 10;
        if self.raw.referrals == Referrals::Pass || !(done.referral || done.code == REFERRAL) {
            return Seen::Whole;
        }
        let (code, words) = match done.code {
            REFERRAL => {
                (ResultCode::UnwillingToPerform as u32, "the directory refers to another one, where this target does not lead")
            }
            code => (code, done.diagnostic),
        };
        Seen::Rebuilt(answer::done_as(message.id, operation, code, done.matched, words, message.controls.whole()))
    }
}
