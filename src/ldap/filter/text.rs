//! A filter's text (RFC 4515), read and written. Strict: parentheses around every filter, no spaces between them, and every special byte of a
//! value escaped. Refuses to know what a filter asks.

use std::fmt::{self, Display, Write};
use std::str::FromStr;

use super::{Assertion, Extensible, Filter, Substrings, Term, named};
use crate::ldap::ber::Malformed;

impl FromStr for Filter {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut filter = Self { terms: Vec::new() };
        // Connectives whose parentheses are open: their places, and how many filters they have.
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut rest = text;
        loop {
            if let Some(inner) = rest.strip_prefix('(') {
                if let Some((_, count)) = open.last_mut() {
                    *count += 1;
                }
                let within = open.len();
                if let Some(connective) = inner.chars().next().and_then(connective) {
                    open.push((filter.push(connective, within)?, 0));
                    rest = &inner[1..];
                    continue;
                }
                let (item, after) =
                    inner.split_once(')').ok_or(Malformed::new("a filter with a parenthesis that stays open"))?;
                filter.push(leaf(item)?, within)?;
                rest = after;
            } else if let Some((at, count)) = open.pop() {
                rest = rest.strip_prefix(')').ok_or(Malformed::new("a filter with something between its parentheses"))?;
                filter.close(at, count)?;
            } else {
                return Err(Malformed::new("a filter is written in parentheses, such as (uid=jdoe)"));
            }
            if open.is_empty() {
                let end = rest.is_empty();
                return if end { Ok(filter) } else { Err(Malformed::new("a filter with something behind its end")) };
            }
        }
    }
}

fn connective(sign: char) -> Option<Term> {
    match sign {
        '&' => Some(Term::And(0)),
        '|' => Some(Term::Or(0)),
        '!' => Some(Term::Not),
        _ => None,
    }
}

/// What is between innermost parentheses.
fn leaf(item: &str) -> Result<Term, Malformed> {
    let (left, value) = item.split_once('=').ok_or(Malformed::new("a filter with a comparison that has no `=`"))?;
    let assertion = |attribute: &str| Ok(Assertion { attribute: named(attribute.as_bytes())?, value: unescaped(value)? });
    match left.split_at(left.len() - usize::from(left.ends_with(['>', '<', '~', ':']))) {
        (attribute, ">") => assertion(attribute).map(Term::GreaterOrEqual),
        (attribute, "<") => assertion(attribute).map(Term::LessOrEqual),
        (attribute, "~") => assertion(attribute).map(Term::Approximate),
        (left, ":") => extensible(left, value),
        (attribute, _) if value == "*" => named(attribute.as_bytes()).map(Term::Present),
        (attribute, _) if value.contains('*') => substrings(attribute, value),
        (attribute, _) => assertion(attribute).map(Term::Equal),
    }
}

fn substrings(attribute: &str, value: &str) -> Result<Term, Malformed> {
    let mut parts = value.split('*').map(unescaped).collect::<Result<Vec<_>, _>>()?;
    let last = parts.pop().filter(|part| !part.is_empty());
    let initial = Some(parts.remove(0)).filter(|part| !part.is_empty());
    let attribute = named(attribute.as_bytes())?;
    Substrings { attribute, initial, any: parts, last }.checked().map(Term::Substrings)
}

/// `attribute`, `attribute:dn`, `attribute:rule`, `attribute:dn:rule`, `:rule` or `:dn:rule`.
fn extensible(left: &str, value: &str) -> Result<Term, Malformed> {
    let (attribute, mut rest) = left.split_once(':').map_or((left, None), |(attribute, rest)| (attribute, Some(rest)));
    let attribute = if attribute.is_empty() { None } else { Some(named(attribute.as_bytes())?) };
    let dn = rest.is_some_and(|rest| rest == "dn" || rest.starts_with("dn:"));
    if dn {
        rest = rest.and_then(|rest| rest.strip_prefix("dn:"));
    }
    let rule = rest.map(|rule| named(rule.as_bytes())).transpose()?;
    Extensible { rule, attribute, value: unescaped(value)?, dn }.checked().map(Term::Extensible)
}

/// A value as bytes: `\` and two hex digits are one.
fn unescaped(value: &str) -> Result<Vec<u8>, Malformed> {
    let mut parts = value.split('\\');
    let mut bytes = plain(parts.next().unwrap_or_default())?.to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or(Malformed::new("a filter with a backslash that two hex digits don't follow"))?);
        bytes.extend_from_slice(plain(&part[2..])?);
    }
    Ok(bytes)
}

fn plain(part: &str) -> Result<&[u8], Malformed> {
    if part.contains(['(', ')', '*', '\0']) {
        return Err(Malformed::new("a filter with a value in which `(`, `)`, `*` or NUL is not escaped"));
    }
    Ok(part.as_bytes())
}

impl Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut open: Vec<usize> = Vec::new();
        for term in &self.terms {
            f.write_char('(')?;
            match term {
                Term::And(count) => open_with(f, '&', *count, &mut open)?,
                Term::Or(count) => open_with(f, '|', *count, &mut open)?,
                Term::Not => open_with(f, '!', 1, &mut open)?,
                leaf => {
                    write_leaf(f, leaf)?;
                    f.write_char(')')?;
                    count_down(&mut open);
                }
            }
            while open.last() == Some(&0) {
                open.pop();
                f.write_char(')')?;
                count_down(&mut open);
            }
        }
        Ok(())
    }
}

fn open_with(f: &mut fmt::Formatter<'_>, sign: char, count: usize, open: &mut Vec<usize>) -> fmt::Result {
    open.push(count);
    f.write_char(sign)
}

fn count_down(open: &mut [usize]) {
    if let Some(left) = open.last_mut() {
        *left -= 1;
    }
}

fn write_leaf(f: &mut fmt::Formatter<'_>, leaf: &Term) -> fmt::Result {
    match leaf {
        Term::And(_) | Term::Or(_) | Term::Not => Ok(()),
        Term::Equal(it) => write!(f, "{}={}", it.attribute, Escaped(&it.value)),
        Term::GreaterOrEqual(it) => write!(f, "{}>={}", it.attribute, Escaped(&it.value)),
        Term::LessOrEqual(it) => write!(f, "{}<={}", it.attribute, Escaped(&it.value)),
        Term::Approximate(it) => write!(f, "{}~={}", it.attribute, Escaped(&it.value)),
        Term::Present(attribute) => write!(f, "{attribute}=*"),
        Term::Substrings(it) => {
            write!(f, "{}={}*", it.attribute, Escaped(it.initial.as_deref().unwrap_or_default()))?;
            it.any.iter().try_for_each(|part| write!(f, "{}*", Escaped(part)))?;
            Escaped(it.last.as_deref().unwrap_or_default()).fmt(f)
        }
        Term::Extensible(it) => {
            f.write_str(it.attribute.as_deref().unwrap_or_default())?;
            f.write_str(if it.dn { ":dn" } else { "" })?;
            it.rule.iter().try_for_each(|rule| write!(f, ":{rule}"))?;
            write!(f, ":={}", Escaped(&it.value))
        }
    }
}

/// A value's bytes as text: what is special, unprintable or no UTF-8 is escaped.
struct Escaped<'a>(&'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if matches!(c, '(' | ')' | '*' | '\\') || crate::base::id::unprintable(c) {
                    c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:02x}"))?;
                } else {
                    f.write_char(c)?;
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\{byte:02x}"))?;
        }
        Ok(())
    }
}
