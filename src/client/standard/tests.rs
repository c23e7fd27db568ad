//! Standard streams that are pipes, sockets and files of the test, in paused time. Refuses to touch the test's own.

use std::fs;
use std::io::{Read, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

/// Over two pipes; yields their other ends.
fn over_pipes() -> (Standard, io::PipeWriter, io::PipeReader) {
    let (input, writer) = io::pipe().unwrap();
    let (reader, output) = io::pipe().unwrap();
    (Standard::over(input.into(), output.into(), || Ok(())).unwrap(), writer, reader)
}

/// What input yields until it ends, and after which time.
async fn rest(standard: &mut Standard) -> (Vec<u8>, u128) {
    let (start, mut read) = (Instant::now(), Vec::new());
    standard.read_to_end(&mut read).await.unwrap();
    (read, start.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn the_last_byte_out_closes_the_output_and_input_goes_on() {
    let (mut standard, mut writer, mut reader) = over_pipes();
    standard.write_all(b"last").await.unwrap();
    standard.shutdown().await.unwrap();
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    assert_eq!(out, b"last");
    writer.write_all(b"more").unwrap();
    drop(writer);
    assert_eq!(rest(&mut standard).await, (b"more".to_vec(), 0));
}

#[tokio::test(start_paused = true)]
async fn input_is_waited_for_without_end_until_the_output_has_ended_and_then_while_it_speaks() {
    let (mut standard, mut writer, _reader) = over_pipes();
    let waited = tokio::time::timeout(STDIN_LINGER * 1000, standard.read_u8()).await;
    assert!(waited.is_err(), "an open stream has no idle limit");
    standard.shutdown().await.unwrap();
    let speak = async {
        for _ in 0..3 {
            tokio::time::sleep(STDIN_LINGER / 2).await;
            writer.write_all(b"x").unwrap();
        }
    };
    let (start, mut read) = (Instant::now(), Vec::new());
    let (ended, ()) = tokio::join!(standard.read_to_end(&mut read), speak);
    ended.unwrap();
    assert_eq!(read, b"xxx");
    assert_eq!(start.elapsed().as_secs(), (STDIN_LINGER * 5 / 2).as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_output_whose_reader_is_gone_counts_as_ended() {
    let (mut standard, _writer, reader) = over_pipes();
    drop(reader);
    assert_eq!(standard.write_u8(1).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(rest(&mut standard).await, (Vec::new(), STDIN_LINGER.as_millis()));
}

#[tokio::test(start_paused = true)]
async fn one_socket_for_both_is_half_closed() {
    let (ours, mut theirs) = StdUnixStream::pair().unwrap();
    let both: OwnedFd = ours.into();
    let mut standard = Standard::over(both.try_clone().unwrap(), both, || Ok(())).unwrap();
    standard.write_all(b"out").await.unwrap();
    standard.shutdown().await.unwrap();
    let mut out = Vec::new();
    theirs.read_to_end(&mut out).unwrap();
    assert_eq!(out, b"out");
    theirs.write_all(b"in").unwrap();
    drop(theirs);
    assert_eq!(rest(&mut standard).await.0, b"in");
}

#[tokio::test]
async fn files_are_read_and_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&from, &bytes).unwrap();
    let open = (fs::File::open(&from).unwrap().into(), fs::File::create(&to).unwrap().into());
    let mut standard = Standard::over(open.0, open.1, || Ok(())).unwrap();
    let mut read = Vec::new();
    standard.read_to_end(&mut read).await.unwrap();
    standard.write_all(&read).await.unwrap();
    standard.shutdown().await.unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
}

#[test]
fn a_pipe_is_left_in_the_mode_that_it_had() {
    let (reader, _writer) = io::pipe().unwrap();
    let before = fcntl_getfl(&reader).unwrap();
    let other: &'static OwnedFd = Box::leak(Box::new(reader.try_clone().unwrap().into()));
    let mode = Mode::of(other.as_fd()).unwrap().expect("a pipe has one");
    fcntl_setfl(&reader, before | OFlags::NONBLOCK).unwrap();
    drop(mode);
    assert_eq!(fcntl_getfl(&reader).unwrap(), before);
}
