//! What every test stands on: scratch directories, processes that end with their test, and waiting for a condition.
//! Refuses to know what the processes are.

pub(crate) mod entries;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod site;
pub(crate) mod target;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Long enough for anything that works, also on a busy machine; only what is broken takes it all.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits until `probe` yields something, and fails the test when it has not by then. The only place of the tests that
/// lets time pass by itself.
pub(crate) async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    let mut ticks = tokio::time::interval(Duration::from_millis(25));
    loop {
        ticks.tick().await;
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
    }
}

/// Checks that `probe` holds at every look for a while: for what must *not* happen.
pub(crate) async fn always(what: &str, during: Duration, mut probe: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + during;
    let mut ticks = tokio::time::interval(Duration::from_millis(25));
    while Instant::now() < end {
        ticks.tick().await;
        assert!(probe().await, "{what}: no longer so");
    }
}

/// A test's own directory, removed with it. Other users may pass through it, not list it.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("underpass-test-").tempdir().expect("a scratch directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only its owner can read or change.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        write_private(&path, content);
        path
    }

    /// Makes a directory that belongs to `user` (which the Debian package of a server has made).
    pub(crate) fn dir_of(&self, name: &str, user: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        give(&path, user);
        path
    }
}

/// Writes a file with mode 0600.
pub(crate) fn write_private(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Changes the owner of a file or directory.
pub(crate) fn give(path: &Path, user: &str) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry: Vec<_> = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == user)
        .unwrap_or_else(|| panic!("no user `{user}`: its server's package is not installed"));
    chown(path, entry[2].parse().ok(), entry[3].parse().ok()).unwrap();
}

/// A port of loopback that nothing listens on, each time another. It is below those that the kernel gives to outgoing
/// connections, any of which could take it before it is used.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    loop {
        let port = 10_000 + NEXT.fetch_add(1, Ordering::SeqCst).wrapping_add(start.wrapping_mul(131)) % 20_000;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// That port's address.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A connection of another host, by its address in 127.0.0.0/8.
pub(crate) async fn connect_from(host: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(host.parse().expect("an address"), 0))?;
    socket.connect(to).await
}

/// A host that no other connection of the tests comes from, so that no limit on a source is met by chance.
pub(crate) fn fresh_host() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    format!("127.77.{high}.{low}")
}

/// Waits until a server accepts connections.
pub(crate) async fn listens(what: &str, address: SocketAddr) {
    eventually(&format!("{what} listens on {address}"), SOON, async || TcpStream::connect(address).await.ok()).await;
}

/// Tests that use both cores for long, or that measure, take turns.
pub(crate) async fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The SHA-256 of a file, in hex.
pub(crate) async fn sha256_of(path: &Path) -> String {
    let out = process::Program::new("sha256sum").arg(path).run().await;
    out.ok().split_whitespace().next().unwrap().to_owned()
}
