//! What a client's connection wants: from what it says first, or from the listener it came in by, to a target and the caller who asks;
//! and how it is answered. It refuses to know where that goes.

mod ask;
pub mod socks5;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::socks5::Refused;
use super::Gateway;
use super::callers::{Caller, passes};
use super::quota::Limits;
use crate::base::code::{Code, Failure};
use crate::base::grant::Grants;
use crate::base::id::{RequestId, TargetId};
use crate::base::limits::{ANSWER_DEADLINE, ANSWER_LINGER};
use crate::base::secret::Secret;
use crate::tunnel::half_close::HalfClose;
use crate::tunnel::listen::reset_on_close;
use crate::wire::connect;
use crate::wire::open::Spoken;
use crate::wire::refusal::Refusal;

/// What is wanted, and by whom.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Tenant, group and target.
    pub target: TargetId,
    /// What will be spoken.
    pub spoken: Spoken,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// When what it showed ends, if the gateway is told by nobody else: a certificate.
    pub until: Option<OffsetDateTime>,
    /// The client's address.
    pub source: SocketAddr,
    /// Whether client bytes may go ahead of the reply.
    pub early_data: bool,
    /// Closes the stream when nothing has moved for this long.
    pub idle: Option<Duration>,
    /// How the client is answered.
    pub answer: Answer,
    /// What it said behind its asking.
    pub early: BytesMut,
}

/// How clients of a listener ask, and what is settled for all of them.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How they ask.
    pub entry: Entry,
    /// Whether client bytes may go ahead of the reply.
    pub early_data: bool,
    /// Closes a stream when nothing has moved for this long.
    pub idle: Option<Duration>,
}

/// How clients of a listener ask.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Not at all: every connection goes to this target, in the name of this caller; none if a certificate must say in whose.
    Tcp(TargetId, Option<Arc<Caller>>),
    /// HTTP CONNECT.
    Connect,
    /// SOCKS5.
    Socks5,
    /// HTTP, each request by itself; hosts below the domain, in small letters, name targets, too.
    Http(Option<Arc<str>>),
}

impl Wanted {
    /// Ends when the caller may have the stream no longer: it is revoked, or its certificate has ended.
    pub(super) async fn ends(&self) {
        match self.until {
            None => self.caller.revoked().await,
            // Boxed, so that streams of other callers don't hold the room for it.
            Some(until) => {
                Box::pin(async {
                    tokio::select! {
                        biased;
                        () = self.caller.revoked() => {}
                        () = passes(until) => {}
                    }
                })
                .await;
            }
        }
    }
}

/// Who a client is by the certificate that it has shown.
#[derive(Clone, Debug)]
pub(super) struct Certified {
    /// The caller.
    pub(super) caller: Arc<Caller>,
    /// When the certificate ends.
    pub(super) until: OffsetDateTime,
}

/// What a client asked for, by its own words.
struct Asked {
    target: TargetId,
    caller: Arc<Caller>,
    /// What came behind.
    early: BytesMut,
}

impl Entry {
    /// Leads to a target in the name of the listener at an address.
    #[must_use]
    pub fn open(target: TargetId, listen: SocketAddr) -> Self {
        let caller = Caller::new(format!("listener {listen}"), Grants::only(&target), Limits::default());
        Self::Tcp(target, Some(Arc::new(caller)))
    }
}

impl Terms {
    /// What a client wants, by its words or by where it came in. `certified` is what its certificate says, if it has shown one.
    ///
    /// # Errors
    /// Why it is refused, and in which words; whoever records it has [`dismiss`] say them.
    pub(super) async fn wanted<Io: ClientIo>(
        &self,
        gateway: &Gateway,
        io: &mut Io,
        source: SocketAddr,
        certified: Result<Option<Certified>, Failure>,
    ) -> Result<Wanted, Refused> {
        let login = Login { gateway, source, certified };
        let (asked, answer) = match &self.entry {
            Entry::Tcp(target, own) => {
                let caller = own.clone().map_or_else(|| login.caller(None), Ok);
                let asked = caller.map(|caller| Asked { target: target.clone(), caller, early: BytesMut::new() });
                (asked.map_err(|failure| Refused { failure, say: Vec::new() }), Answer::Nothing)
            }
            Entry::Connect => (ask::connect(io, &login).await, Answer::Connect),
            Entry::Socks5 => (ask::socks5(io, &login).await, Answer::Socks5),
            // Of those each request is heard by itself.
            Entry::Http(_) => {
                let failure = Failure::new(Code::Internal, "a connection of HTTP requests wants no one stream");
                (Err(Refused { failure, say: Vec::new() }), Answer::Nothing)
            }
        };
        let Asked { target, caller, early } = asked?;
        let shown = login.certified.ok().flatten().filter(|certified| Arc::ptr_eq(&certified.caller, &caller));
        let until = shown.map(|certified| certified.until);
        let (early_data, idle) = (self.early_data, self.idle);
        Ok(Wanted { target, spoken: Spoken::Raw, caller, until, source, early_data, idle, answer, early })
    }
}

/// How a client is answered, once the agent has replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not at all: a refused one is reset.
    Nothing,
    /// As HTTP CONNECT asks for.
    Connect,
    /// As SOCKS5 does.
    Socks5,
}

impl Answer {
    /// What is said before the target's first byte.
    #[must_use]
    pub fn accepted(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Connect => connect::accepted().to_vec(),
            Self::Socks5 => socks5::reply(None).to_vec(),
        }
    }

    /// Says why not. The detail stays here: it may name what is inside a site.
    pub async fn refuse<Io: ClientIo>(self, io: &mut Io, refusal: &Refusal, request: RequestId) {
        match self {
            Self::Nothing => {}
            Self::Connect => {
                dismiss(io, &connect::refused(&connect::Refused { code: refusal.code, detail: None, request: Some(request) }))
                    .await
            }
            Self::Socks5 => dismiss(io, &socks5::reply(Some(refusal.code))).await,
        }
    }
}

/// Who a client is, from the token it shows, or the certificate that it has shown. Neither makes a wrong one of the other good.
struct Login<'a> {
    gateway: &'a Gateway,
    source: SocketAddr,
    certified: Result<Option<Certified>, Failure>,
}

impl Login<'_> {
    /// The caller.
    ///
    /// # Errors
    /// `login_required`, `login_failed`, `login_limited`.
    fn caller(&self, token: Option<&Secret>) -> Result<Arc<Caller>, Failure> {
        let certified = self.certified.as_ref().map_err(Failure::clone)?;
        let Some(token) = token else {
            let nobody = || Failure::new(Code::LoginRequired, "neither a token nor a certificate was shown");
            return certified.as_ref().map(|certified| certified.caller.clone()).ok_or_else(nobody);
        };
        self.gateway.login(token, self.source.ip())
    }
}

/// Says the last word and waits until the client has closed, or long enough: a connection that is closed with bytes unread is reset, and
/// a reset may overtake the last word.
pub(super) async fn dismiss<Io: ClientIo>(io: &mut Io, word: &[u8]) {
    io.reset_on_close(true);
    if word.is_empty() {
        return;
    }
    let said = async {
        io.write_all(word).await?;
        io.shutdown().await
    };
    if !matches!(tokio::time::timeout(ANSWER_DEADLINE, said).await, Ok(Ok(()))) {
        return;
    }
    io.reset_on_close(false);
    let mut rest = [0; 1024];
    let read = async { while matches!(io.read(&mut rest).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(ANSWER_LINGER, read).await;
}

/// A client's connection. A stream that failed must look failed to it.
pub trait ClientIo: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether closing this connection resets it.
    fn reset_on_close(&self, reset: bool);

    /// Whether it was reset, also while there is more to read of it. Told once.
    fn gone(&self) -> Option<io::Error>;
}

impl ClientIo for TcpStream {
    fn reset_on_close(&self, reset: bool) {
        reset_on_close(self, reset);
    }

    fn gone(&self) -> Option<io::Error> {
        self.take_error().unwrap_or_else(Some)
    }
}

impl ClientIo for BufReader<TcpStream> {
    fn reset_on_close(&self, reset: bool) {
        self.get_ref().reset_on_close(reset);
    }

    fn gone(&self) -> Option<io::Error> {
        self.get_ref().gone()
    }
}

impl<Io: ClientIo> ClientIo for HalfClose<TlsStream<Io>> {
    fn reset_on_close(&self, reset: bool) {
        self.get_ref().reset_on_close(reset);
    }

    fn gone(&self) -> Option<io::Error> {
        self.get_ref().gone()
    }
}

impl<Io: ClientIo> ClientIo for TlsStream<Io> {
    /// A TLS client also sees that no `close_notify` came.
    fn reset_on_close(&self, reset: bool) {
        self.get_ref().0.reset_on_close(reset);
    }

    fn gone(&self) -> Option<io::Error> {
        self.get_ref().0.gone()
    }
}
