//! The routes about client tokens, and what they take and give. Refuses to know how tokens are made and kept.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Answer, Api, known, parse, shown_once};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::grant::Grants;
use crate::base::id::Name;
use crate::base::limits;
use crate::base::secret::Secret;
use crate::control::clients::{ClientTokenInfo, ClientWish, NewClientToken, RevokedClientToken};
use crate::control::op::Caller;
use crate::gateway::quota::Limits;

/// Makes a client token; lists them.
pub const CLIENT_TOKENS: &str = "/v1/client-tokens";

/// The path that revokes a client token, by its name or its id.
#[must_use]
pub fn revoke_client_token_path(token: &Name) -> String {
    format!("{CLIENT_TOKENS}/{token}/revoke")
}

/// Asks for a client token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTokenRequest {
    /// Its name, which no usable token may have yet; one is made up unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it may reach: `tenant/group/target`, each a name or `*`.
    pub grants: Grants,
    /// Streams at a time, on each gateway; no limit unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<usize>,
    /// Bytes per second, both ways together, on each gateway; no limit unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// How long it is valid, from a minute to 10 years; 365 days unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// That it never expires; then there is no `ttl_seconds`.
    #[serde(default)]
    pub never_expires: bool,
}

/// A client token that was just made.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientTokenAnswer {
    /// The string to hand over. It is shown this once.
    #[serde(with = "shown_once")]
    pub token: Secret,
    /// What is known of it.
    #[serde(flatten)]
    pub info: ClientTokenInfo,
    /// Tenants and groups of its grants that nobody has made, such as `tenant acme`: perhaps mistyped.
    pub unknown: Vec<String>,
}

/// The client tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientTokensAnswer {
    /// In the order of their names; those that count no more for 30 days.
    pub client_tokens: Vec<ClientTokenInfo>,
}

pub(super) fn routes() -> Router<Api> {
    Router::new().route(CLIENT_TOKENS, get(list).post(create)).route(&format!("{CLIENT_TOKENS}/{{token}}/revoke"), post(revoke))
}

async fn create(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<ClientTokenAnswer> {
    let caller = known(caller)?;
    let wish = wish(parse(body)?)?;
    let NewClientToken { token, info, unknown } = api.control.create_client_token(&wish, &caller).await?;
    Ok(Json(ClientTokenAnswer { token, info, unknown }))
}

async fn list(State(api): State<Api>) -> Answer<ClientTokensAnswer> {
    Ok(Json(ClientTokensAnswer { client_tokens: api.control.client_tokens().await? }))
}

async fn revoke(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<RevokedClientToken> {
    let caller = known(caller)?;
    let Path(token) = path.or_fail(Code::Usage, "the token's path")?;
    // An id looks like a name, too.
    let token = Name::parse(&token).or_fail(Code::Usage, "the token's path")?;
    Ok(Json(api.control.revoke_client_token(&token, &caller).await?))
}

fn wish(request: ClientTokenRequest) -> Result<ClientWish, Failure> {
    let ClientTokenRequest { name, grants, max_streams, rate, ttl_seconds, never_expires } = request;
    let ttl = match (ttl_seconds, never_expires) {
        (Some(_), true) => {
            return Err(Failure::new(Code::Usage, "the body: `ttl_seconds` and `never_expires` exclude each other"));
        }
        (None, true) => None,
        (Some(seconds), false) => Some(Duration::from_secs(seconds)),
        (None, false) => Some(limits::CLIENT_TOKEN_TTL),
    };
    Ok(ClientWish { name, grants, limits: Limits { max_streams, rate }, ttl })
}
