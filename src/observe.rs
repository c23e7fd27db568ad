//! What operators see: logs, metrics and the audit. Owns how a record is written and what a metric is called.
//! Refuses to know HTTP, sockets, and who records what when.

pub mod audit;
pub mod log;
pub mod metrics;

mod json;
