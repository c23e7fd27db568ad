//! The API as its client sees it, without the socket.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::clients::{CLIENT_TOKENS, ClientTokenAnswer, ClientTokensAnswer, revoke_client_token_path};
use super::*;
use crate::control::clients::{ClientTokenState, RevokedClientToken};
use crate::control::tests::{Gateway, admin};
use crate::wire::token::{ClientToken, EnrollmentToken};

struct NoSessions;

impl Live for NoSessions {
    fn sessions(&self) -> Vec<LiveSession> {
        Vec::new()
    }
}

struct Client {
    gateway: Gateway,
    caller: Option<Caller>,
}

impl Client {
    async fn new() -> Self {
        Self { gateway: Gateway::new().await, caller: Some(admin()) }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> (u16, serde_json::Value) {
        let api = Api {
            control: Arc::clone(&self.gateway.control),
            live: Arc::new(NoSessions),
            gateway: Name::parse("gw1").unwrap(),
            instance: InstanceId::fresh(),
        };
        let mut request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        if let Some(caller) = self.caller.clone() {
            request.extensions_mut().insert(caller);
        }
        let response = TowerToHyperService::new(router(api)).call(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("no JSON: {bytes:?}")))
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, serde_json::Value) {
        self.send(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        self.send(Method::GET, path, "").await
    }

    /// That it changed nothing.
    fn untouched(&self) -> bool {
        !self.gateway.audit().iter().any(|row| row["event"] == "asked")
    }
}

fn assert_refused((status, body): (u16, serde_json::Value), expected: u16, code: Code) -> String {
    assert_eq!(status, expected, "{body}");
    let error: ErrorBody = serde_json::from_value(body).unwrap();
    assert_eq!(error.code, code.as_str());
    assert_eq!((error.cause.as_str(), error.remedy.as_str()), (code.cause(), code.remedy()));
    error.detail
}

#[tokio::test]
async fn a_token_is_made_agents_are_listed_and_revoked() {
    let client = Client::new().await;
    let (status, body) = client.post(TOKENS, r#"{"tenant":"acme","group":"dc1","ttl_seconds":60}"#).await;
    assert_eq!(status, 200, "{body}");
    let answer: TokenAnswer = serde_json::from_value(body).unwrap();
    let token = EnrollmentToken::parse(answer.token.expose()).unwrap();
    assert_eq!(token.expires, answer.expires);
    assert_eq!(answer.created, ["tenant acme", "group acme/dc1"]);
    assert!(!format!("{answer:?}").contains(answer.token.expose()));

    let enrolled = client.gateway.enroll("acme/dc1/web-1").await;
    let (_, body) = client.get(AGENTS).await;
    let list: AgentsAnswer = serde_json::from_value(body).unwrap();
    assert_eq!((list.agents.len(), &list.agents[0].agent), (1, &enrolled.agent));

    let (status, body) = client.post(&revoke_path(&enrolled.agent), "").await;
    let revoked: RevokedAgent = serde_json::from_value(body).unwrap();
    assert_eq!((status, revoked.agent, revoked.serials), (200, enrolled.agent, vec![list.agents[0].serial]));
    let (_, body) = client.get(AGENTS).await;
    assert!(body["agents"][0]["revoked"].as_str().unwrap().ends_with('Z'), "{body}");
}

#[tokio::test]
async fn agents_are_disabled_and_enabled() {
    let client = Client::new().await;
    client.gateway.enroll("acme/dc1/web-1").await;
    let (status, body) = client.post(DISABLE, r#"{"scope":"acme/dc1"}"#).await;
    assert_eq!((status, &body["scope"]), (200, &"acme/dc1".into()), "{body}");
    assert!(body["disabled"].as_str().unwrap().ends_with('Z') && body["audited"] == true, "{body}");
    let (_, body) = client.get(AGENTS).await;
    let agent = &body["agents"][0];
    assert_eq!((&agent["disabled"][0]["scope"], &agent["tunnel"]), (&"acme/dc1".into(), &"down".into()));
    assert!(agent["disabled"][0]["since"].as_str().unwrap().ends_with('Z'), "{body}");
    let (status, body) = client.post(ENABLE, r#"{"scope":"acme/dc1"}"#).await;
    assert!(status == 200 && body["disabled"].is_null(), "{body}");
    assert_refused(client.post(DISABLE, r#"{"scope":"acme/dc9"}"#).await, 404, Code::AgentUnknown);
    assert_refused(client.post(ENABLE, r#"{"scope":"acme/*"}"#).await, 400, Code::Usage);
}

#[tokio::test]
async fn a_client_token_is_made_listed_and_revoked() {
    let client = Client::new().await;
    client.gateway.token("acme/dc1").await;
    let asked = r#"{"name":"ci","grants":["acme/dc1/*","acm/dc1/db"],"max_streams":5,"rate":1048576,"ttl_seconds":60}"#;
    let (status, body) = client.post(CLIENT_TOKENS, asked).await;
    assert_eq!(status, 200, "{body}");
    let made: ClientTokenAnswer = serde_json::from_value(body.clone()).unwrap();
    assert!(!format!("{made:?}").contains(made.token.expose()));
    let token = ClientToken::parse(made.token.expose()).unwrap();
    assert_eq!(token.endpoints, client.gateway.control.parts.endpoints);
    assert_eq!(token.pin, *client.gateway.control.parts.authority.pin().as_bytes());
    assert_eq!((&body["name"], &body["grants"]), (&"ci".into(), &serde_json::json!(["acme/dc1/*", "acm/dc1/db"])));
    assert_eq!(made.unknown, ["tenant acm"]);
    assert_eq!((made.info.max_streams, made.info.rate.map(NonZeroU32::get)), (Some(5), Some(1 << 20)));
    assert_eq!(made.info.expires, Some(made.info.created + Duration::from_secs(60)));

    let (_, body) = client.get(CLIENT_TOKENS).await;
    assert!(!body.to_string().contains(&made.token.expose()[30..]), "{body}");
    let list: ClientTokensAnswer = serde_json::from_value(body).unwrap();
    assert_eq!(list.client_tokens, [made.info]);

    let (status, body) = client.post(&revoke_client_token_path(&Name::parse("ci").unwrap()), "").await;
    let revoked: RevokedClientToken = serde_json::from_value(body).unwrap();
    assert_eq!((status, revoked.name.as_str(), &revoked.id), (200, "ci", &list.client_tokens[0].id));
    let (_, body) = client.get(CLIENT_TOKENS).await;
    let list: ClientTokensAnswer = serde_json::from_value(body).unwrap();
    assert_eq!(list.client_tokens[0].state, ClientTokenState::Revoked);
}

#[tokio::test]
async fn a_client_token_lives_as_long_as_was_said() {
    let client = Client::new().await;
    let made = async |more: &str| client.post(CLIENT_TOKENS, format!(r#"{{"grants":["a/b/c"]{more}}}"#)).await;
    let life = |(status, body): (u16, serde_json::Value)| {
        assert_eq!(status, 200, "{body}");
        let info: ClientTokenAnswer = serde_json::from_value(body).unwrap();
        info.info.expires.map(|expires| expires - info.info.created)
    };
    assert_eq!(life(made("").await), Some(time::Duration::days(365)));
    assert_eq!(life(made(r#","ttl_seconds":60"#).await), Some(time::Duration::minutes(1)));
    assert_eq!(life(made(r#","ttl_seconds":315360000"#).await), Some(time::Duration::days(3650)));
    assert_eq!(life(made(r#","never_expires":true"#).await), None);
    for wrong in ["0", "59", "315360001", "18446744073709551615"] {
        let detail = assert_refused(made(&format!(r#","ttl_seconds":{wrong}"#)).await, 400, Code::Usage);
        assert!(detail.contains("1 minute to 10 years"), "{detail}");
    }
    assert_refused(made(r#","ttl_seconds":60,"never_expires":true"#).await, 400, Code::Usage);
}

#[tokio::test]
async fn a_wrong_ask_for_a_client_token_is_refused_and_says_what_is_wrong() {
    let client = Client::new().await;
    for (body, says) in [
        ("{}", "missing field `grants`"),
        (r#"{"grants":[]}"#, "0 grants: a caller has 1 to 64"),
        (r#"{"grants":["acme/dc1"]}"#, "`acme/dc1` is no grant"),
        (r#"{"grants":["a/b/c"],"name":"CI"}"#, "`CI` is not a name"),
        (r#"{"grants":["a/b/c"],"expires":1}"#, "unknown field `expires`"),
        (r#"{"grants":["a/b/c"],"max_streams":0}"#, "from 1 to 100000"),
        (r#"{"grants":["a/b/c"],"rate":0}"#, "nonzero"),
        (r#"{"grants":["a/b/c"],"rate":4294967296}"#, "4294967296"),
    ] {
        let detail = assert_refused(client.post(CLIENT_TOKENS, body).await, 400, Code::Usage);
        assert!(detail.contains(says), "{body}: {detail}");
    }
    let many = serde_json::json!({ "grants": vec!["a/b/c"; 65] }).to_string();
    assert_refused(client.post(CLIENT_TOKENS, many).await, 400, Code::Usage);
    assert_eq!(client.get(CLIENT_TOKENS).await.1, serde_json::json!({ "client_tokens": [] }));
}

#[tokio::test]
async fn the_status_says_what_agents_must_trust_and_until_when() {
    let client = Client::new().await;
    let (status, body) = client.get(STATUS).await;
    assert_eq!(status, 200);
    let answer: GatewayStatus = serde_json::from_value(body.clone()).unwrap();
    let authority = &client.gateway.control.parts.authority;
    assert_eq!(answer.pin, authority.pin().to_string());
    assert_eq!(answer.issuing_not_after, authority.issuing_not_after());
    assert_eq!((body["trust_domain"].as_str(), body["gateway"].as_str()), (Some("test.example"), Some("gw1")));
    assert_eq!(body["endpoints"], serde_json::json!(["wss://gw1.example:443"]));
    assert!(!body.to_string().to_lowercase().contains("private"));
}

#[tokio::test]
async fn refusals_have_their_code_and_a_fitting_status() {
    let client = Client::new().await;
    assert_refused(client.post("/v1/agents/acme/dc1/web-1/revoke", "").await, 404, Code::AgentUnknown);
    assert_refused(client.post("/v1/client-tokens/ci/revoke", "").await, 404, Code::ClientTokenUnknown);
    assert_refused(client.post("/v1/client-tokens/CI/revoke", "").await, 400, Code::Usage);
    let asked = r#"{"name":"ci","grants":["a/b/c"]}"#;
    assert_eq!(client.post(CLIENT_TOKENS, asked).await.0, 200);
    assert_refused(client.post(CLIENT_TOKENS, asked).await, 409, Code::ClientTokenExists);
    assert_refused(client.get("/v1/nothing").await, 404, Code::Usage);
    assert_refused(client.get(TOKENS).await, 405, Code::Usage);
    let detail = assert_refused(client.post(TOKENS, r#"{"tenant":"Acme","group":"dc1"}"#).await, 400, Code::Usage);
    assert!(detail.contains("`Acme` is not a name"), "{detail}");
    let detail = assert_refused(client.post(TOKENS, r#"{"tenant":"a","group":"b","tll":1}"#).await, 400, Code::Usage);
    assert!(detail.contains("unknown field `tll`"), "{detail}");
    for body in ["", "{}", "null", "[]", "{\"tenant\":\"a\",\"group\":\"b\"} x", "\u{0}"] {
        assert_refused(client.post(TOKENS, body).await, 400, Code::Usage);
    }
    for ttl in ["0", "604801", "18446744073709551615"] {
        let body = format!(r#"{{"tenant":"a","group":"b","ttl_seconds":{ttl}}}"#);
        assert_refused(client.post(TOKENS, body).await, 400, Code::Usage);
    }
}

#[tokio::test]
async fn a_path_names_one_agent_or_none() {
    let client = Client::new().await;
    client.gateway.enroll("acme/dc1/web-1").await;
    for path in
        ["/v1/agents/acme/dc1/%2e%2e/revoke", "/v1/agents/acme/dc1/web-1%2Fx/revoke", "/v1/agents/acme/dc1/WEB-1/revoke"]
    {
        assert_refused(client.post(path, "").await, 400, Code::Usage);
    }
    assert_refused(client.post("/v1/agents/acme/dc1/../web-1/revoke", "").await, 404, Code::Usage);
    assert_refused(client.post("/v1/agents/acme/dc1/%ff/revoke", "").await, 400, Code::Usage);
}

#[tokio::test]
async fn r1_nothing_is_changed_for_somebody_unknown() {
    let mut client = Client::new().await;
    client.caller = None;
    assert_refused(client.post(TOKENS, r#"{"tenant":"acme","group":"dc1"}"#).await, 500, Code::Internal);
    assert_refused(client.post("/v1/agents/acme/dc1/web-1/revoke", "").await, 500, Code::Internal);
    assert_refused(client.post(CLIENT_TOKENS, r#"{"grants":["a/b/c"]}"#).await, 500, Code::Internal);
    assert_refused(client.post("/v1/client-tokens/ci/revoke", "").await, 500, Code::Internal);
    assert!(client.untouched());
}

#[tokio::test]
async fn d9_a_large_body_is_refused_unread() {
    let client = Client::new().await;
    let body = |length: usize| format!("{:length$}", r#"{"tenant":"Acme","group":"dc1"}"#);
    let detail = assert_refused(client.post(TOKENS, body(limits::MAX_HTTP_REQUEST + 1)).await, 413, Code::Usage);
    assert!(detail.contains("16384"), "{detail}");
    assert_refused(client.post(TOKENS, body(limits::MAX_HTTP_REQUEST)).await, 400, Code::Usage);
    // One that doesn't say how long it is, and never ends.
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 1024])));
    assert_refused(client.post(TOKENS, Body::from_stream(endless)).await, 413, Code::Usage);
    let many = serde_json::json!({ "grants": vec!["acme/dc1/*"; 1300] }).to_string();
    assert_refused(client.post(CLIENT_TOKENS, many).await, 413, Code::Usage);
    assert!(client.untouched());
}

#[tokio::test]
async fn d9_depth_bombs_are_refused() {
    let client = Client::new().await;
    for open in ["[", r#"{"tenant":"#, r#"{"a":"#, r#"[{"tenant":"#, r#"{"grants":"#, r#"{"grants":["#] {
        let bomb = open.repeat(16 * 1024 / open.len());
        assert_refused(client.post(TOKENS, bomb.clone()).await, 400, Code::Usage);
        assert_refused(client.post(CLIENT_TOKENS, bomb).await, 400, Code::Usage);
    }
    let nested = format!(r#"{{"tenant":"a","group":{}"b"{}}}"#, "[".repeat(8000), "]".repeat(8000));
    assert_refused(client.post(TOKENS, nested).await, 400, Code::Usage);
    assert!(client.untouched());
}

#[tokio::test]
async fn r2_what_a_client_sends_is_echoed_without_its_control_characters() {
    let client = Client::new().await;
    let detail = assert_refused(client.post(TOKENS, "{\"\\u001b[2J\\r\\nx\":1}").await, 400, Code::Usage);
    assert!(!detail.contains(['\u{1b}', '\r', '\n']), "{detail:?}");
}
