//! Several chunks in one write, and what is left of them after it. Refuses to know where they come from.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Slices of one write: a full message of small frames, or some messages of large ones.
const SLICES: usize = 16;

/// Writes from the front of `chunks`, which must not be empty, and takes away what was written; yields how much.
pub(super) fn poll_write_chunks<W: AsyncWrite>(
    io: Pin<&mut W>,
    cx: &mut Context<'_>,
    chunks: &mut VecDeque<Bytes>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = slices.iter_mut().zip(chunks.iter()).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count();
    let written = match count {
        1 => ready!(io.poll_write(cx, &slices[0]))?,
        _ => ready!(io.poll_write_vectored(cx, &slices[..count]))?,
    };
    let mut left = written;
    while let Some(first) = chunks.front_mut().filter(|first| left > 0 || first.is_empty()) {
        let part = left.min(first.len());
        first.advance(part);
        left -= part;
        if first.is_empty() {
            chunks.pop_front();
        }
    }
    Poll::Ready(Ok(written))
}
