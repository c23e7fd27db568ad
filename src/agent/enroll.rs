//! Enrollment, the agent's end: a key that never leaves, a request over TLS pinned by the token, the answer checked.
//! It refuses to know where the results are kept, but for the key, which must be saved before it is used.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::id::{AgentId, Name, printable};
use crate::base::limits::DIAL_DEADLINE;
use crate::pki::pin::{self, Pin};
use crate::pki::renew::Credential;
use crate::pki::request::PrivateKey;
use crate::pki::tls;
use crate::tunnel::dial::{self, Egress, Secured};
use crate::wire::enroll::{EnrollRequest, EnrollResponse, ErrorBody, PATH};
use crate::wire::token::EnrollmentToken;

/// The answer's size: three certificates take 3 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// What an agent has afterwards.
pub struct Enrollment {
    /// Its certificate and key.
    pub credential: Credential,
    /// Who it is now.
    pub agent: AgentId,
    /// The only trust anchor.
    pub root: CertificateDer<'static>,
    /// Where to dial.
    pub endpoints: Vec<Endpoint>,
}

/// Redeems a token for `key`, which the caller has saved: repeating it with the same key repeats the answer.
///
/// # Errors
/// `token_pin`, `token_expired`, what dialling reports for the last endpoint, or the gateway's refusal.
pub async fn enroll(
    token: &EnrollmentToken,
    key: PrivateKey,
    name: Option<&Name>,
    egress: &Egress,
) -> Result<Enrollment, Failure> {
    let pin = Pin::from_bytes(token.pin);
    pin::check_built_in(pin)?;
    let mut failure = Failure::new(Code::TokenInvalid, "the token names no endpoint");
    for endpoint in &token.endpoints {
        let attempt = ask(token, pin, &key, name, egress, endpoint);
        let timed_out =
            || Failure::new(Code::GatewayTimeout, format_args!("{endpoint}: no answer within {} s", DIAL_DEADLINE.as_secs()));
        match tokio::time::timeout(DIAL_DEADLINE, attempt).await.unwrap_or_else(|_| Err(timed_out().into())) {
            Ok((answer, root)) => return accept(answer, root, key, token),
            // An answer is an answer: only an unreachable gateway is a reason to ask another.
            Err(Attempt::Refused(refused)) => return Err(refused),
            Err(Attempt::Unreachable(unreachable)) => failure = unreachable,
        }
    }
    Err(failure)
}

enum Attempt {
    Refused(Failure),
    Unreachable(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Unreachable(failure)
    }
}

async fn ask(
    token: &EnrollmentToken,
    pin: Pin,
    key: &PrivateKey,
    name: Option<&Name>,
    egress: &Egress,
    endpoint: &Endpoint,
) -> Result<(EnrollResponse, CertificateDer<'static>), Attempt> {
    let (config, root) = tls::enroll_client(pin);
    let proxy = egress.proxy_for(&endpoint.0)?;
    let stream = dial::secure(&endpoint.0, proxy.as_ref(), config).await?;
    let (root, _) = root.of(stream.get_ref().1)?;
    let body = EnrollRequest {
        secret: token.secret.encode().expose().to_owned(),
        csr: STANDARD.encode(key.csr_der()?),
        name: name.map(ToString::to_string),
    };
    let body = serde_json::to_vec(&body).or_fail(Code::Internal, "writing the request")?;
    let (status, answer) = post(stream, &endpoint.0, body).await?;
    if status.is_success() {
        let answer =
            serde_json::from_slice(&answer).or_fail(Code::EnrollRefused, format_args!("{endpoint} answered no JSON"))?;
        return Ok((answer, root));
    }
    let refused = match serde_json::from_slice::<ErrorBody>(&answer) {
        Ok(error) => Failure::new(error.code.parse().unwrap_or(Code::EnrollRefused), error.detail),
        Err(_) => Failure::new(Code::EnrollRefused, format_args!("{endpoint} answered HTTP {status}")),
    };
    Err(Attempt::Refused(refused))
}

async fn post(stream: Secured, to: &HostPort, body: Vec<u8>) -> Result<(http::StatusCode, Bytes), Failure> {
    let broken = |error: hyper::Error| Failure::new(Code::GatewayUnreachable, format_args!("{to}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let request = http::Request::post(PATH)
        .header("Host", to.to_string())
        .header("Content-Type", "application/json")
        .body(Full::from(body))
        .or_fail(Code::Internal, "building the request")?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| Failure::new(Code::EnrollRefused, printable(&error.to_string(), 200)))?.to_bytes()))
    };
    dial::beside(connection, exchange).await
}

/// Takes nothing on trust: the certificate must be for our key, of a chain that ends in the pinned root, and an agent's.
fn accept(
    answer: EnrollResponse,
    root: CertificateDer<'static>,
    key: PrivateKey,
    token: &EnrollmentToken,
) -> Result<Enrollment, Failure> {
    let credential = Credential::from_pem(&answer.chain, key)?;
    let wrong = |what: &str| Failure::new(Code::EnrollRefused, format_args!("the gateway's answer: {what}"));
    if credential.chain().last() != Some(&root) {
        return Err(wrong("the chain does not end in the pinned root"));
    }
    let agent = credential.identity().agent().cloned().ok_or_else(|| wrong("the certificate is no agent's"))?;
    tls::AgentTls::new(&credential, &root)?;
    let endpoints: Vec<_> = answer.endpoints.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let endpoints = if endpoints.is_empty() { token.endpoints.clone() } else { endpoints };
    Ok(Enrollment { credential, agent, root, endpoints })
}
