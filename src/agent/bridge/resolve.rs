//! A name's addresses, asked of the site's resolver once for all who wait, and kept for ten seconds at most.
//! It refuses to judge addresses: who connects checks each one.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::base::endpoint::{Host, HostPort};
use crate::base::limits::{DNS_CACHE, DNS_CACHE_ENTRIES, MAX_ADDRESSES};

type Answer = Arc<OnceCell<Vec<IpAddr>>>;

/// The addresses of recently used names.
#[derive(Default)]
pub struct Resolver {
    names: Mutex<HashMap<String, (Instant, Answer)>>,
}

impl Resolver {
    /// Every address of a host, at most [`MAX_ADDRESSES`].
    ///
    /// # Errors
    /// What the system's resolver says; an error is not kept.
    pub async fn resolve(&self, at: &HostPort) -> io::Result<Vec<SocketAddr>> {
        let name = match &at.host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, at.port)]),
            Host::Dns(name) => name,
        };
        let answer = self.answer(name);
        let addresses = answer.get_or_try_init(|| lookup(name)).await?;
        Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, at.port)).collect())
    }

    /// A resolver whose first answer is known.
    #[cfg(test)]
    pub(crate) fn answering(name: &str, addresses: Vec<IpAddr>) -> Self {
        let resolver = Self::default();
        resolver.answer(name).set(addresses).expect("nobody else asks");
        resolver
    }

    /// The cell that this name's addresses are in, or will be: the first who asks fills it, the others wait for it.
    pub(super) fn answer(&self, name: &str) -> Answer {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((since, answer)) = names.get(name)
            && now.duration_since(*since) < DNS_CACHE
        {
            return answer.clone();
        }
        if names.len() >= DNS_CACHE_ENTRIES {
            names.retain(|_, (since, _)| now.duration_since(*since) < DNS_CACHE);
        }
        let answer = Answer::default();
        names.insert(name.to_owned(), (now, answer.clone()));
        answer
    }
}

async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses: Vec<_> = tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_for_ten_seconds_and_not_longer() {
        let resolver = Resolver::default();
        let first = resolver.answer("db.corp.example");
        tokio::time::advance(DNS_CACHE - std::time::Duration::from_millis(1)).await;
        assert!(Arc::ptr_eq(&first, &resolver.answer("db.corp.example")));
        tokio::time::advance(std::time::Duration::from_millis(2)).await;
        assert!(!Arc::ptr_eq(&first, &resolver.answer("db.corp.example")));
    }

    #[tokio::test]
    async fn a_literal_is_not_asked_about() {
        let resolver = Resolver::default();
        let at = "[fd00::1]:5432".parse().unwrap();
        assert_eq!(resolver.resolve(&at).await.unwrap(), ["[fd00::1]:5432".parse().unwrap()]);
        assert!(resolver.names.lock().unwrap().is_empty());
    }
}
