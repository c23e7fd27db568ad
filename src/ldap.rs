//! LDAP without sockets: messages, filters, names and attributes, read from what others send and written for them (RFC 4511, 4512, 4514, 4515).
//! Refuses to know who may do what, and where bytes come from.

pub mod attribute;
pub mod ber;
pub mod dn;
pub mod filter;
pub mod framer;
pub mod message;
mod object;
pub mod search;
