//! The wire. (Specification follows.)

pub mod codec;
pub mod enroll;
pub mod heartbeat;
pub mod hello;
pub mod notice;
pub mod open;
pub mod refusal;
pub mod reply;
pub mod resume;
pub mod token;
