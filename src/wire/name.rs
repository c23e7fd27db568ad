//! A target's name among host names, for clients that can say nothing but a host: `target.group.tenant.underpass`. Such a name
//! is never resolved. Refuses to know which targets there are.

use std::fmt;

use crate::base::code::{Code, Failure};
use crate::base::id::{GroupId, Name, TargetId, printable};

/// The last label. It is no top-level domain, so that a client which resolves names itself fails at once instead of reaching
/// somebody else.
pub const SUFFIX: &str = "underpass";

/// The target that a host names: four labels in ASCII, upper or lower case, perhaps with the root's dot behind them.
///
/// # Errors
/// `request_invalid`, with the form that is expected.
pub fn target_of(host: &str) -> Result<TargetId, Failure> {
    if host.contains('@') {
        // What stands before it may be a password.
        return Err(refused("a target has no `@`: a token is shown as the proxy's password"));
    }
    let lower = host.to_ascii_lowercase();
    let labels: Vec<_> = lower.strip_suffix('.').unwrap_or(&lower).split('.').map(Name::parse).collect();
    match <[_; 4]>::try_from(labels) {
        Ok([Ok(target), Ok(group), Ok(tenant), Ok(suffix)]) if suffix.as_str() == SUFFIX => {
            Ok(TargetId { group: GroupId { tenant, group }, target })
        }
        _ => Err(refused(format_args!("`{}` is not of the form TARGET.GROUP.TENANT.{SUFFIX}", printable(host, 80)))),
    }
}

/// The host that names a target.
#[must_use]
pub fn host_of(id: &TargetId) -> String {
    format!("{}.{}.{}.{SUFFIX}", id.target, id.group.group, id.group.tenant)
}

/// The longest label of a host name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The one label that names a target of kind http below a gateway's domain: `target--group--tenant`. None if it would be longer than a
/// label can be; such a target is reached by path alone.
#[must_use]
pub fn label_of(id: &TargetId) -> Option<String> {
    Some(format!("{}--{}--{}", id.target, id.group.group, id.group.tenant)).filter(|label| label.len() <= MAX_LABEL)
}

/// The target that a label names. No name has two hyphens in a row, so there is one reading.
#[must_use]
pub fn target_of_label(label: &str) -> Option<TargetId> {
    let lower = label.to_ascii_lowercase();
    let names: Vec<_> = lower.split("--").map(Name::parse).collect();
    let Ok([Ok(target), Ok(group), Ok(tenant)]) = <[_; 3]>::try_from(names) else { return None };
    Some(TargetId { group: GroupId { tenant, group }, target })
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_a_target_and_back_unless_it_is_too_long() {
        let id: TargetId = "acme/dc1/erp-api".parse().unwrap();
        assert_eq!(label_of(&id).unwrap(), "erp-api--dc1--acme");
        assert_eq!(target_of_label("ERP-api--dc1--acme"), Some(id));
        for label in ["erp-api--dc1", "a--b--c--d", "--b--c", "a---b--c", "a--b-c", "a.b--c--d", ""] {
            assert_eq!(target_of_label(label), None, "{label}");
        }
        let long = |target: usize| format!("acme/{}/{}", "g".repeat(32), "t".repeat(target)).parse().unwrap();
        assert_eq!(label_of(&long(23)).unwrap().len(), 63);
        assert_eq!(label_of(&long(24)), None);
    }

    #[test]
    fn a_host_names_a_target_and_back() {
        let id: TargetId = "acme/dc1/sales-db".parse().unwrap();
        assert_eq!(host_of(&id), "sales-db.dc1.acme.underpass");
        for host in ["sales-db.dc1.acme.underpass", "sales-db.dc1.acme.underpass.", "Sales-DB.dc1.ACME.UnderPass"] {
            assert_eq!(target_of(host).unwrap(), id, "{host}");
        }
    }

    #[test]
    fn e1_a_host_that_two_readers_read_differently_names_no_target() {
        for host in [
            "",
            ".",
            "underpass",
            "dc1.acme.underpass",
            "a.sales-db.dc1.acme.underpass",
            "sales-db.dc1.acme.underpass..",
            ".sales-db.dc1.acme.underpass",
            "sales-db..acme.underpass",
            "sales-db.dc1.acme.example",
            "sales-db.dc1.acme.underpass.example",
            "sales-db。dc1。acme。underpass",
            "sales-db.dc1.acme.underpass\u{ff0e}",
            "\u{17f}ales-db.dc1.acme.underpass",
            "\u{212a}.dc1.acme.underpass",
            " sales-db.dc1.acme.underpass",
            "sales-db.dc1.acme.underpass ",
            "sales-db.dc1.acme.underpass\0",
            "sales-db.dc1.acme.underpass\r\nx",
            "sales_db.dc1.acme.underpass",
            "sales-db.dc1.acme.%75nderpass",
            "sales--db.dc1.acme.underpass",
            "*.dc1.acme.underpass",
            "../dc1.acme.underpass",
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "localhost.",
            "2130706433",
        ] {
            let failure = target_of(host).unwrap_err();
            assert_eq!(failure.code, Code::RequestInvalid, "{host:?}");
            assert!(failure.detail.contains("TARGET.GROUP.TENANT.underpass"), "{failure}");
        }
    }

    #[test]
    fn i1_r2_what_is_refused_is_quoted_without_a_password_or_a_control_character() {
        let failure = target_of("user:hunter2@sales-db.dc1.acme.underpass").unwrap_err();
        assert!(!failure.detail.contains("hunter2"), "{failure}");
        let failure = target_of(&format!("\u{1b}[2J\n{}", "x".repeat(10_000))).unwrap_err();
        assert!(failure.detail.len() < 200 && !failure.detail.contains(['\u{1b}', '\n']), "{failure}");
    }
}
