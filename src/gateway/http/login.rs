//! Who sends a request: by a token in `Proxy-Authorization`, or in an `Authorization` that holds one of ours, or by the certificate of the
//! connection. Refuses to know what callers may do.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use time::OffsetDateTime;

use crate::base::code::{Code, Failure};
use crate::base::secret::Secret;
use crate::gateway::Gateway;
use crate::gateway::callers::Caller;
use crate::gateway::ingress::Certified;
use crate::wire::login;
use crate::wire::token::ClientToken;

/// Who a client is, and how it was known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Whoever it is.
    pub(super) caller: Arc<Caller>,
    /// When the certificate ends that it was known by.
    pub(super) until: Option<OffsetDateTime>,
    /// Whether `Authorization` was meant for the gateway: it is no business of the target's then.
    pub(super) by_authorization: bool,
}

/// Finds out. A wrong token is not made good by a certificate, nor the other way round.
///
/// # Errors
/// `login_required`, `login_failed`, `login_limited`; `request_invalid` for what is no login.
pub(super) fn login(
    gateway: &Gateway,
    headers: &HeaderMap,
    source: SocketAddr,
    certified: &Result<Option<Certified>, Failure>,
) -> Result<Known, Failure> {
    let certified = certified.as_ref().map_err(Failure::clone)?;
    if let Some((token, by_authorization)) = token(headers)? {
        return Ok(Known { caller: gateway.login(&token, source.ip())?, until: None, by_authorization });
    }
    let nobody = || Failure::new(Code::LoginRequired, "neither a token nor a certificate was shown");
    let Certified { caller, until } = certified.clone().ok_or_else(nobody)?;
    Ok(Known { caller, until: Some(until), by_authorization: false })
}

/// The token that a request shows, and whether it did in `Authorization`.
fn token(headers: &HeaderMap) -> Result<Option<(Secret, bool)>, Failure> {
    if let Some(value) = only(headers, PROXY_AUTHORIZATION)? {
        // One that is shown twice is nobody else's for that.
        let other = only(headers, AUTHORIZATION)?.is_some_and(holds_token);
        return Ok(Some((login::of_header(value.as_bytes())?, other)));
    }
    let shown = only(headers, AUTHORIZATION)?.and_then(|value| login::of_header(value.as_bytes()).ok());
    // Any other is between the client and the target.
    Ok(shown.filter(|token| token.expose().starts_with(ClientToken::PREFIX)).map(|token| (token, true)))
}

/// Whether a login holds a client token anywhere, also where none is taken from.
fn holds_token(value: &HeaderValue) -> bool {
    let shows = |bytes: &[u8]| bytes.windows(ClientToken::PREFIX.len()).any(|part| part == ClientToken::PREFIX.as_bytes());
    let credentials = value.as_bytes().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    shows(value.as_bytes()) || STANDARD.decode(credentials).is_ok_and(|decoded| shows(&decoded))
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Failure> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Failure::new(Code::RequestInvalid, format_args!("the header {name} comes twice"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::grant::Grants;
    use crate::gateway::callers::{PublishedToken, token_hash};
    use crate::gateway::fixture::{caller, gateway};
    use crate::gateway::quota::Limits;

    const TOKEN: &str = "underpass-client-1.AAAA";

    fn headers(headers: &[(HeaderName, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn basic(password: &str) -> String {
        login::to_header(&Secret::new(password)).to_string()
    }

    fn published(text: &str, name: &str) -> PublishedToken {
        let grants = Grants::new(vec!["acme/dc1/*".parse().unwrap()]).unwrap();
        PublishedToken { hash: token_hash(text), name: name.to_owned(), grants, limits: Limits::default(), expires: None }
    }

    #[tokio::test]
    async fn i1_i5_a_caller_is_known_by_token_or_certificate_and_a_targets_own_login_is_not_ours() {
        let (gateway, _rows, _tasks) = gateway();
        gateway.callers.publish(vec![published(TOKEN, "ci"), published("plain", "old")]);
        let until = OffsetDateTime::now_utc();
        let shown = Ok(Some(Certified { caller: caller("certificate x", "acme/dc1/*"), until }));
        let source = "192.0.2.1:1".parse().unwrap();
        let (bearer, own) = (format!("Bearer {TOKEN}"), basic(TOKEN));
        let who = |map: &[(HeaderName, &str)], certified| {
            let found = login(&gateway, &headers(map), source, certified);
            found.map(|found| (found.caller.name().to_owned(), found.until, found.by_authorization)).map_err(|f| f.code)
        };
        let ci = |by_authorization| Ok(("token ci".to_owned(), None, by_authorization));
        assert_eq!(who(&[(PROXY_AUTHORIZATION, &own), (AUTHORIZATION, "Bearer erp")], &Ok(None)), ci(false));
        assert_eq!(who(&[(PROXY_AUTHORIZATION, &basic("plain"))], &Ok(None)), Ok(("token old".to_owned(), None, false)));
        assert_eq!(who(&[(AUTHORIZATION, &bearer)], &shown), ci(true));
        assert_eq!(who(&[(AUTHORIZATION, &own)], &Ok(None)), ci(true));

        // Shown twice, or in another place than where it is read, it is still not the target's to see.
        assert_eq!(who(&[(PROXY_AUTHORIZATION, &own), (AUTHORIZATION, &bearer)], &Ok(None)), ci(true));
        let as_user = format!("Basic {}", STANDARD.encode(format!("{TOKEN}:x")));
        assert_eq!(who(&[(PROXY_AUTHORIZATION, &own), (AUTHORIZATION, &as_user)], &Ok(None)), ci(true));

        for theirs in ["Bearer erp", "Negotiate YII=", &basic("plain"), "x"] {
            let certificate = Ok(("certificate x".to_owned(), Some(until), false));
            assert_eq!(who(&[(AUTHORIZATION, theirs)], &shown), certificate, "{theirs}");
            assert_eq!(who(&[(AUTHORIZATION, theirs)], &Ok(None)), Err(Code::LoginRequired), "{theirs}");
        }
        let wrong = Err(Failure::new(Code::LoginFailed, "another name"));
        assert_eq!(who(&[(AUTHORIZATION, &bearer)], &wrong), Err(Code::LoginFailed));
        assert_eq!(who(&[(PROXY_AUTHORIZATION, "Bearer wrong")], &shown), Err(Code::LoginFailed));
        assert_eq!(who(&[(PROXY_AUTHORIZATION, &own), (PROXY_AUTHORIZATION, &own)], &shown), Err(Code::RequestInvalid));
        assert_eq!(who(&[(AUTHORIZATION, &own), (AUTHORIZATION, "Bearer erp")], &Ok(None)), Err(Code::RequestInvalid));
    }
}
