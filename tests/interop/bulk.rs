//! A gigabyte each way, byte-exact. Refuses to know who is at the other end.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;
use underpass::tunnel::mux::Side;

use crate::end::{Cuts, End, SOON, wire};
use crate::reference::Reference;

pub(crate) const GIGABYTE: usize = 1_000_000_000;

/// Bytes that repeat after no power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_521) as u8).collect()
}

/// Sends `total` bytes and ends, while the same number comes, the same bytes, and ends.
pub(crate) async fn both_ways<S: AsyncRead + AsyncWrite>(stream: S, total: usize) {
    let block = pattern(1_000_003);
    let (mut reader, mut writer) = split(stream);
    let send = async {
        let mut left = total;
        while left > 0 {
            let part = left.min(block.len());
            writer.write_all(&block[..part]).await.unwrap();
            left -= part;
        }
        writer.shutdown().await.unwrap();
    };
    let receive = async {
        let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            let count = reader.read(&mut buffer).await.unwrap();
            if count == 0 {
                return got;
            }
            let mut part = &buffer[..count];
            while !part.is_empty() {
                let at = got % block.len();
                let same = part.len().min(block.len() - at);
                assert!(part[..same] == block[at..at + same], "changed at {got}");
                got += same;
                part = &part[same..];
            }
        }
    };
    let ((), got) = timeout(2 * SOON, async { tokio::join!(send, receive) }).await.expect("it flows");
    assert_eq!(got, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_each_way_between_the_mux_and_the_crate_in_both_roles() {
    for (side, other) in [(Side::Agent, Side::Gateway), (Side::Gateway, Side::Agent)] {
        let (ours, theirs) = wire();
        let end = End::over(ours, side, Cuts(vec![65_536]));
        let mut reference = Reference::over(theirs, other);
        let mut stream = end.opener.open().await.unwrap();
        stream.write_all(b"?").await.unwrap();
        let mut theirs = reference.accept().await.unwrap();
        theirs.read_u8().await.unwrap();
        tokio::join!(both_ways(stream, GIGABYTE), both_ways(theirs, GIGABYTE));
    }
}
