//! The one door for `fuzz/` and `benches/micro.rs`: what each fuzz target does with its input, which the tests do with its corpus, too;
//! and an end of a connection for benchmarks. No part of the product. Refuses to know how inputs are found and what is measured.

pub mod clients;
#[cfg(any(feature = "cli", feature = "fuzzing"))]
mod config;
mod csr;
mod http;
pub mod ldap;
mod messages;
#[cfg(any(feature = "cli", feature = "fuzzing"))]
mod rules;
mod search;
mod token;
mod websocket;

#[cfg(any(feature = "cli", feature = "fuzzing"))]
pub use config::config;
pub use csr::csr;
pub use http::http;
pub use messages::{control, preface};
#[cfg(any(feature = "cli", feature = "fuzzing"))]
pub use rules::rules;
pub use search::search;
pub use token::token;
pub use websocket::websocket;

#[cfg(feature = "fuzzing")]
pub use crate::tunnel::mux::bench::End;
pub use crate::tunnel::mux::exercise::exercise as yamux;

use crate::base::code::Failure;
use crate::base::id::unprintable;

/// An error's detail with what went on around it, in characters.
const MAX_TOLD: usize = 2100;

/// An error is one line that a terminal and a log can show.
fn told(failure: &Failure) {
    shown(&failure.detail, MAX_TOLD);
}

/// A text from outside can be shown, and has at most so many characters and one that says it was cut.
fn shown(text: &str, max: usize) {
    assert!(!text.contains(unprintable), "not printable: {text:?}");
    let length = text.chars().count();
    assert!(length <= max + 1, "{length} characters, more than {max}: {text:?}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs every input that is kept of a target.
    fn replay(target: &str, run: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let inputs: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!inputs.is_empty());
        inputs.iter().for_each(|input| run(input));
    }

    #[test]
    fn t1_the_corpus_of_websocket_frames_breaks_nothing() {
        replay("websocket", super::websocket);
    }

    #[test]
    fn t1_the_corpus_of_mux_programs_breaks_nothing() {
        replay("yamux", super::yamux);
    }

    #[test]
    fn t1_the_corpus_of_control_messages_breaks_nothing() {
        replay("control", super::control);
    }

    #[test]
    fn t1_the_corpus_of_stream_prefaces_breaks_nothing() {
        replay("preface", super::preface);
    }

    #[test]
    fn i1_the_corpus_of_enrollment_tokens_breaks_and_shows_nothing() {
        replay("token", super::token);
    }

    #[test]
    fn s7_the_corpus_of_certificate_requests_gets_nothing_but_its_key_certified() {
        replay("csr", super::csr);
    }

    #[cfg(any(feature = "cli", feature = "fuzzing"))]
    #[test]
    fn i1_the_corpus_of_configurations_is_refused_in_one_line_or_loads_again() {
        replay("config", super::config);
    }

    #[cfg(any(feature = "cli", feature = "fuzzing"))]
    #[test]
    fn d9_the_corpus_of_rules_decides_as_each_rule_does() {
        replay("rules", super::rules);
    }

    #[test]
    fn e3_the_corpus_of_http_heads_goes_on_as_one_request_or_not_at_all() {
        replay("http", super::http);
    }

    #[test]
    fn d2_the_corpus_of_connect_heads_breaks_nothing() {
        replay("connect", super::clients::connect);
    }

    #[test]
    fn d2_the_corpus_of_proxy_headers_breaks_nothing() {
        replay("proxy", super::clients::proxy);
    }

    #[test]
    fn d7_the_corpus_of_ldap_conversations_breaks_nothing_and_shows_no_secret() {
        replay("ldap", super::ldap::messages);
    }

    #[test]
    fn e6_the_corpus_of_filters_and_names_is_written_as_it_is_read() {
        replay("ldap_text", super::ldap::texts);
    }

    #[test]
    fn i1_the_corpus_of_searches_shows_no_password_and_keeps_its_filters() {
        replay("search", super::search);
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn d2_the_corpus_of_socks5_heads_breaks_nothing() {
        replay("socks5", super::clients::socks5);
    }
}
