//! `underpass connect` as a process: its token's file, its streams, its end. It refuses to know how streams are opened, and to print.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::process::{self, Signals, Wish};
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::drain::Drain;
use crate::base::endpoint::Endpoint;
use crate::base::files;
use crate::base::id::TargetId;
use crate::base::limits::DRAIN_TIMEOUT;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::client::{Client, Event, Settings, listener};
use crate::observe::log::{self, Color, Format, Level, LogSettings};
use crate::pki::tls;
use crate::tunnel::dial::Egress;
use crate::wire::token::ClientToken;

/// What is asked for, and with what.
pub struct Request {
    /// Where streams lead.
    pub target: TargetId,
    /// The file with the client token.
    pub token_file: PathBuf,
    /// Where the gateway is, if not where the token says.
    pub endpoints: Vec<Endpoint>,
}

/// What is shown while it runs.
pub enum Shown<'a> {
    /// Connections are accepted at this address.
    Listening(SocketAddr),
    /// Of a stream.
    Event(Event<'a>),
    /// Open streams may finish.
    Draining,
}

/// Carries one stream on standard input and output.
///
/// # Errors
/// Why there was no stream, or how it was cut.
pub async fn stdio(request: Request, show: impl Fn(Shown<'_>) + Send + Sync + 'static) -> Result<Exit, Failure> {
    client(request, Arc::new(show))?.stdio().await?;
    Ok(Exit::Ok)
}

/// Listens until SIGTERM, and lets open streams finish then.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn listen(
    request: Request,
    at: SocketAddr,
    allow_from: Vec<IpNet>,
    show: impl Fn(Shown<'_>) + Send + Sync + 'static,
) -> Result<Exit, Failure> {
    let _log = log::init(&LogSettings { format: Format::Human, level: Level::Warn, color: Color::Auto })?;
    process::raise_descriptor_limit();
    let (show, mut signals) = (Arc::new(show), Signals::listen()?);
    let client = Arc::new(client(request, show.clone())?);
    let socket = listener::bind(at, &allow_from)?;
    let at = socket.local_addr().or_fail(Code::ListenFailed, at)?;
    let (drain, tasks) = (Drain::new(), Tasks::new());
    tasks.spawn(listener::serve(client, socket, allow_from, drain.clone(), tasks.clone()));
    show(Shown::Listening(at));
    process::ready("listening");
    while signals.next().await != Wish::End {}
    // The accept loop is one of the tasks.
    if tasks.len() > 1 {
        show(Shown::Draining);
    }
    Ok(signals.drain(drain.finish(&tasks, DRAIN_TIMEOUT)).await)
}

fn client(request: Request, show: Arc<impl Fn(Shown<'_>) + Send + Sync + 'static>) -> Result<Client, Failure> {
    tls::install_provider();
    let Request { target, token_file, endpoints } = request;
    let settings = Settings { target, token: read_token(&token_file)?, endpoints, egress: Egress::from_environment() };
    let observer = Arc::new(move |event: Event<'_>| show(Shown::Event(event)));
    Client::new(settings, observer).map_err(|failure| match failure.code {
        Code::TokenInvalid => failure.context(token_file.display()),
        _ => failure,
    })
}

fn read_token(file: &Path) -> Result<Secret, Failure> {
    if file.as_os_str().as_encoded_bytes().starts_with(ClientToken::PREFIX.as_bytes()) {
        // Quoting it would put it into one more place.
        let detail =
            "--token-file takes a file, not the token: others could see it in the list of processes, so make a fresh one";
        return Err(Failure::new(Code::Usage, detail));
    }
    let bytes = files::read_private(file).map_err(|failure| match failure.code {
        Code::StateMissing => Failure::new(Code::SecretMissing, failure.detail),
        _ => failure,
    })?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| not_text(file))?;
    Ok(Secret::new(text))
}

fn not_text(file: &Path) -> Failure {
    Failure::new(Code::TokenInvalid, format_args!("{} holds no text", file.display()))
}
