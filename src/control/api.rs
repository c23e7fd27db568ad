//! The admin API: JSON over HTTP, on a socket that only the gateway's own user can reach. The command line is its client and uses
//! the same types. Refuses to know how the socket is served and what is decided.
//!
//! | route | takes | gives |
//! |---|---|---|
//! | `POST /v1/enrollment-tokens` | [`TokenRequest`] | [`TokenAnswer`] |
//! | `POST /v1/client-tokens` | [`clients::ClientTokenRequest`] | [`clients::ClientTokenAnswer`] |
//! | `GET /v1/client-tokens` | | [`clients::ClientTokensAnswer`] |
//! | `POST /v1/client-tokens/{name or id}/revoke` | | [`RevokedClientToken`](super::clients::RevokedClientToken) |
//! | `GET /v1/agents` | | [`AgentsAnswer`] |
//! | `POST /v1/agents/{tenant}/{group}/{agent}/revoke` | | [`RevokedAgent`] |
//! | `POST /v1/agents/disable`, `…/enable` | [`ScopeRequest`] | [`Standing`] |
//! | `GET /v1/status` | | [`GatewayStatus`] |
//!
//! Refusals are an [`ErrorBody`] with a fitting status.

pub mod clients;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::agents::{AgentInfo, Live, LiveSession, RevokedAgent};
use super::disable::Standing;
use super::op::Caller;
use super::{Control, text};
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::endpoint::Endpoint;
use crate::base::id::{AgentId, GroupId, InstanceId, Name, printable};
use crate::base::limits;
use crate::base::scope::Scope;
use crate::base::secret::Secret;
use crate::pki::identity::TrustDomain;
use crate::wire::enroll::ErrorBody;

/// Makes an enrollment token.
pub const TOKENS: &str = "/v1/enrollment-tokens";
/// Lists the agents.
pub const AGENTS: &str = "/v1/agents";
/// Disables agents.
pub const DISABLE: &str = "/v1/agents/disable";
/// Lets them in again.
pub const ENABLE: &str = "/v1/agents/enable";
/// Says how the gateway is.
pub const STATUS: &str = "/v1/status";

/// The path that revokes an agent.
#[must_use]
pub fn revoke_path(agent: &AgentId) -> String {
    format!("{AGENTS}/{agent}/revoke")
}

/// Asks for an enrollment token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The tenant; made if it doesn't exist.
    pub tenant: Name,
    /// The group; made if it doesn't exist.
    pub group: Name,
    /// How long it is valid; an hour unless said, at most 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// An enrollment token.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The string to hand over. It is shown this once.
    #[serde(with = "shown_once")]
    pub token: Secret,
    /// What the audit calls it.
    pub id: String,
    /// Until when it may be used.
    #[serde(with = "text::utc")]
    pub expires: OffsetDateTime,
    /// What was made along with it, such as `tenant acme`.
    pub created: Vec<String>,
}

/// Says which agents are meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeRequest {
    /// An agent, a group or a tenant.
    pub scope: Scope,
}

/// The enrolled agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentsAnswer {
    /// In the order of their names.
    pub agents: Vec<AgentInfo>,
}

/// How the gateway is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// The gateway's name.
    pub gateway: Name,
    /// This run of it.
    pub instance: InstanceId,
    /// The program's version.
    pub version: String,
    /// The pin that tokens carry: SHA-256 of the root's public key, in hexadecimal.
    pub pin: String,
    /// The name of the PKI.
    pub trust_domain: TrustDomain,
    /// Where agents dial it.
    pub endpoints: Vec<Endpoint>,
    /// When the issuing CA ends, and every certificate with it.
    #[serde(with = "text::utc")]
    pub issuing_not_after: OffsetDateTime,
    /// The live sessions.
    pub sessions: Vec<LiveSession>,
}

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// Decides.
    pub control: Arc<Control>,
    /// Knows the live sessions.
    pub live: Arc<dyn Live>,
    /// The gateway's name.
    pub gateway: Name,
    /// This run of it.
    pub instance: InstanceId,
}

/// The routes. Whoever serves them adds a [`Caller`] to the extensions of every request; without one nothing is changed.
pub fn router(api: Api) -> Router {
    Router::new()
        .route(TOKENS, post(create_token))
        .route(AGENTS, get(list_agents))
        .route(&format!("{AGENTS}/{{tenant}}/{{group}}/{{agent}}/revoke"), post(revoke_agent))
        .route(DISABLE, post(disable))
        .route(ENABLE, post(enable))
        .route(STATUS, get(status))
        .merge(clients::routes())
        .fallback(async || Refused(StatusCode::NOT_FOUND, Failure::new(Code::Usage, "there is no such route")))
        .method_not_allowed_fallback(async || {
            Refused(StatusCode::METHOD_NOT_ALLOWED, Failure::new(Code::Usage, "the route has another method"))
        })
        .layer(DefaultBodyLimit::max(limits::MAX_HTTP_REQUEST))
        .with_state(api)
}

type Answer<T> = Result<Json<T>, Refused>;

async fn create_token(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<TokenAnswer> {
    let caller = known(caller)?;
    let TokenRequest { tenant, group, ttl_seconds } = parse(body)?;
    let ttl = ttl_seconds.map(Duration::from_secs);
    let made = api.control.create_token(&GroupId { tenant, group }, ttl, &caller).await?;
    Ok(Json(TokenAnswer { token: made.token, id: made.id, expires: made.expires, created: made.created }))
}

async fn list_agents(State(api): State<Api>) -> Answer<AgentsAnswer> {
    Ok(Json(AgentsAnswer { agents: api.control.agents(&*api.live).await? }))
}

async fn revoke_agent(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Answer<RevokedAgent> {
    let caller = known(caller)?;
    let Path((tenant, group, agent)) = path.or_fail(Code::Usage, "the agent's path")?;
    let name = |text: &str| Name::parse(text).or_fail(Code::Usage, "the agent's path");
    let agent = AgentId { group: GroupId { tenant: name(&tenant)?, group: name(&group)? }, agent: name(&agent)? };
    Ok(Json(api.control.revoke(&agent, &caller).await?))
}

type Body = Result<Bytes, BytesRejection>;

async fn disable(State(api): State<Api>, caller: Option<Extension<Caller>>, body: Body) -> Answer<Standing> {
    let caller = known(caller)?;
    let ScopeRequest { scope } = parse(body)?;
    Ok(Json(api.control.disable(&scope, &caller).await?))
}

async fn enable(State(api): State<Api>, caller: Option<Extension<Caller>>, body: Body) -> Answer<Standing> {
    let caller = known(caller)?;
    let ScopeRequest { scope } = parse(body)?;
    Ok(Json(api.control.enable(&scope, &caller).await?))
}

async fn status(State(api): State<Api>) -> Json<GatewayStatus> {
    let parts = &api.control.parts;
    Json(GatewayStatus {
        gateway: api.gateway,
        instance: api.instance,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pin: parts.authority.pin().to_string(),
        trust_domain: parts.authority.trust_domain().clone(),
        endpoints: parts.endpoints.clone(),
        issuing_not_after: parts.authority.issuing_not_after(),
        sessions: api.live.sessions(),
    })
}

fn known(caller: Option<Extension<Caller>>) -> Result<Caller, Failure> {
    caller.map(|Extension(caller)| caller).ok_or_else(|| Failure::new(Code::Internal, "the request came without its caller"))
}

/// Reads a body. Its size is bounded before, its depth by the parser (128).
fn parse<T: serde::de::DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refused> {
    let body = body.map_err(|rejection| {
        let why = format_args!("the body: {}; at most {} bytes are read", rejection.body_text(), limits::MAX_HTTP_REQUEST);
        Refused(rejection.status(), Failure::new(Code::Usage, why))
    })?;
    let wrong = |error: serde_json::Error| Failure::new(Code::Usage, printable(&format!("the body: {error}"), 300));
    Ok(serde_json::from_slice(&body).map_err(wrong)?)
}

/// A refusal as it is answered.
struct Refused(StatusCode, Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let status = match (failure.code, failure.code.exit()) {
            (Code::AgentUnknown | Code::ClientTokenUnknown, _) => StatusCode::NOT_FOUND,
            (Code::ClientTokenExists, _) => StatusCode::CONFLICT,
            (_, Exit::Usage) => StatusCode::BAD_REQUEST,
            (_, Exit::Denied) => StatusCode::FORBIDDEN,
            (_, Exit::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Exit::Ok | Exit::Internal | Exit::Cut | Exit::Config) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Failure { code, detail } = self.1;
        let body =
            ErrorBody { code: code.to_string(), detail, cause: code.cause().to_owned(), remedy: code.remedy().to_owned() };
        (self.0, Json(body)).into_response()
    }
}

/// The one place where a secret is written out: the answer to whoever asked for it.
mod shown_once {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    use crate::base::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Ok(Secret::new(&Zeroizing::new(String::deserialize(deserializer)?)))
    }
}

#[cfg(test)]
mod tests;
