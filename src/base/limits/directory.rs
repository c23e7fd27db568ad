//! Limits of directories: LDAP messages, filters, and searches posted as JSON. Refuses to know who keeps to them.

use std::time::Duration;

/// The largest LDAP message that is taken of a client: an entry to add, with a photograph.
pub const LDAP_REQUEST: usize = 1024 * 1024;

/// The largest that is taken of a directory: a group of some 200,000 members. It is held whole.
pub const LDAP_RESPONSE: usize = 16 * 1024 * 1024;

/// What the streams of one target hold of large messages, beside the few buffers that each has: four of the largest, as they come and as they
/// go. Beyond it the stream that wants more is cut, so that a hostile directory costs what its own target may take.
pub const LDAP_TARGET_MEMORY: usize = 8 * LDAP_RESPONSE;

/// A directory's answer to StartTLS: a result and some words.
pub const LDAP_START_TLS: usize = 4 * 1024;

/// How deep the elements of an LDAP message may lie in each other: a filter may be [`LDAP_FILTER_DEPTH`] deep, with two elements around it.
pub const LDAP_DEPTH: usize = 64;

/// Elements of one LDAP message: those of a group of 200,000 members. Whoever keeps each of them apart takes 100 bytes more for one.
pub const LDAP_ELEMENTS: usize = 256 * 1024;

/// How deep a search filter may be, whatever a target's `filter_depth` says.
pub const LDAP_FILTER_DEPTH: usize = 48;

/// Terms of a search filter, whatever a target's `filter_size` says; each costs a look-up in the rules.
pub const LDAP_FILTER_TERMS: usize = 16 * 1024;

/// How deep a search filter may be unless the target's `filter_depth` says otherwise.
pub const LDAP_FILTER_DEPTH_DEFAULT: usize = 16;

/// Terms of a search filter unless the target's `filter_size` says otherwise: programs ask for some hundred entries by name at once.
pub const LDAP_FILTER_TERMS_DEFAULT: usize = 1024;

/// Controls of one LDAP message; clients send up to five.
pub const LDAP_CONTROLS: usize = 32;

/// Operations of one stream that the directory has not answered yet; one more is answered `busy`. Some 40 bytes each, and clients have
/// one or two.
pub const LDAP_OUTSTANDING: usize = 256;

/// The JSON that asks for a search: some hundred names in a filter.
pub const SEARCH_BODY: usize = 64 * 1024;

/// How long that JSON may take to come.
pub const SEARCH_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stream for searches may wait for the next one; the gateway keeps it for less.
pub const SEARCH_IDLE: Duration = Duration::from_secs(120);

/// What a directory has beyond a search's time to say that it was too short.
pub const SEARCH_GRACE: Duration = Duration::from_secs(2);

/// Attributes that a search may name.
pub const SEARCH_ATTRIBUTES: usize = 256;

/// Entries that are asked of a directory at a time; more than 1000 no Active Directory gives.
pub const SEARCH_PAGE: u32 = 1000;

/// The same unless the search says otherwise.
pub const SEARCH_PAGE_DEFAULT: u32 = 500;

/// Seconds that a search may take.
pub const SEARCH_TIME: u32 = 600;

/// The same unless the search says otherwise.
pub const SEARCH_TIME_DEFAULT: u32 = 60;

/// What is found is handed on in batches of so many bytes and one message, of which two are held.
pub const SEARCH_BATCH: usize = 16 * 1024;

/// A search's answer as one JSON document, which is held whole; as lines it may be of any size.
pub const SEARCH_ANSWER: usize = 8 * 1024 * 1024;

/// The largest message of a directory that a search takes: a group of some 50,000 members, which as JSON has its place in a document.
pub const SEARCH_RESPONSE: usize = SEARCH_ANSWER / 2;

/// A search's message is held so many times: as it came, as it is passed on, in the client library's buffer, which may be half empty (2), in
/// the library's tree, and in the entries of a batch that is gathered, one that waits and one that is taken (3).
pub const SEARCH_COPIES: usize = 8;

/// What each element of such a message takes beside its bytes: some 100 in the tree, and as many in each of the three entries. With it one
/// search of the largest message with the shortest elements, of which there are [`LDAP_ELEMENTS`], is beyond [`LDAP_TARGET_MEMORY`], and one of
/// a group of 50,000 is 58 MB.
pub const SEARCH_ELEMENT: usize = 512;
