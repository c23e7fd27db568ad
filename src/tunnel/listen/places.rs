//! Places for handshakes: so many in all, so many for one source, and whoever finds none waits his turn. A source that fills its own waits for
//! itself and holds up no other. Refuses to know what is done at a place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places of a listener.
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// What one source may have of them, and how many it may have and wait for together.
    each: usize,
    most: usize,
    sources: Mutex<HashMap<IpAddr, Source>>,
}

struct Source {
    own: Arc<Semaphore>,
    /// Those who have a place and those who wait for one.
    here: usize,
}

/// Somebody of a source, who has a place or waits for one.
struct Here {
    of: Arc<Places>,
    source: IpAddr,
}

/// A place; given back when dropped.
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    _own: Option<(OwnedSemaphorePermit, Here)>,
}

impl Places {
    pub(super) fn new(all: usize, each: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(all)), each, most, sources: Mutex::default() })
    }

    /// A place, once there is one; somebody without a source has no share to keep to. `None` if too many of the source wait already.
    pub(super) async fn take(self: &Arc<Self>, source: Option<IpAddr>) -> Option<Place> {
        let own = match source {
            Some(source) => {
                let (own, here) = self.enter(source)?;
                Some((permit(own).await, here))
            }
            None => None,
        };
        // Of each source no more wait here than may have a place.
        Some(Place { _one: permit(self.all.clone()).await, _own: own })
    }

    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<(Arc<Semaphore>, Here)> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Source { own: Arc::new(Semaphore::new(self.each)), here: 0 };
        let entry = sources.entry(source).or_insert_with(fresh);
        if entry.here >= self.most {
            return None;
        }
        entry.here += 1;
        Some((entry.own.clone(), Here { of: self.clone(), source }))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut sources = self.of.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = sources.get_mut(&self.source) {
            entry.here -= 1;
            if entry.here == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

async fn permit(of: Arc<Semaphore>) -> OwnedSemaphorePermit {
    of.acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    #[test]
    fn d1_a_source_that_has_its_places_waits_for_itself_alone_and_is_served_in_the_end() {
        let places = Places::new(8, 2, 5);
        let mut held: Vec<_> = (0..2).map(|_| places.take(ip(1)).now_or_never().expect("a place").unwrap()).collect();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(places.take(ip(1)))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()), "it has its own");
        assert!(places.take(ip(1)).now_or_never().expect("at once").is_none(), "too many wait");
        assert!(places.take(ip(2)).now_or_never().expect("another's").is_some());
        assert!(places.take(None).now_or_never().expect("nobody's").is_some());
        held.pop();
        assert!((&mut waiting[0]).now_or_never().expect("the first that waited").is_some());
        drop(waiting);
        drop(held);
        assert!(places.sources.lock().unwrap().is_empty(), "nobody is remembered who is not here");
        assert_eq!(places.all.available_permits(), 8);
    }

    #[test]
    fn d1_all_sources_together_have_so_many_places() {
        let places = Places::new(3, 2, 5);
        let _held: Vec<_> = [1, 1, 2].map(|last| places.take(ip(last)).now_or_never().expect("a place")).into();
        assert!(places.take(ip(3)).now_or_never().is_none() && places.take(None).now_or_never().is_none());
    }
}
