//! The wire. (Specification follows.)

pub mod enroll;
pub mod token;
