//! The JSON that asks for a search, and what the client library makes of it. Refuses to know how inputs are found.

use crate::ldap::ber::Element;
use crate::ldap::filter::Filter;
use crate::ldap::search::Query;

/// A search.
///
/// # Panics
/// When an error shows the password, a login is none, or a filter's text is another filter.
pub fn search(input: &[u8]) {
    // Whatever the input has it for, this word belongs to the password.
    const PASSWORD: &str = "hunter2";
    match Query::parse(input) {
        Err(error) => {
            let named = ["unknown field", "unknown variant", "duplicate field", "missing field"];
            let error = error.to_string();
            assert!(!error.contains(PASSWORD) || named.iter().any(|kind| error.contains(kind)), "{error}");
        }
        Ok(query) => {
            let shown = format!("{:?}", query.bind.as_ref().map(|bind| &bind.password));
            assert!(!shown.contains(PASSWORD), "{shown}");
            assert!(query.bind.is_none_or(|bind| !bind.dn.as_str().is_empty() && !bind.password.expose().is_empty()));
            assert!(query.page_size > 0 && query.time_limit > 0 && i32::try_from(query.size_limit).is_ok());
            let text = query.filter.to_string();
            assert_eq!(text.parse::<Filter>().as_ref(), Ok(&query.filter), "{text}");
            let ber = query.filter.to_ber();
            assert_eq!(Element::only(&ber, "a filter").and_then(Filter::from_ber).as_ref(), Ok(&query.filter));
            as_the_library_reads(&text, &ber);
        }
    }
}

/// A text that it reads, it reads as the same filter.
#[cfg(any(feature = "agent", feature = "fuzzing"))]
fn as_the_library_reads(text: &str, ber: &[u8]) {
    use ldap3::asn1::{ASNTag, write};
    let Ok(tag) = ldap3::parse_filter(text) else { return };
    let mut theirs = bytes::BytesMut::new();
    write::encode_into(&mut theirs, tag.into_structure()).expect("it writes to memory");
    assert_eq!(&theirs[..], ber, "{text}");
}

#[cfg(not(any(feature = "agent", feature = "fuzzing")))]
fn as_the_library_reads(_: &str, _: &[u8]) {}
