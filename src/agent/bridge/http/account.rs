//! The account of one request: its row in the audit and its place in the metrics, whatever ends it. Refuses to know why it ends.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::Bridge;
use super::body::Passed;
use crate::base::code::{Code, Failure};
use crate::base::id::RequestId;
use crate::observe::audit::Event;
use crate::observe::metrics;

/// A request under way. Dropping it writes its row: unless somebody says otherwise, the client gave it up.
pub(super) struct Account {
    bridge: Arc<Bridge>,
    request: RequestId,
    method: Method,
    /// Without its query, which may hold secrets.
    path: String,
    status: Option<StatusCode>,
    code: Option<Code>,
    detail: Option<String>,
    passed: Arc<Passed>,
    down: u64,
    since: Instant,
}

impl Account {
    pub(super) fn begin(bridge: &Arc<Bridge>, request: RequestId, method: Method, path: &str) -> Self {
        let (bridge, passed, since) = (bridge.clone(), Arc::new(Passed::new()), Instant::now());
        let (path, code) = (path.to_owned(), Some(Code::ClientReset));
        Self { bridge, request, method, path, status: None, code, detail: None, passed, down: 0, since }
    }

    pub(super) fn request(&self) -> RequestId {
        self.request
    }

    pub(super) fn passed(&self) -> &Arc<Passed> {
        &self.passed
    }

    /// The origin's answer goes to the client.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Our own answer goes to the client, and is whole whether or not it is read.
    pub(super) fn refused(&mut self, status: StatusCode, failure: &Failure) {
        metrics::refused(failure.code);
        self.status = Some(status);
        self.code = Some(failure.code);
        self.detail = Some(failure.detail.clone());
    }

    /// So much of the answer has passed.
    pub(super) fn down(&mut self, bytes: usize) {
        self.down += bytes as u64;
    }

    /// So much has passed each way after it became another protocol's.
    pub(super) fn switched(&mut self, up: u64, down: u64) {
        self.passed.count(up);
        self.down += down;
    }

    /// It came to its end.
    pub(super) fn whole(mut self) {
        if self.code == Some(Code::ClientReset) {
            self.code = None;
        }
    }

    /// It broke off.
    pub(super) fn broken(mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let status = self.status.map(|status| status.as_u16());
        metrics::http_request(status, took);
        let Bridge { agent, open, .. } = &*self.bridge;
        let (request, detail) = (self.request, self.detail.as_deref());
        // A row that can't be kept refuses the next request, not the end of this one.
        let told = agent.audit.limited(&Event::Request {
            request: self.request,
            stream: Some(open.request),
            target: open.target.as_str(),
            caller: &open.caller,
            source: None,
            method: self.method.as_str(),
            path: &self.path,
            status,
            code: self.code,
            detail,
            up: self.passed.bytes(),
            down: self.down,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        if let (true, Some(code), Some(detail)) = (told, self.code, detail) {
            tracing::warn!(%request, target = %open.target, caller = open.caller, %code, detail, "request refused");
        }
    }
}
