//! This process's standard input and output as one connection: read and written without blocking where the system can, closed for
//! good with the stream's last byte. Refuses to know what they carry.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::stdio;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::Sleep;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::limits::STDIN_LINGER;

/// Standard input and output. Shutting it down closes standard output, so that whoever reads it sees the end. Standard input may then
/// be silent for [`STDIN_LINGER`] and counts as ended after that; a terminal, where nobody would end it, counts so at once.
pub struct Standard {
    input: Box<dyn AsyncRead + Send + Unpin>,
    output: Box<dyn AsyncWrite + Send + Unpin>,
    /// What closes standard output itself, of which `output` has a duplicate.
    close: fn() -> io::Result<()>,
    /// The pipes' modes as they were: other processes may have the same ends of them.
    modes: [Option<Mode>; 2],
    terminal: bool,
    /// Set when nothing more will be written: how long input is still waited for.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Standard {
    /// Takes them over.
    ///
    /// # Errors
    /// `internal` if they are not open.
    pub fn open() -> Result<Self, Failure> {
        let open = || -> io::Result<Self> {
            let modes = [Mode::of(stdio::stdin())?, Mode::of(stdio::stdout())?];
            let (input, output) = (stdio::stdin().try_clone_to_owned()?, stdio::stdout().try_clone_to_owned()?);
            Ok(Self { modes, ..Self::over(input, output, close_stdout)? })
        };
        open().or_fail(Code::Internal, "the standard streams")
    }

    fn over(input: OwnedFd, output: OwnedFd, close: fn() -> io::Result<()>) -> io::Result<Self> {
        let terminal = input.is_terminal();
        let (input, output) = (reader(input)?, writer(output)?);
        Ok(Self { input, output, close, modes: [None, None], terminal, patience: None })
    }

    /// Nothing more is written: what input is waited for begins.
    fn end_output(&mut self, cx: &Context<'_>) {
        if self.patience.is_none() {
            self.patience = Some(Box::pin(tokio::time::sleep(STDIN_LINGER)));
            // Whoever waits for input must look at the clock from now on.
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncRead for Standard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.input).poll_read(cx, buffer) {
            if let Some(patience) = &mut this.patience {
                patience.as_mut().reset(tokio::time::Instant::now() + STDIN_LINGER);
            }
            return Poll::Ready(read);
        }
        match &mut this.patience {
            Some(_) if this.terminal => Poll::Ready(Ok(())),
            Some(patience) => patience.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Standard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.output).poll_write(cx, bytes));
        if written.is_err() {
            self.end_output(cx);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.output).poll_flush(cx));
        if flushed.is_err() {
            self.end_output(cx);
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        // A socket is told to end, since standard input may be the same one; its reader may be gone already.
        let _ = ready!(Pin::new(&mut self.output).poll_shutdown(cx));
        self.end_output(cx);
        self.output = Box::new(tokio::io::sink());
        self.modes[1] = None;
        Poll::Ready((self.close)())
    }
}

/// A pipe's end is put into non-blocking mode for everybody who has it. This puts it back.
struct Mode {
    of: BorrowedFd<'static>,
    before: OFlags,
}

impl Mode {
    /// Nothing but a pipe needs it: sockets are one process's.
    fn of(of: BorrowedFd<'static>) -> io::Result<Option<Self>> {
        Ok(if kind(of)? == FileType::Fifo { Some(Self { of, before: fcntl_getfl(of)? }) } else { None })
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        let _ = fcntl_setfl(self.of, self.before);
    }
}

fn kind(of: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(of)?.st_mode))
}

/// Files and terminals are read by a thread: the system has no other way for files, and a terminal's mode is the shell's, too.
fn reader(input: OwnedFd) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match kind(&input)? {
        FileType::Fifo => Box::new(pipe::Receiver::from_owned_fd(input)?),
        FileType::Socket => Box::new(socket(input)?),
        _ => Box::new(File::from_std(input.into())),
    })
}

fn writer(output: OwnedFd) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    Ok(match kind(&output)? {
        FileType::Fifo => Box::new(pipe::Sender::from_owned_fd(output)?),
        FileType::Socket => Box::new(socket(output)?),
        _ => Box::new(File::from_std(output.into())),
    })
}

/// Any stream socket is read, written and shut down as this one is.
fn socket(of: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(of);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Puts nothing in the place of standard output, so that its reader sees the end and a later file can't take its number.
fn close_stdout() -> io::Result<()> {
    let nothing = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(stdio::dup2_stdout(nothing)?)
}

#[cfg(test)]
mod tests;
