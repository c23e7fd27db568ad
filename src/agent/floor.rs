//! The last look at an address before it is connected to: the floor that no configuration can open, and this process's own
//! listeners. Pure. It refuses to resolve and to know targets.

use std::net::{IpAddr, SocketAddr};

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
        // Every loopback address is this host's, however it is spelled.
        let here = floor::check(address.ip(), false).is_err();
        self.check_own(address, |own| here || own.to_canonical() == address.ip().to_canonical())?;
        Ok(Checked(address))
    }

    /// Checks a connection that was made: one whose two ends have the same address has not left this host, which only now is
    /// certain for a listener on every address.
    ///
    /// # Errors
    /// `address_forbidden`.
    pub fn check_ends(&self, near: SocketAddr, far: SocketAddr) -> Result<(), Refusal> {
        self.check_own(far, |_| near.ip() == far.ip())
    }

    fn check_own(&self, address: SocketAddr, is_at: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
        if self.own.iter().any(|own| own.port() == address.port() && is_at(own.ip())) {
            return Err(Refusal::new(Code::AddressForbidden, format_args!("{address} is the agent's own listener")));
        }
        Ok(())
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

    #[test]
    fn e1_the_agents_own_listener_off_loopback_is_no_target_either() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let floor = Floor::new(vec![address("10.0.0.1:9464")]);
        for own in ["10.0.0.1:9464", "[::ffff:10.0.0.1]:9464"] {
            assert_eq!(floor.check(address(own), false).unwrap_err().code, Code::AddressForbidden, "{own}");
        }
        assert!(floor.check(address("10.0.0.1:80"), false).is_ok() && floor.check(address("10.0.0.2:9464"), false).is_ok());
        let everywhere = Floor::new(vec![address("0.0.0.0:9464")]);
        let ends = |near: &str, far: &str| everywhere.check_ends(address(near), address(far)).is_ok();
        assert!(!ends("10.0.0.1:40000", "10.0.0.1:9464"));
        assert!(ends("10.0.0.1:40000", "10.0.0.2:9464") && ends("10.0.0.1:40000", "10.0.0.1:80"));
    }
}
