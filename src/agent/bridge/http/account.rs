//! The account of one request: its row in the audit and its place in the metrics, whatever ends it. Refuses to know why it ends.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::Bridge;
use super::body::Passed;
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::observe::audit::Event;
use crate::observe::metrics;

/// A request under way. Dropping it writes its row.
pub(super) struct Account {
    bridge: Arc<Bridge>,
    request: RequestId,
    method: http::Method,
    /// Without its query, which may hold secrets.
    path: String,
    status: Option<StatusCode>,
    code: Option<Code>,
    passed: Arc<Passed>,
    down: u64,
    since: Instant,
}

impl Account {
    pub(super) fn begin(bridge: &Arc<Bridge>, request: RequestId, method: http::Method, path: &str) -> Self {
        let (bridge, passed, since) = (bridge.clone(), Arc::new(Passed::new()), Instant::now());
        let path = path.to_owned();
        Self { bridge, request, method, path, status: None, code: Some(Code::ClientReset), passed, down: 0, since }
    }

    pub(super) fn request(&self) -> RequestId {
        self.request
    }

    pub(super) fn passed(&self) -> &Arc<Passed> {
        &self.passed
    }

    /// The client is being answered.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The request was refused, or the origin failed.
    pub(super) fn failed(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// So much of the answer has passed.
    pub(super) fn down(&mut self, bytes: usize) {
        self.down += bytes as u64;
    }
}
