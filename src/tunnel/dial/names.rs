//! The addresses of gateways' and proxies' names, and those that a name last led to: they are tried while no name server answers.
//! Whoever is there must prove to be the gateway all the same. Refuses to know ports and connections.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::timeout;

use crate::base::limits::{DNS_CACHE_ENTRIES, DNS_PATIENCE};

/// Where each name led when a gateway was last reached by it. Of the whole process, as the system's resolver is.
static LAST: Mutex<BTreeMap<String, Vec<IpAddr>>> = Mutex::new(BTreeMap::new());

/// What is known of a name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// Why no name server said so, if the addresses are those of last time.
    pub(super) unanswered: Option<String>,
    name: Option<String>,
}

/// A name and its addresses, of which one was connected to; to be remembered once it has proved to be the gateway.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Led(Option<(String, Vec<IpAddr>)>);

impl Found {
    /// An address that needs no looking up.
    pub(super) fn literal(address: IpAddr) -> Self {
        Self { addresses: vec![address], unanswered: None, name: None }
    }

    /// One of the addresses was connected to.
    pub(super) fn led(self) -> Led {
        Led(self.name.filter(|_| self.unanswered.is_none()).map(|name| (name, self.addresses)))
    }
}

impl Led {
    /// It led to the gateway.
    pub(super) fn there(self) {
        let Some((name, addresses)) = self.0 else { return };
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() < DNS_CACHE_ENTRIES || last.contains_key(&name) {
            last.insert(name, addresses);
        }
    }
}

/// Asks the name servers, each time anew.
///
/// # Errors
/// When they don't know, or say nothing, and the name has led nowhere before.
pub(super) async fn resolve(name: &str) -> io::Result<Found> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    found(name, last, lookup(name)).await
}

async fn found(
    name: &str,
    last: Option<Vec<IpAddr>>,
    lookup: impl Future<Output = io::Result<Vec<IpAddr>>>,
) -> io::Result<Found> {
    let Some(last) = last else {
        return Ok(Found { addresses: lookup.await?, unanswered: None, name: Some(name.to_owned()) });
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DNS_PATIENCE.as_secs()));
    let answer = timeout(DNS_PATIENCE, lookup).await.unwrap_or_else(|_| Err(late()));
    let name = Some(name.to_owned());
    Ok(match answer {
        Ok(addresses) => Found { addresses, unanswered: None, name },
        Err(error) => {
            tracing::warn!(name, %error, addresses = ?last, "no name server knows the name: trying where it led last");
            Found { addresses: last, unanswered: Some(error.to_string()), name }
        }
    })
}

async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses: Vec<_> = tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect();
    if addresses.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;
    use crate::base::limits::DIAL_DEADLINE;

    fn address(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([192, 0, 2, last])]
    }

    #[tokio::test(start_paused = true)]
    async fn f38_a_name_server_that_says_nothing_leaves_time_to_try_where_the_name_led_last() {
        let before = Instant::now();
        let found = found("gw.example", Some(address(1)), pending()).await.unwrap();
        assert_eq!(found.addresses, address(1));
        assert!(found.unanswered.is_some() && before.elapsed() < DIAL_DEADLINE / 2, "{:?}", before.elapsed());
    }

    #[tokio::test]
    async fn f38_what_name_servers_say_goes_before_what_was() {
        let found = found("gw.example", Some(address(1)), ready(Ok(address(2)))).await.unwrap();
        assert_eq!((found.addresses, found.unanswered), (address(2), None));
    }

    #[tokio::test]
    async fn f38_only_what_a_name_server_said_and_what_led_to_the_gateway_is_remembered() {
        let name = "f38.gw.example";
        let known = || LAST.lock().unwrap().get(name).cloned();
        let answered = found(name, None, ready(Ok(address(1)))).await.unwrap();
        assert_eq!(known(), None);
        answered.led().there();
        assert_eq!(known(), Some(address(1)));
        let refused = || ready(Err(io::ErrorKind::NotFound.into()));
        let again = found(name, Some(address(2)), refused()).await.unwrap();
        again.led().there();
        assert_eq!(known(), Some(address(1)));
        assert!(found(name, None, refused()).await.is_err());
    }
}
