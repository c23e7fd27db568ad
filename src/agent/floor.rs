//! The last look at an address before it is connected to: the floor that no configuration can open, and this process's own
//! listeners. Pure. It refuses to resolve and to know targets.

use std::net::SocketAddr;

use crate::base::code::Code;
use crate::base::floor;
use crate::wire::refusal::Refusal;

/// An address that passed; made here alone, and the only thing that the bridge connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(SocketAddr);

impl Checked {
    /// The address.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// The rules, and the listeners of this process, which must not be reached through itself.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    own: Vec<SocketAddr>,
}

impl Floor {
    /// A floor that also keeps streams away from this process's own listeners.
    #[must_use]
    pub fn new(own: Vec<SocketAddr>) -> Self {
        Self { own }
    }

    /// Checks one address that is about to be connected to.
    ///
    /// # Errors
    /// `address_forbidden` or `loopback_forbidden`, naming the address.
    pub fn check(&self, address: SocketAddr, allow_loopback: bool) -> Result<Checked, Refusal> {
        floor::check(address.ip(), allow_loopback).map_err(|code| Refusal::new(code, address.ip()))?;
        // Only leave for loopback leads to the own listeners: their port is enough to know them, however the host is spelled.
        if floor::check(address.ip(), false).is_err() && self.own.iter().any(|own| own.port() == address.port()) {
            return Err(Refusal::new(Code::AddressForbidden, format_args!("{address} is the agent's own listener")));
        }
        Ok(Checked(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_the_floor_holds_and_the_agents_own_listeners_are_no_targets() {
        let floor = Floor::new(vec!["127.0.0.1:9464".parse().unwrap()]);
        let code = |address: &str, loopback| floor.check(address.parse().unwrap(), loopback).map_err(|refusal| refusal.code);
        for own in ["127.0.0.1:9464", "[::1]:9464", "127.9.9.9:9464", "[::ffff:127.0.0.1]:9464"] {
            assert_eq!(code(own, true), Err(Code::AddressForbidden), "{own}");
        }
        assert_eq!(code("169.254.169.254:80", true), Err(Code::AddressForbidden));
        assert_eq!(code("127.0.0.1:80", false), Err(Code::LoopbackForbidden));
        assert_eq!(code("127.0.0.1:80", true).unwrap().address(), "127.0.0.1:80".parse().unwrap());
        assert!(code("10.0.0.1:9464", false).is_ok());
    }
}
