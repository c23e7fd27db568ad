//! What lies between the quickstart's agent and its gateway, so that it can be cut: a relay on loopback that knows nothing of what it
//! carries. It refuses to be of use to anybody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::drain::Drain;
use crate::base::limits::READ_BUFFER;
use crate::base::tasks::Tasks;
use crate::tunnel::listen::{self, Caps, Service, bind, reset_on_close};

/// The agent's connection and its next one, with room for more lanes.
const CAPS: Caps = Caps { connections: 64, handshakes: 16 };

/// A cable; clones are the same one.
#[derive(Clone)]
pub(super) struct Cable {
    to: SocketAddr,
    /// How often it was cut.
    cuts: Arc<watch::Sender<u64>>,
}

impl Cable {
    /// Lays it to there; yields where it begins, too.
    pub(super) fn lay(to: SocketAddr, tasks: &Tasks) -> Result<(Self, SocketAddr), Failure> {
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let from = socket.local_addr().or_fail(Code::ListenFailed, "the cable's end")?;
        let cable = Self { to, cuts: Arc::new(watch::Sender::new(0)) };
        tasks.spawn(listen::serve(socket, CAPS, Arc::new(cable.clone()), Drain::new(), tasks.clone()));
        Ok((cable, from))
    }

    /// Resets every connection that lies in it, as a firewall does that has lost its memory; the next one gets through.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Learns of each cut.
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }
}

impl Service<TcpStream, SocketAddr> for Cable {
    type Ready = (TcpStream, TcpStream);

    fn admits(&self, _: &SocketAddr) -> bool {
        true
    }

    fn source(&self, _: &SocketAddr) -> Option<IpAddr> {
        None
    }

    async fn handshake(&self, near: TcpStream, _: SocketAddr) -> Option<Self::Ready> {
        let far = TcpStream::connect(self.to).await.ok()?;
        for end in [&near, &far] {
            let _ = end.set_nodelay(true);
        }
        Some((near, far))
    }

    async fn serve(&self, (mut near, mut far): Self::Ready) {
        let mut cuts = self.cuts();
        tokio::select! {
            biased;
            _ = cuts.changed() => [&near, &far].into_iter().for_each(|end| reset_on_close(end, true)),
            _ = copy_bidirectional_with_sizes(&mut near, &mut far, READ_BUFFER, READ_BUFFER) => {}
        }
    }

    fn timed_out(&self, _: SocketAddr) {}

    fn crowded(&self, _: SocketAddr) {}
}
