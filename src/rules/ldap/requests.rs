//! Whether one request passes, and with which changes. Refuses to know what was asked before.

use super::{Denial, Rule, Rules};
use crate::base::id::printable;
use crate::ldap::attribute::Attribute;
use crate::ldap::ber::{Element, Malformed, tag};
use crate::ldap::dn::Dn;
use crate::ldap::filter::{Filter, Named, Term};
use crate::ldap::message::answer::{self, ResultCode, START_TLS};
use crate::ldap::message::request::{Bind, Changed, ModifyDn, Proof, Request, Search};
use crate::ldap::message::{Control, Message, Operation};

/// The attributes whose values controls name.
const SORT: &str = "1.2.840.113556.1.4.473";
const MATCHED_VALUES: &str = "1.2.826.0.1.3344810.2.3";
const ASSERTION: &str = "1.3.6.1.1.12";
const PRE_READ: &str = "1.3.6.1.1.13.1";
const POST_READ: &str = "1.3.6.1.1.13.2";

impl Rules {
    /// Whether a request passes: as it is (`None`), or made anew. It is made anew if its limits are more than the rules', if it would follow
    /// aliases where there is a base, which they could lead out of, and if it has controls that may not pass and need not be heeded: a server that doesn't know those ignores them, so its client can do without (RFC 4511, 4.1.11).
    ///
    /// # Errors
    /// The [`Denial`].
    pub fn request(&self, message: &Message<'_>, request: &Request<'_>) -> Result<Option<Vec<u8>>, Denial> {
        if let Request::Bind(bind) = request {
            credentials(bind)?;
        }
        if let Some(operation) = request.operation() {
            self.operation(operation, request)?;
        }
        match request {
            Request::Search(search) => self.search(search)?,
            Request::Modify(modify) => self.write(modify)?,
            Request::Add(add) => {
                self.write(add)?;
                self.write_name(&parse(add.dn, "the entry's name")?)?;
            }
            Request::Delete(dn) => self.reach(dn)?,
            Request::ModifyDn(rename) => self.rename(rename)?,
            Request::Compare(compare) => {
                self.reach(compare.dn)?;
                self.mention(compare.attribute, "compare")?;
            }
            Request::Bind(_) | Request::Extended(_) | Request::Unbind | Request::Abandon(_) => {}
        }
        self.changed(message, request)
    }

    fn operation(&self, operation: Operation, request: &Request<'_>) -> Result<(), Denial> {
        if let Request::Extended(START_TLS) = request {
            let why = "TLS begins at the tunnel, and the agent's own TLS with the directory is verified; speak LDAP in the clear inside";
            return Err(Denial::new(Rule::StartTls, ResultCode::UnwillingToPerform, why));
        }
        if !self.permits(operation) {
            let code = match operation {
                // Not "wrong password": clients would lock accounts, or ask their users again.
                Operation::Bind | Operation::Extended => ResultCode::UnwillingToPerform,
                _ => ResultCode::InsufficientAccessRights,
            };
            return Err(Denial::new(Rule::Operations, code, format!("{operation} is not among this target's operations")));
        }
        if let Request::Extended(oid) = request
            && !self.raw.extended.iter().any(|known| known == oid)
        {
            let why = format!("the extended operation {} is not listed", printable(oid, 128));
            return Err(Denial::new(Rule::Extended, ResultCode::UnwillingToPerform, why));
        }
        Ok(())
    }

    fn search(&self, search: &Search<'_>) -> Result<(), Denial> {
        self.reach(search.base)?;
        if search.scope > self.raw.scope {
            return Err(Denial::of(Rule::Scope, format!("a search may go as far as `{}`", self.raw.scope)));
        }
        let (terms, depth) = (search.filter.terms().len(), search.filter.depth());
        if terms > self.raw.filter_size {
            return Err(Denial::of(Rule::FilterSize, format!("a filter of {terms} terms; {} may be", self.raw.filter_size)));
        }
        if depth > self.raw.filter_depth {
            return Err(Denial::of(Rule::FilterDepth, format!("a filter {depth} deep; {} may be", self.raw.filter_depth)));
        }
        search.filter.named().try_for_each(|named| self.mention_named(named, "filter"))
    }

    /// The entry must lie at a base or below it.
    fn reach(&self, dn: &[u8]) -> Result<(), Denial> {
        if self.is_within_base(dn) {
            return Ok(());
        }
        let shown = printable(&String::from_utf8_lossy(dn), 256);
        match Dn::parse(dn) {
            Ok(_) if dn.is_empty() => Err(Denial::of(
                Rule::Base,
                "the root (an empty base) does not lie within this target's base: name one that does",
            )),
            Ok(_) => Err(Denial::of(Rule::Base, format!("`{shown}` does not lie within this target's base"))),
            Err(why) => {
                let why = format!("`{shown}`: {why}, and this target has a base to compare it with");
                Err(Denial::new(Rule::Base, ResultCode::InvalidDnSyntax, why))
            }
        }
    }

    fn mention_named(&self, named: Named<'_>, place: &str) -> Result<(), Denial> {
        match named {
            Named::Attribute(description) => self.mention(description.as_bytes(), place),
            Named::Any => {
                Err(Denial::of(Rule::ExtensibleMatch, format!("a {place} that names no attribute asks about all of them")))
            }
        }
    }

    /// Whether an attribute may be asked about, which tells of its values as reading it does. Everybody may ask for classes: the filter for
    /// "any entry" does.
    fn mention(&self, description: &[u8], place: &str) -> Result<(), Denial> {
        let attribute = named(description, place)?;
        if self.revealing.contains(&attribute) {
            let why =
                format!("`{attribute}` in a {place} asks about attributes that may not be read; name the one that is meant");
            return Err(Denial::of(self.unreadable(&attribute), why));
        }
        if self.is_readable(&attribute) || (attribute.as_str() == "objectClass" && !self.denied.contains(&attribute)) {
            return Ok(());
        }
        let rule = self.unreadable(&attribute);
        Err(Denial::of(rule, format!("`{attribute}` in a {place}: {}", unreadable_words(&attribute))))
    }

    /// The rule by which an attribute can't be read.
    fn unreadable(&self, attribute: &Attribute) -> Rule {
        if self.denied.contains(attribute) || self.allowed.is_none() { Rule::DenyAttributes } else { Rule::Attributes }
    }

    fn write(&self, changed: &Changed<'_>) -> Result<(), Denial> {
        self.reach(changed.dn)?;
        changed.attributes.iter().try_for_each(|description| self.write_attribute(&named(description, "change")?))
    }

    /// A directory writes the values that name an entry into it, or takes them from it.
    fn write_name(&self, name: &Dn) -> Result<(), Denial> {
        name.naming_attributes().try_for_each(|attribute| self.write_attribute(attribute))
    }

    fn write_attribute(&self, attribute: &Attribute) -> Result<(), Denial> {
        let rule = if self.denied.contains(attribute) {
            Rule::DenyAttributes
        } else if self.writable.contains(attribute) {
            return Ok(());
        } else {
            Rule::ModifyAttributes
        };
        Err(Denial::of(rule, format!("`{attribute}` may not be written")))
    }

    fn rename(&self, rename: &ModifyDn<'_>) -> Result<(), Denial> {
        self.reach(rename.dn)?;
        rename.superior.map_or(Ok(()), |superior| self.reach(superior))?;
        let rdn = parse(rename.rdn, "a new name")?;
        if rdn.levels() != 1 {
            return Err(unread("a new name", &Malformed::new("it has other than one level")));
        }
        self.write_name(&rdn)?;
        if !self.raw.base.0.is_empty() {
            let superior = rename.superior.map(|superior| parse(superior, "a new superior")).transpose()?;
            let renamed = parse(rename.dn, "the entry's name")?.renamed(&rdn, superior.as_ref());
            if !self.is_dn_within_base(&renamed) {
                return Err(Denial::of(Rule::Base, "the entry would leave this target's base"));
            }
        }
        if rename.deletes_old { self.write_name(&parse(rename.dn, "the entry's name")?) } else { Ok(()) }
    }

    fn changed(&self, message: &Message<'_>, request: &Request<'_>) -> Result<Option<Vec<u8>>, Denial> {
        let controls = message.controls.read();
        let controls = controls.map_err(|why| Denial::new(Rule::Controls, ResultCode::ProtocolError, why.to_string()))?;
        let mut kept = Vec::with_capacity(controls.len());
        for control in &controls {
            if self.raw.controls.iter().any(|oid| oid == control.oid) {
                self.inside(control)?;
                kept.push(control.whole);
            } else if control.critical && request.operation().is_some() {
                let why = format!("the control {} is not among this target's controls", printable(control.oid, 128));
                return Err(Denial::new(Rule::Controls, ResultCode::UnavailableCriticalExtension, why));
            }
        }
        let altered = match request {
            Request::Search(search) => self.altered(search),
            _ => None,
        };
        if altered.is_none() && kept.len() == controls.len() {
            return Ok(None);
        }
        Ok(Some(answer::request(message.id, altered.as_deref().unwrap_or(message.op.whole), &kept)))
    }

    /// A search with the rules' limits, if its own are more. Within a base it follows no aliases: what is found outside is left out, but the
    /// count of it, a limit that it reaches and a page that it fills would tell whether the filter holds for it.
    fn altered(&self, search: &Search<'_>) -> Option<Vec<u8>> {
        let least = |asked: u32, limit: Option<u32>| match limit {
            Some(limit) if asked == 0 || asked > limit => limit,
            _ => asked,
        };
        let (size, time) = (least(search.size_limit, self.raw.size_limit), least(search.time_limit, self.raw.time_limit));
        let aliases = if self.raw.base.0.is_empty() { search.aliases } else { 0 };
        let same = (aliases, size, time) == (search.aliases, search.size_limit, search.time_limit);
        (!same).then(|| search.altered(aliases, size, time))
    }

    /// Controls that name attributes are looked at as filters are.
    fn inside(&self, control: &Control<'_>) -> Result<(), Denial> {
        let malformed = |why: Malformed| Denial::new(Rule::Controls, ResultCode::ProtocolError, format!("a control: {why}"));
        let value = || Element::only(control.value.unwrap_or_default(), "a control's value");
        let named = match control.oid {
            SORT => sort_keys(value().map_err(malformed)?),
            MATCHED_VALUES => values_wanted(value().map_err(malformed)?),
            ASSERTION => value().and_then(Filter::from_ber).map(|filter| owned(filter.named())),
            PRE_READ | POST_READ => selected(value().map_err(malformed)?),
            _ => return Ok(()),
        };
        for name in named.map_err(malformed)? {
            self.mention_named(name.as_deref().map_or(Named::Any, Named::Attribute), "control")?;
        }
        Ok(())
    }
}

/// What controls name: attributes, or any (`None`).
type Names = Vec<Option<String>>;

fn owned<'a>(named: impl Iterator<Item = Named<'a>>) -> Names {
    let name = |named| match named {
        Named::Attribute(description) => Some(description.to_owned()),
        Named::Any => None,
    };
    named.map(name).collect()
}

/// RFC 2891, 1.1.
fn sort_keys(value: Element<'_>) -> Result<Names, Malformed> {
    let what = "the keys to sort by";
    let (mut keys, mut names) = (value.children(), Vec::new());
    while let Some(key) = keys.optional(tag::SEQUENCE)? {
        let mut parts = key.children();
        names.push(Some(parts.expect(tag::OCTETS, what)?.text(what)?.to_owned()));
        parts.optional(tag::context(0))?;
        parts.optional(tag::context(1))?;
        parts.end(what)?;
    }
    keys.end(what)?;
    Ok(names)
}

/// RFC 3876, 2: comparisons, side by side.
fn values_wanted(value: Element<'_>) -> Result<Names, Malformed> {
    let (mut terms, mut names) = (value.children(), Vec::new());
    while let Some(term) = terms.next()? {
        names.extend(owned(Term::leaf(term)?.named().into_iter()));
    }
    Ok(names)
}

/// RFC 4527, 3: an entry's attributes come back in a control. None are all.
fn selected(value: Element<'_>) -> Result<Names, Malformed> {
    let what = "the attributes to read";
    let (mut list, mut names) = (value.children(), Vec::new());
    while let Some(attribute) = list.optional(tag::OCTETS)? {
        let name = attribute.text(what)?;
        names.push(Attribute::of(name.as_bytes()).is_ok().then(|| name.to_owned()));
    }
    list.end(what)?;
    Ok(if names.is_empty() { vec![None] } else { names })
}

/// A DN whose attributes count, whether or not there is a base to compare it with.
fn parse(dn: &[u8], what: &str) -> Result<Dn, Denial> {
    Dn::parse(dn).map_err(|why| unread(what, &why))
}

fn unread(what: &str, why: &Malformed) -> Denial {
    Denial::new(Rule::Base, ResultCode::InvalidDnSyntax, format!("{what}: {why}"))
}

fn named(description: &[u8], place: &str) -> Result<Attribute, Denial> {
    Attribute::of(description).map_err(|why| {
        let shown = printable(&String::from_utf8_lossy(description), 64);
        Denial::new(Rule::DenyAttributes, ResultCode::ProtocolError, format!("`{shown}` in a {place}: {why}"))
    })
}

fn unreadable_words(attribute: &Attribute) -> &'static str {
    if attribute.is_unknown_oid() {
        "an OID whose name is not known here might be any attribute; spell it by name"
    } else {
        "it may not be read, nor asked about"
    }
}

/// A bind of which nobody can take a success for more than it is.
fn credentials(bind: &Bind<'_>) -> Result<(), Denial> {
    match &bind.proof {
        Proof::Simple(password) if !bind.name.is_empty() && password.is_empty() => {
            let why = "a name without a password would be taken for nobody's (RFC 4513, 5.1.2)";
            Err(Denial::new(Rule::EmptyPassword, ResultCode::UnwillingToPerform, why))
        }
        Proof::Simple(password) if bind.name.is_empty() && !password.is_empty() => {
            let why = "a password without a name proves nothing";
            Err(Denial::new(Rule::EmptyPassword, ResultCode::InvalidCredentials, why))
        }
        Proof::Simple(_) => Ok(()),
        Proof::Sasl(mechanism) => {
            let why = format!("the SASL mechanism {} does not pass; simple binds do", printable(mechanism, 64));
            Err(Denial::new(Rule::Sasl, ResultCode::AuthMethodNotSupported, why))
        }
        Proof::Other => Err(Denial::new(Rule::Sasl, ResultCode::AuthMethodNotSupported, "only simple binds pass")),
    }
}
