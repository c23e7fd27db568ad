//! The account of one request: its row in the audit, its place in the metrics, and the stream that it has, which is free again once all
//! of the answer has passed. Refuses to know why it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::body::Passed;
use super::connection::Busy;
use super::streams::{Described, Lease};
use crate::base::code::Code;
use crate::base::id::{Name, RequestId};
use crate::gateway::Gateway;
use crate::gateway::relay::Held;
use crate::observe::audit::Event;
use crate::observe::metrics;
use crate::tunnel::ledger::Ledger;

/// A request that has a stream. Dropping it writes its row: unless somebody says otherwise, the client gave it up.
pub(super) struct Account {
    pub(super) gateway: Arc<Gateway>,
    pub(super) request: RequestId,
    pub(super) source: SocketAddr,
    pub(super) method: Method,
    /// With its query, which may hold secrets and is not written.
    pub(super) path: PathAndQuery,
    pub(super) since: Instant,
    pub(super) upload: Option<Arc<Passed>>,
    /// Holds the client's connection from being idle.
    pub(super) busy: Option<Busy>,
    /// Until all has passed.
    pub(super) stream: Option<Lease>,
    pub(super) status: Option<u16>,
    pub(super) code: Option<Code>,
    pub(super) down: u64,
}

impl Account {
    /// The agent answered, perhaps with a refusal of its own.
    pub(super) fn answered(&mut self, status: u16, refusal: Option<Code>) {
        self.status = Some(status);
        self.code = refusal;
    }

    /// The same for the target's light.
    pub(super) fn tell_light(&self, target: &Name, refusal: Option<Code>) {
        if let Some(lease) = &self.stream {
            lease.described().live.answered(target, refusal);
        }
    }

    /// The gateway answered instead.
    pub(super) fn refused(mut self, status: u16, code: Code) {
        metrics::refused(code);
        self.status = Some(status);
        self.code = Some(code);
    }

    /// So much of the answer's body has passed.
    pub(super) fn down(&mut self, bytes: usize) {
        self.down += bytes as u64;
    }

    /// So much has passed of what the request became.
    pub(super) fn moved(&mut self, up: u64, down: u64) {
        self.upload = Some(Arc::new(Passed::whole(up)));
        self.down = down;
    }

    /// The account of its stream, if that is for this request alone.
    pub(super) fn ledger(&self) -> Option<Arc<Ledger<Held>>> {
        self.stream.as_ref().and_then(|lease| lease.ledger().cloned())
    }

    /// All has passed: the next request may have the stream.
    pub(super) fn whole(mut self) {
        let Some(lease) = self.stream.take() else { return };
        self.write(lease.described());
        if let Some(ledger) = lease.ledger() {
            ledger.ends(None);
        }
        // What of the request is still to come would be taken for the next one's.
        if self.upload.as_ref().is_none_or(|passed| passed.has_ended()) {
            lease.give_back(&self.gateway);
        }
    }

    /// It came to nothing on this stream and is tried on another.
    pub(super) fn elsewhere(mut self) -> Option<Busy> {
        self.stream = None;
        self.busy.take()
    }

    /// It broke off.
    pub(super) fn broken(mut self, code: Code) {
        self.code = Some(code);
    }

    fn write(&self, described: &Described) {
        let took = self.since.elapsed();
        metrics::http_request(self.status, took);
        // A row that can't be kept refuses the next request, not the end of this one.
        let _ = self.gateway.audit.record(&Event::Request {
            request: self.request,
            stream: Some(described.request),
            target: &described.target,
            caller: &described.caller,
            source: Some(self.source),
            method: self.method.as_str(),
            path: self.path.path(),
            status: self.status,
            code: self.code,
            detail: None,
            up: self.upload.as_ref().map_or(0, |passed| passed.bytes()),
            down: self.down,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(lease) = self.stream.take() else { return };
        self.code = self.code.or(Some(Code::ClientReset));
        if let Some(ledger) = lease.ledger() {
            ledger.ends(self.code);
        }
        self.write(lease.described());
    }
}
