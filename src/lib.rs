#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ldap;
pub mod observe;
pub mod pki;
pub mod rules;
pub mod tunnel;
pub mod wire;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "gateway")]
pub mod gateway;

#[cfg(all(test, feature = "agent", feature = "gateway"))]
mod sim;

#[cfg(feature = "cli")]
pub mod app;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(feature = "cli", feature = "fuzzing"))]
pub mod config;
