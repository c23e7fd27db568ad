//! The mux and hashicorp's implementation in Go: both roles, over TCP. Refuses to know the other reference.

use std::path::PathBuf;
use std::process::{Command as Build, Stdio};
use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use underpass::base::code::Code;
use underpass::tunnel::mux::Side;

use crate::bulk::{GIGABYTE, both_ways};
use crate::end::{Cuts, End, SOON};

const SIDES: [Side; 2] = [Side::Agent, Side::Gateway];

/// A frame's header comes alone: what it says must not hurt the body behind it.
const HEADER: usize = 12;

/// The peer's process, and our end of the connection that it has dialled.
struct Go {
    end: End,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Go {
    /// Our end takes the side, the peer the other.
    async fn against(side: Side, mode: &[&str]) -> Self {
        Self::cut(side, mode, Cuts(vec![HEADER, 65_536, 11, 40_000, 1, 1])).await
    }

    async fn cut(side: Side, mode: &[&str], cuts: Cuts) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let role = if side == Side::Agent { "server" } else { "client" };
        let mut process = Command::new(binary())
            .args([&listener.local_addr().unwrap().to_string(), role])
            .args(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stream, _) = timeout(SOON, listener.accept()).await.expect("it dials").unwrap();
        stream.set_nodelay(true).unwrap();
        let end = End::over(stream, side, cuts);
        let stdin = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { end, stdin, lines, _process: process }
    }

    async fn ask(&mut self, what: &str) {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    async fn tells(&mut self) -> String {
        timeout(SOON, self.lines.next_line()).await.expect("it tells something").unwrap().expect("it lives")
    }
}

/// Builds the peer, once: with Debian's packages and nothing from a module proxy.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let binary = target.join("yamux-echo");
        let status = Build::new("go")
            .args(["build", "-o"])
            .arg(&binary)
            .arg("main.go")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/yamux-echo"))
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "")
            .env("GOCACHE", target.join("go-cache"))
            .status()
            .expect("Go is installed, as tests/run does");
        assert!(status.success(), "the peer compiles");
        binary
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_each_way_to_hashicorps_yamux_in_both_roles() {
    for side in SIDES {
        let go = Go::cut(side, &["echo"], Cuts(vec![65_536, 65_533])).await;
        both_ways(go.end.opener.open().await.unwrap(), GIGABYTE).await;
        assert!(!go.end.link.has_ended());
    }
}

#[tokio::test]
async fn a_half_close_is_answered_by_all_of_the_echo_and_its_end() {
    for side in SIDES {
        let go = Go::against(side, &["echo"]).await;
        // Also what fits into one message with its end.
        for length in [0, 1, 100, 10_000, 65_000, 500_000].repeat(20) {
            both_ways(go.end.opener.open().await.unwrap(), length).await;
        }
    }
}

#[tokio::test]
async fn a_reset_reaches_hashicorps_reader_as_one() {
    for side in SIDES {
        let mut go = Go::against(side, &["echo"]).await;
        let mut stream = go.end.opener.open().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        drop(stream);
        assert_eq!(go.tells().await, "broken: connection reset");
        let next = go.end.opener.open().await.unwrap();
        both_ways(next, 100_000).await;
    }
}

#[tokio::test]
async fn a_reset_of_hashicorps_is_no_end_of_file() {
    for side in SIDES {
        let go = Go::against(side, &["refuse"]).await;
        let mut first = go.end.opener.open().await.unwrap();
        first.write_all(b"x").await.unwrap();
        let mut refused = go.end.opener.open().await.unwrap();
        refused.write_all(b"x").await.unwrap();
        let error = timeout(SOON, refused.read_u8()).await.expect("it is refused").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(!go.end.link.has_ended());
    }
}

#[tokio::test]
async fn a_thousand_streams_opened_at_once_by_this_side() {
    for side in SIDES {
        let go = Go::against(side, &["echo"]).await;
        let mut streams = Vec::new();
        for _ in 0..1000 {
            let mut stream = go.end.opener.open().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            streams.push(stream);
        }
        for mut stream in streams {
            let mut answer = [0; 5];
            timeout(SOON, stream.read_exact(&mut answer)).await.expect("each is echoed").unwrap();
            assert_eq!(&answer, b"hello");
            stream.shutdown().await.unwrap();
            assert_eq!(timeout(SOON, stream.read(&mut [0])).await.expect("each ends").unwrap(), 0);
        }
        assert_eq!(go.end.link.streams(), 0);
    }
}

#[tokio::test]
async fn a_thousand_streams_opened_at_once_by_hashicorps_side() {
    for side in SIDES {
        let mut go = Go::against(side, &["open", "1000", "3000"]).await;
        let mut echoes = Vec::new();
        for _ in 0..1000 {
            // It opens no more than its backlog before it is answered, so each is echoed as it comes.
            let stream = timeout(SOON, go.end.incoming.accept()).await.expect("they arrive").unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            echoes.push(async move {
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            });
        }
        let (whole, _) = tokio::join!(go.tells(), futures_util::future::join_all(echoes));
        assert_eq!(whole, "whole");
        go.ask("ping").await;
        assert_eq!(go.tells().await, "pong");
        assert_eq!(go.end.link.streams(), 0);
    }
}

#[tokio::test]
async fn hashicorps_farewell_ends_opening_and_its_pings_are_answered() {
    for side in SIDES {
        let mut go = Go::against(side, &["echo"]).await;
        let mut open = go.end.opener.open().await.unwrap();
        open.write_all(b"before").await.unwrap();
        open.read_exact(&mut [0; 6]).await.unwrap();
        go.ask("goaway").await;
        assert_eq!(go.tells().await, "said");
        // The answer to a ping is behind the farewell.
        go.ask("ping").await;
        assert_eq!(go.tells().await, "pong");
        open.write_all(b"on").await.unwrap();
        open.read_exact(&mut [0; 2]).await.unwrap();
        let refused = go.end.opener.open().await.err().expect("it takes no more");
        assert_eq!(refused.code, Code::SessionLost);
        both_ways(open, 100_000).await;
        go.ask("close").await;
        timeout(SOON, go.end.link.ended()).await.expect("its end is ours");
    }
}

#[tokio::test]
async fn our_farewell_is_one_to_hashicorps() {
    for side in SIDES {
        let mut go = Go::against(side, &["echo"]).await;
        let mut open = go.end.opener.open().await.unwrap();
        open.write_all(b"before").await.unwrap();
        open.read_exact(&mut [0; 6]).await.unwrap();
        open.shutdown().await.unwrap();
        assert_eq!(open.read(&mut [0]).await.unwrap(), 0);
        go.end.link.close();
        go.ask("open").await;
        let refused = go.tells().await;
        assert!(
            ["refused: remote end is not accepting connections", "refused: session shutdown", "ended"].contains(&&*refused),
            "{refused}"
        );
    }
}
