//! A refusal as HTTP tells it: a status for programs that know no code of ours, the code in a header, and for people a problem detail
//! (RFC 9457). Refuses to know which step refused, and how the answer travels.

use http::StatusCode;
use serde::Serialize;

use crate::base::code::{Code, Exit, Fault};
use crate::base::id::{RequestId, printable};
use crate::base::limits::MAX_DETAIL;

/// Tells the code of a refusal.
pub const REFUSAL_HEADER: &str = "Underpass-Refusal";

/// The media type of [`Problem::body`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What is shown to a server that asks who its client is.
pub const CHALLENGE: &str = "Basic realm=\"underpass\"";

/// How long a client that asked too often should wait, in seconds.
pub const RETRY_AFTER: &str = "60";

/// What a refused client is told.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Which refusal.
    pub code: Code,
    /// As programs know it.
    pub status: StatusCode,
    /// On what, and why; not for everybody.
    pub detail: Option<&'a str>,
    /// Under which the logs of both ends have it, if it came so far.
    pub request: Option<RequestId>,
}

impl Problem<'_> {
    /// The body: an object, and a line's end for people with a shell.
    #[must_use]
    pub fn body(&self) -> String {
        let told = Told {
            r#type: "about:blank",
            title: self.code.cause(),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.map(|detail| printable(detail, MAX_DETAIL)),
            request: self.request,
        };
        serde_json::to_string(&told).expect("a problem has only texts and numbers") + "\n"
    }
}

#[derive(Serialize)]
struct Told<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestId>,
}

/// The status by whose fault it is (RFC 9110, 15; RFC 6585). Who logs in is answered as by a server; a proxy says
/// [`proxy_status`].
#[must_use]
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::RequestInvalid | Code::RequestPath => StatusCode::BAD_REQUEST,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::LoginRequired | Code::LoginFailed => StatusCode::UNAUTHORIZED,
        Code::LoginLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::TargetUnknown | Code::TargetKindMismatch => StatusCode::NOT_FOUND,
        Code::SearchTooLarge => StatusCode::UNPROCESSABLE_ENTITY,
        Code::OpenTimeout | Code::TargetTimeout | Code::ResponseTimeout | Code::SearchTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::NoAgent
        | Code::QuotaExceeded
        | Code::TargetStreams
        | Code::TargetBusy
        | Code::AgentStreams
        | Code::SessionStreams
        | Code::OutOfDescriptors
        | Code::AgentDraining
        | Code::Stopping
        | Code::AuditFull => StatusCode::SERVICE_UNAVAILABLE,
        code if code.exit() == Exit::Denied && code.fault() != Fault::Target => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// The same of a proxy, who asks for a login of its own.
#[must_use]
pub fn proxy_status(code: Code) -> StatusCode {
    match status(code) {
        StatusCode::UNAUTHORIZED => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        status => status,
    }
}
