//! Doing what an administrator asks: who asked for what is recorded before it is done, and how it ended before the answer.
//! Refuses to know what the operations do.

use super::Control;
use crate::base::code::Failure;
use crate::observe::audit::Event;

/// Who asks, as the admin socket knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Such as `uid 0`.
    pub by: String,
}

impl Caller {
    /// A process of this user, as the kernel says.
    #[must_use]
    pub fn uid(uid: u32) -> Self {
        Self { by: format!("uid {uid}") }
    }
}

/// One operation: its name as on the command line, and what it is done to.
pub(super) struct Op<'a> {
    pub(super) name: &'a str,
    pub(super) on: String,
    pub(super) caller: &'a Caller,
}

impl Op<'_> {
    /// Records that it was asked for. If that fails it must not be done, unless not doing it is the greater harm.
    pub(super) fn begin(&self, control: &Control) -> Result<(), Failure> {
        tracing::info!(op = self.name, on = self.on, by = self.caller.by, "asked for");
        control.parts.audit.record(&Event::Asked { op: self.name, on: &self.on, by: &self.caller.by })
    }

    /// Records how it ended: by the event of its success, or as failed.
    pub(super) fn end<T>(
        &self,
        control: &Control,
        outcome: Result<T, Failure>,
        success: impl FnOnce(&T, &Control) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        match outcome {
            Ok(done) => success(&done, control).map(|()| done),
            Err(failure) => {
                let Self { name, on, caller } = self;
                tracing::warn!(op = name, %on, by = caller.by, code = %failure.code, "failed: {}", failure.detail);
                let event = Event::Failed { op: name, on, by: &caller.by, code: failure.code, detail: &failure.detail };
                // The failure is what the caller must learn, whether it could be recorded or not.
                let _ = control.parts.audit.record(&event);
                Err(failure)
            }
        }
    }
}
