//! Hears a client out that says itself what it wants, and finds the words for why not. It refuses to know what the words mean: that is
//! in `wire::connect` and `socks5`.

use std::fmt;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroize;

use super::socks5::{Refused, Socks5, Step};
use super::{Asked, ClientIo, Login};
use crate::base::code::{Code, Failure};
use crate::wire::connect;

/// What is read at once: most heads whole.
const READ: usize = 1024;

/// One CONNECT.
pub(super) async fn connect<Io: ClientIo>(io: &mut Io, login: &Login<'_>) -> Result<Asked, Refused> {
    let asked = connect_head(io, login).await;
    asked.map_err(|failure| {
        // What is wrong with a login is for the audit alone.
        let detail = (failure.code == Code::RequestInvalid).then_some(failure.detail.as_str());
        let say = connect::refused(&connect::Refused { code: failure.code, detail, request: None });
        Refused { failure, say }
    })
}

async fn connect_head<Io: ClientIo>(io: &mut Io, login: &Login<'_>) -> Result<Asked, Failure> {
    let (mut said, mut heard) = (BytesMut::new(), false);
    loop {
        if let Some((head, len)) = connect::parse(&said)? {
            // The token was in it.
            said[..len].zeroize();
            let caller = login.caller(head.login.as_ref())?;
            said.advance(len);
            return Ok(Asked { target: head.target, caller, early: said });
        }
        more(io, &mut said, &mut heard).await?;
    }
}

/// One SOCKS5 handshake up to its request.
pub(super) async fn socks5<Io: ClientIo>(io: &mut Io, login: &Login<'_>) -> Result<Asked, Refused> {
    let (mut handshake, mut said) = (Socks5::new(login.caller(None).is_ok()), BytesMut::new());
    let (mut caller, mut heard) = (login.caller(None).ok(), false);
    let wordless = |failure: Failure| Refused { failure, say: Vec::new() };
    loop {
        match handshake.next(&mut said)? {
            None => more(io, &mut said, &mut heard).await.map_err(wordless)?,
            Some(Step::Say(bytes)) => say(io, bytes).await.map_err(wordless)?,
            Some(Step::Login(token)) => {
                let known = login.caller(Some(&token));
                let word = handshake.verdict(known.is_ok());
                caller = Some(known.map_err(|failure| Refused { failure, say: word.to_vec() })?);
                say(io, word).await.map_err(wordless)?;
            }
            Some(Step::Wanted(target)) => {
                let caller = caller.ok_or_else(|| wordless(Failure::new(Code::LoginRequired, "no token was shown")))?;
                return Ok(Asked { target, caller, early: said });
            }
        }
    }
}

async fn say<Io: ClientIo>(io: &mut Io, bytes: &[u8]) -> Result<(), Failure> {
    let said = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    said.await.map_err(ended)
}

/// Reads more of what a client says.
async fn more<Io: ClientIo>(io: &mut Io, said: &mut BytesMut, heard: &mut bool) -> Result<(), Failure> {
    said.reserve(READ);
    match io.read_buf(said).await {
        Ok(1..) => {
            *heard = true;
            Ok(())
        }
        // As balancers look whether somebody listens.
        _ if !*heard => Err(Failure::new(Code::ClientReset, "the connection ended before its first byte")),
        Ok(0) => Err(ended("closed")),
        Err(error) => Err(ended(error)),
    }
}

fn ended(why: impl fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, format_args!("the connection ended before the request did: {why}"))
}
