//! A client's end: from a token to an open stream of one target, over TLS to the gateway's port, and what stands before it on this
//! host: a listener, or the process's standard streams. It refuses to know agents, the store and configuration files.
//!
//! ```text
//! local connection ─┐
//!                   ├─ Client::open: way → ask (TLS, CONNECT, answer) → Opened ─ carry ─ to the end
//! standard streams ─┘
//! ```

mod ask;
mod carry;
#[cfg(test)]
mod fixture;
pub mod listener;
pub mod standard;
mod way;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use self::ask::{Miss, Opened, ask};
use self::carry::carry;
use self::standard::Standard;
use self::way::Way;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::id::TargetId;
use crate::base::secret::Secret;
use crate::pki::pin::{self, Pin};
use crate::pki::tls;
use crate::tunnel::dial::Egress;
use crate::tunnel::splice::{End, Socket};
use crate::wire::token::ClientToken;

/// What a client is made of.
pub struct Settings {
    /// The target that every stream leads to.
    pub target: TargetId,
    /// The client token's text.
    pub token: Secret,
    /// Where to dial instead of where the token says, if any.
    pub endpoints: Vec<Endpoint>,
    /// How to leave the site.
    pub egress: Egress,
}

/// What happens while streams are opened and carried.
pub enum Event<'a> {
    /// The gateway can't be reached; it is tried again. Told once for each time that it is away.
    Waiting(&'a Failure),
    /// A local connection got no stream, or its stream was cut: it was reset.
    Failed {
        /// Whose connection.
        client: SocketAddr,
        /// Why.
        failure: &'a Failure,
    },
}

/// Who is told of events, from any task.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// Opens streams of one target.
pub struct Client {
    target: TargetId,
    token: Secret,
    egress: Egress,
    config: Arc<ClientConfig>,
    way: Way,
    observer: Observer,
}

impl Client {
    /// A client that has not dialled yet.
    ///
    /// # Errors
    /// `token_invalid`; `token_pin` if the token is for another root than the one built in; `usage` if there is nowhere to dial.
    pub fn new(settings: Settings, observer: Observer) -> Result<Self, Failure> {
        let Settings { target, token, endpoints, egress } = settings;
        let parsed = ClientToken::parse(token.expose())?;
        let pin = Pin::from_bytes(parsed.pin);
        pin::check_built_in(pin)?;
        let endpoints = if endpoints.is_empty() { parsed.endpoints } else { endpoints };
        if endpoints.is_empty() {
            let detail =
                "the token names no endpoint, since the gateway's are too long for it: give --endpoint wss://HOST:PORT";
            return Err(Failure::new(Code::Usage, detail));
        }
        Ok(Self { target, token, egress, config: tls::connect_client(pin), way: Way::new(endpoints), observer })
    }

    /// Opens a stream and joins it with the standard streams, until both are done. Nothing but the stream's bytes is written to
    /// standard output, and that is closed with the stream's last byte.
    ///
    /// # Errors
    /// Why there was no stream; `stream_cut` if it broke, `client_reset` if the standard streams did.
    pub async fn stdio(&self) -> Result<(), Failure> {
        let opened = Box::pin(self.open()).await?;
        let mut standard = Standard::open()?;
        match carry(&mut Socket::new(&mut standard), opened).await {
            Ok(()) => Ok(()),
            // Who read our output has had enough, as `head` does.
            Err((End::Near, error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err((End::Near, error)) => Err(Failure::new(Code::ClientReset, format_args!("the standard streams: {error}"))),
            Err((End::Far, error)) => Err(self.cut(&error)),
        }
    }

    /// Opens a stream: tries the endpoints until one answers, as long as only the way to them fails.
    async fn open(&self) -> Result<Opened, Failure> {
        let mut search = self.way.search();
        loop {
            let failure = match ask(self, search.endpoint()).await {
                Ok(opened) => {
                    search.found();
                    return Ok(opened);
                }
                Err(Miss::Refused(failure)) if !search.may_pass(&failure) => return Err(failure.context(&self.target)),
                Err(Miss::Refused(failure) | Miss::Way(failure)) => failure,
            };
            search.missed(failure, &self.observer).await?;
        }
    }

    fn cut(&self, error: &std::io::Error) -> Failure {
        Failure::new(Code::StreamCut, format_args!("{}: {error}", self.target))
    }
}

#[cfg(test)]
mod tests;
