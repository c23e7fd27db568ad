//! Requests and the rules of HTTP targets. Refuses to know what becomes of a request.

use super::told;
use crate::base::code::Code;
use crate::rules::http::{Ask, Decision, Question, Rules};
use crate::rules::path::Path;

/// The request in an input's first line, under the rules of the other lines. A path that is taken has one reading; the index decides
/// as each rule by itself does; rules are written out so that they are read as the same.
///
/// # Panics
/// When that is not so.
pub fn rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (line, list) = text.split_once('\n').unwrap_or((text, ""));
    taken(line);
    let question = line.parse::<Question>().map_err(|failure| told(&failure));
    let Ok(rules) = serde_saphyr::from_str::<Rules>(list) else { return };
    written(&rules);
    let Ok(question) = question else { return };
    if let Some(path) = taken(&question.path) {
        decided(&rules, &question.ask(&path));
        decided(&Rules::any(), &question.ask(&path));
    }
}

fn taken(raw: &str) -> Option<Path<'_>> {
    let path = match Path::parse(raw) {
        Ok(path) => path,
        Err(failure) => {
            assert_eq!(failure.code, Code::RequestPath);
            told(&failure);
            return None;
        }
    };
    assert_eq!(path.as_str(), raw);
    assert!(raw.starts_with('/') && raw.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#'), "{raw:?}");
    let (small, segments) = (path.path().to_ascii_lowercase(), path.segments().count());
    for hidden in ["%2f", "%5c", "%2e", "%00", "%252", "%255", "\\"] {
        assert!(!small.contains(hidden), "{raw:?}");
    }
    for (place, segment) in path.segments().enumerate() {
        let name = segment.split(';').next().unwrap_or_default();
        assert!(!matches!(name, "." | "..") && (!name.is_empty() || (segment.is_empty() && place + 1 == segments)), "{raw:?}");
    }
    Some(path)
}

fn written(rules: &Rules) {
    let json = serde_json::to_string(rules).expect("rules are texts and numbers");
    let again = serde_json::from_str::<Rules>(&json);
    assert_eq!(again.as_ref().ok(), Some(rules), "{json}");
    for rule in rules.listed().into_iter().flatten() {
        let text = rule.path.to_string();
        assert_eq!(text.parse().ok().as_ref(), Some(&rule.path), "{text}");
    }
}

fn decided(rules: &Rules, ask: &Ask<'_>) {
    let never = ["CONNECT", "TRACE"].contains(&ask.method);
    let one_by_one = rules.listed().unwrap_or_default().iter().position(|rule| !never && rule.permits(ask));
    match rules.decide(ask) {
        Decision::Allow { place, rule } => {
            assert!(rule.permits(ask) && !never, "{rule} {ask:?}");
            assert_eq!(place, one_by_one, "{ask:?}");
        }
        Decision::Deny(denial) => {
            told(&denial.failure);
            assert_eq!(one_by_one, None, "{ask:?}: {denial:?}");
        }
    }
}
