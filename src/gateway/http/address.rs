//! Where a request leads: to the target that its host or its path names, and what of its path is the target's. Pure. Refuses to know
//! which targets there are, and who asks.

use http::Method;
use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};

use crate::base::code::{Code, Failure};
use crate::base::id::{GroupId, Name, TargetId, printable};
use crate::wire::name::target_of_label;
use crate::wire::open::Spoken;

/// The forms, as whoever misses them all is told.
const FORMS: &str = "a target is named by path, /t/TENANT/GROUP/TARGET/…, by host, TARGET--GROUP--TENANT below the listener's \
                     `base_domain`, or for a search by POST to /v1/tenants/TENANT/groups/GROUP/targets/TARGET/search";

/// What a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Which target.
    pub(super) target: TargetId,
    /// What will be spoken to its agent.
    pub(super) spoken: Spoken,
    /// The path as the target is asked for it, to the byte as it came.
    pub(super) path: PathAndQuery,
}

/// Reads it. `base` is the listener's domain, in small letters; a host below it goes before any path.
///
/// # Errors
/// `request_invalid` for what two readers could read differently, `target_unknown` for what names none; with the forms.
pub(super) fn address(parts: &Parts, base: Option<&str>) -> Result<Address, Failure> {
    let host = host(parts)?;
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if let Some(label) = base.zip(host.as_deref()).and_then(|(base, host)| label_below(host, base)) {
        let target = target_of_label(&label);
        let unknown = || unknown(format_args!("`{}` is no label of a target: {FORMS}", printable(&label, 80)));
        return Ok(Address { target: target.ok_or_else(unknown)?, spoken: Spoken::Http, path });
    }
    if let Some(rest) = path.as_str().strip_prefix("/t/") {
        return by_path(rest);
    }
    if let Some(rest) = path.as_str().strip_prefix("/v1/tenants/") {
        return search(rest, &parts.method);
    }
    Err(unknown(FORMS))
}

/// The host that a request names: in its URL, or else in its `Host` (RFC 9112, 3.2; RFC 9113, 8.3.1). Two of them refuse, unless they are
/// the same: readers would not agree on one.
///
/// # Errors
/// `request_invalid`.
pub(super) fn host(parts: &Parts) -> Result<Option<String>, Failure> {
    let mut headers = parts.headers.get_all(HOST).iter();
    let header = headers.next().map(|host| Authority::try_from(host.as_bytes())).transpose();
    let header = header.map_err(|_| invalid("its `Host` is no host"))?;
    if headers.next().is_some() {
        return Err(invalid("more than one `Host`"));
    }
    match (parts.uri.authority(), &header) {
        (Some(url), Some(header)) if url != header => Err(invalid("its URL and its `Host` name different hosts")),
        (Some(one), _) | (None, Some(one)) if one.as_str().contains('@') => Err(invalid("a host has no `@`")),
        (Some(one), _) | (None, Some(one)) => Ok(Some(one.as_str().to_ascii_lowercase())),
        (None, None) => Ok(None),
    }
}

/// What stands before the base domain in a host, whatever the port and with or without the root's dot.
fn label_below(host: &str, base: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(name.strip_suffix(base)?.strip_suffix('.')?.to_owned())
}

/// `TENANT/GROUP/TARGET`, and from the next slash on what is the target's.
fn by_path(rest: &str) -> Result<Address, Failure> {
    let (named, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let mut parts = named.splitn(4, '/');
    let target = target([parts.next(), parts.next(), parts.next()])?;
    let path = match parts.next() {
        Some(own) => &rest[named.len() - own.len() - 1..],
        None => query,
    };
    // Without a slash it is the root.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let path = PathAndQuery::from_maybe_shared(path).map_err(|_| invalid("its path is none"))?;
    Ok(Address { target, spoken: Spoken::Http, path })
}

/// `TENANT/groups/GROUP/targets/TARGET/search`.
fn search(rest: &str, method: &Method) -> Result<Address, Failure> {
    let parts: Vec<_> = rest.splitn(7, '/').collect();
    let [tenant, "groups", group, "targets", name, "search"] = parts[..] else { return Err(unknown(FORMS)) };
    let target = target([Some(tenant), Some(group), Some(name)])?;
    if method != Method::POST {
        return Err(invalid("a search is a POST"));
    }
    Ok(Address { target, spoken: Spoken::Search, path: PathAndQuery::from_static("/search") })
}

fn target(names: [Option<&str>; 3]) -> Result<TargetId, Failure> {
    let name = |text: Option<&str>| {
        let text = text.unwrap_or_default();
        Name::parse(text).map_err(|_| unknown(format_args!("`{}` is no name: {FORMS}", printable(text, 64))))
    };
    let [tenant, group, target] = names;
    Ok(TargetId { group: GroupId { tenant: name(tenant)?, group: name(group)? }, target: name(target)? })
}

fn unknown(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::TargetUnknown, why)
}

fn invalid(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, hosts: &[&str]) -> Parts {
        let request =
            hosts.iter().fold(Request::builder().method(method).uri(uri), |request, host| request.header(HOST, *host));
        request.body(()).unwrap().into_parts().0
    }

    fn of(method: &str, uri: &str, host: &str) -> Result<(String, Spoken, String), Failure> {
        let address = address(&parts(method, uri, &[host]), Some("tunnel.example"));
        address.map(|a| (a.target.to_string(), a.spoken, a.path.to_string()))
    }

    #[test]
    fn a_target_is_named_by_path_and_the_rest_is_its_own_to_the_byte() {
        for (uri, rest) in [
            ("/t/acme/dc1/erp", "/"),
            ("/t/acme/dc1/erp/", "/"),
            ("/t/acme/dc1/erp?a=1", "/?a=1"),
            ("/t/acme/dc1/erp?/x", "/?/x"),
            ("/t/acme/dc1/erp/a/b?c=/d", "/a/b?c=/d"),
            ("/t/acme/dc1/erp//a/../%2e%2F;x=1", "//a/../%2e%2F;x=1"),
            ("/t/acme/dc1/erp/%zz", "/%zz"),
        ] {
            assert_eq!(of("GET", uri, "gw.example").unwrap(), ("acme/dc1/erp".into(), Spoken::Http, rest.into()), "{uri}");
        }
    }

    #[test]
    fn a_target_is_named_by_host_below_the_base_domain_which_goes_before_any_path() {
        for host in ["erp--dc1--acme.tunnel.example", "ERP--dc1--ACME.Tunnel.example:8443", "erp--dc1--acme.tunnel.example."] {
            let found = of("GET", "/t/x/y/z?q", host).unwrap();
            assert_eq!(found, ("acme/dc1/erp".into(), Spoken::Http, "/t/x/y/z?q".into()), "{host}");
        }
        assert_eq!(of("OPTIONS", "*", "erp--dc1--acme.tunnel.example").unwrap().2, "*");
        for host in ["tunnel.example", "erp--dc1--acmetunnel.example", "erp--dc1--acme.tunnel.example.evil"] {
            assert_eq!(of("GET", "/t/x/y/z", host).unwrap().0, "x/y/z", "{host}: by path");
        }
        for host in ["erp--dc1.tunnel.example", "a.erp--dc1--acme.tunnel.example", "erp--dc1--acme..tunnel.example"] {
            assert!(of("GET", "/t/x/y/z", host).unwrap_err().detail.contains("no label of a target"), "{host}");
        }
    }

    #[test]
    fn a_search_is_posted_and_goes_on_as_one() {
        let uri = "/v1/tenants/acme/groups/dc1/targets/hr/search";
        assert_eq!(of("POST", uri, "gw").unwrap(), ("acme/dc1/hr".into(), Spoken::Search, "/search".into()));
        assert_eq!(of("GET", uri, "gw").unwrap_err().code, Code::RequestInvalid);
        for uri in ["/v1/tenants/acme/groups/dc1/targets/hr/search/", "/v1/tenants/acme/groups/dc1/targets/hr", "/v1/tenants/"]
        {
            assert_eq!(of("POST", uri, "gw").unwrap_err().code, Code::TargetUnknown, "{uri}");
        }
    }

    #[test]
    fn e1_what_names_no_target_or_two_is_refused_with_the_forms() {
        for uri in ["/", "/t", "/T/a/b/c", "/t/", "/t/a/b", "/t/a//c", "/t/A/b/c", "/t/a/b%2fc/d", "/t/a/b/c--d", "/t/a/../c/d"]
        {
            let failure = of("GET", uri, "gw").unwrap_err();
            assert!(failure.code == Code::TargetUnknown && failure.detail.contains("/t/TENANT/GROUP/TARGET"), "{uri}");
        }
        for (uri, hosts) in [
            ("/t/a/b/c", &["one", "one"][..]),
            ("/t/a/b/c", &["a b"]),
            ("/t/a/b/c", &["user@one"]),
            ("http://one/t/a/b/c", &["two"]),
        ] {
            assert_eq!(address(&parts("GET", uri, hosts), None).unwrap_err().code, Code::RequestInvalid, "{uri} {hosts:?}");
        }
        assert!(address(&parts("GET", "http://one/t/a/b/c", &["One"]), None).is_ok());
        assert!(address(&parts("GET", "/t/a/b/c", &[]), Some("tunnel.example")).is_ok());
    }
}
