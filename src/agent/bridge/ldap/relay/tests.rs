//! Clients and directories over memory, with the relay between them. Refuses to know TLS and real directories.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::ldap::ber::{Writer, tag};
use crate::ldap::message::Operation;
use crate::ldap::message::answer;
use crate::tunnel::splice::Socket;

/// What a pipe of a test holds.
const PIPE: usize = 16 * 1024;

struct Books {
    rules: Mutex<Arc<Rules>>,
    denied: Mutex<Vec<String>>,
    moved: Mutex<(usize, usize)>,
    memory: usize,
}

impl Books {
    fn new(allow: Value) -> Self {
        Self { rules: Mutex::new(rules(allow)), denied: Mutex::default(), moved: Mutex::default(), memory: usize::MAX }
    }

    fn denials(&self) -> Vec<String> {
        self.denied.lock().unwrap().clone()
    }
}

impl Account for Books {
    fn rules(&self) -> Arc<Rules> {
        self.rules.lock().unwrap().clone()
    }

    fn denied(&self, denial: &Denial) {
        self.denied.lock().unwrap().push(denial.rule.to_string());
    }

    fn count(&self, direction: Direction, bytes: usize) {
        let mut moved = self.moved.lock().unwrap();
        match direction {
            Direction::Up => moved.0 += bytes,
            Direction::Down => moved.1 += bytes,
        }
    }

    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.memory
    }
}

fn rules(allow: Value) -> Arc<Rules> {
    Arc::new(serde_json::from_value(allow).unwrap())
}

/// Runs a client's and a directory's part beside the relay; yields how that ended.
async fn play<S: Future<Output = ()>>(
    books: &Books,
    said: &[u8],
    idle: Option<Duration>,
    script: impl FnOnce(DuplexStream, DuplexStream) -> S,
) -> Result<(), Cut> {
    let (client, mut near) = tokio::io::duplex(PIPE);
    let (directory, mut far) = tokio::io::duplex(PIPE);
    let said = Bytes::copy_from_slice(said);
    let relay = async move {
        let (mut near, mut far) = (Socket::new(&mut near), Socket::new(&mut far));
        relay(said, &mut near, &mut far, idle, books).await
    };
    tokio::join!(relay, script(client, directory)).0
}

fn search(id: u32, attribute: &str) -> Vec<u8> {
    let filter: crate::ldap::filter::Filter = format!("({attribute}=x)").parse().unwrap();
    answer::message(id, &[], |it| {
        it.constructed(0x63, |it| {
            it.octets(tag::OCTETS, b"dc=corp");
            it.number(tag::ENUMERATED, 2);
            it.number(tag::ENUMERATED, 0);
            it.number(tag::INTEGER, 0);
            it.number(tag::INTEGER, 0);
            it.truth(tag::BOOLEAN, false);
            filter.write(it);
            it.constructed(tag::SEQUENCE, |_| {});
        });
    })
}

fn entry(id: u32, attribute: &str, length: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |it| {
        it.octets(tag::OCTETS, attribute.as_bytes());
        it.constructed(tag::SET, |it| it.octets(tag::OCTETS, &vec![b'v'; length]));
    });
    answer::entry(id, b"\x04\x04cn=x", &[&writer.into_bytes()], b"")
}

fn empty_entry(id: u32) -> Vec<u8> {
    answer::entry(id, b"\x04\x04cn=x", &[], b"")
}

fn done(id: u32) -> Vec<u8> {
    answer::done(id, Operation::Search, ResultCode::Success, "")
}

fn unbind() -> Vec<u8> {
    answer::request(99, b"\x42\x00", &[])
}

/// Reads exactly these bytes.
async fn gets(io: &mut DuplexStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    io.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

async fn rest(io: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn what_may_pass_does_and_what_may_not_is_answered_in_its_place() {
    let books = Books::new(json!({}));
    let ended = play(&books, &search(1, "cn"), None, |mut client, mut directory| async move {
        gets(&mut directory, &search(1, "cn")).await;
        client.write_all(&[search(2, "userPassword"), search(3, "mail")].concat()).await.unwrap();
        gets(&mut directory, &search(3, "mail")).await;
        let found = [entry(1, "cn", 3), entry(1, "userPassword", 3), entry(3, "cn", 9), done(1), done(3)].concat();
        let mut seen = vec![0; 200];
        let length = client.read(&mut seen).await.unwrap();
        let denied = crate::ldap::message::Message::parse(&seen[..length]).unwrap();
        assert_eq!((denied.id, denied.op.tag), (2, 0x65));
        for byte in found.chunks(7) {
            directory.write_all(byte).await.unwrap();
        }
        gets(&mut client, &[entry(1, "cn", 3), empty_entry(1), entry(3, "cn", 9), done(1), done(3)].concat()).await;
        client.write_all(&unbind()).await.unwrap();
        assert_eq!(rest(&mut directory).await, unbind());
        assert!(rest(&mut client).await.is_empty());
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(books.denials(), ["deny_attributes"]);
    let up = search(1, "cn").len() + search(3, "mail").len() + unbind().len();
    assert_eq!(books.moved.lock().unwrap().0, up);
}

#[tokio::test]
async fn a_client_that_says_no_more_is_answered_what_it_waits_for() {
    let ended = play(&Books::new(json!({})), &search(1, "cn"), None, |mut client, mut directory| async move {
        client.shutdown().await.unwrap();
        gets(&mut directory, &search(1, "cn")).await;
        directory.write_all(&entry(1, "cn", 3)).await.unwrap();
        gets(&mut client, &entry(1, "cn", 3)).await;
        directory.write_all(&done(1)).await.unwrap();
        gets(&mut client, &done(1)).await;
        assert!(rest(&mut client).await.is_empty() && rest(&mut directory).await.is_empty());
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn d5_a_directory_that_is_gone_before_its_answer_is_told_and_one_without_anything_to_say_is_not() {
    let ended = play(&Books::new(json!({})), &search(1, "cn"), None, |mut client, mut directory| async move {
        gets(&mut directory, &search(1, "cn")).await;
        directory.write_all(&entry(1, "cn", 30)[..9]).await.unwrap();
        drop(directory);
        assert_eq!(rest(&mut client).await, answer::notice_of_disconnection(ResultCode::Unavailable, "target_reset"));
    })
    .await;
    assert_eq!(ended.unwrap_err().code, Code::TargetReset);
    let ended = play(&Books::new(json!({})), b"", None, |mut client, directory| async move {
        drop(directory);
        assert!(rest(&mut client).await.is_empty());
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_directorys_farewell_reaches_the_client() {
    let notice = answer::notice_of_disconnection(ResultCode::Unavailable, "shutting down");
    let ended = play(&Books::new(json!({})), &search(1, "cn"), None, |mut client, mut directory| async move {
        directory.write_all(&notice).await.unwrap();
        assert_eq!(rest(&mut client).await, notice);
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn d7_what_is_no_ldap_is_told_so_and_reaches_no_directory() {
    let tls = b"\x16\x03\x01\x02\x00".to_vec();
    for (said, why) in [
        (tls, "TLS"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no LDAP"),
        (vec![0x30, 0x80], "indefinite"),
        (vec![0x30, 0x84, 0x00, 0x10, 0x00, 0x01], "at most"),
        (done(1), "no request"),
        ([search(1, "cn"), search(1, "cn")].concat(), "under way"),
        (answer::request(0, b"\x4a\x00", &[]), "id is 0"),
    ] {
        let ended = play(&Books::new(json!({})), &said, None, |mut client, mut directory| async move {
            let told = rest(&mut client).await;
            assert!(told.windows(22).any(|it| it == b"1.3.6.1.4.1.1466.20036"), "{why}");
            let passed = rest(&mut directory).await;
            assert!(passed.is_empty() || passed == search(1, "cn"));
        })
        .await;
        let cut = ended.unwrap_err();
        assert!(cut.code == Code::LdapInvalid && cut.why.contains(why), "{cut:?}");
    }
}

#[tokio::test]
async fn d7_a_hostile_directory_costs_its_stream_and_shows_the_client_nothing() {
    let nested = |depth: usize| {
        let mut writer = Writer::default();
        let open: Vec<_> = (0..depth).map(|_| writer.begin(tag::SEQUENCE)).collect();
        open.into_iter().rev().for_each(|element| writer.end(element));
        writer.into_bytes()
    };
    for (said, why) in [
        (nested(10_000), "deep"),
        (vec![0x30, 0x80, 0x02, 0x01], "indefinite"),
        (vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "bytes"),
        (entry(2, "cn", 3), "nobody"),
        (answer::done(1, Operation::Bind, ResultCode::Success, ""), "none to it"),
        (b"\x30\x0c\x02\x05\x00\x80\x00\x00\x00\x65\x03\x0a\x01\x00".to_vec(), "id"),
        (search(1, "cn"), "no response"),
        (b"\x30\x00".to_vec(), "id"),
        (b"\x30\x05\x02\x01\x01\x65\x00".to_vec(), "code"),
    ] {
        let ended = play(&Books::new(json!({})), &search(1, "cn"), None, |mut client, mut directory| async move {
            gets(&mut directory, &search(1, "cn")).await;
            let _ = directory.write_all(&said).await;
            assert_eq!(rest(&mut client).await, answer::notice_of_disconnection(ResultCode::Unavailable, "directory_invalid"));
        })
        .await;
        let cut = ended.unwrap_err();
        assert!(cut.code == Code::DirectoryInvalid && cut.why.contains(why), "{cut:?} {why}");
    }
}

/// With the clock paused, the time is up only when nobody can go on.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_the_directory_up_and_loses_nothing() {
    let ended = play(&Books::new(json!({})), &search(1, "cn"), None, |mut client, mut directory| async move {
        gets(&mut directory, &search(1, "cn")).await;
        let one = entry(1, "cn", 1000);
        let all = one.repeat(2000);
        let mut written = 0;
        while let Ok(count) = timeout(Duration::from_secs(1), directory.write(&all[written..])).await {
            written += count.unwrap();
        }
        assert!(written < 8 * SPLICE_BUFFER, "{written} bytes are held");
        let finish = async {
            directory.write_all(&all[written..]).await.unwrap();
            directory.write_all(&done(1)).await.unwrap();
        };
        tokio::join!(finish, async {
            gets(&mut client, &all).await;
            gets(&mut client, &done(1)).await;
        });
        drop(client);
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_denials_is_not_heard_further() {
    let ended = play(&Books::new(json!({})), b"", None, |mut client, directory| async move {
        let all: Vec<u8> = (1..20_000).flat_map(|id| search(id, "userPassword")).collect();
        let mut written = 0;
        while let Ok(count) = timeout(Duration::from_secs(1), client.write(&all[written..])).await {
            written += count.unwrap();
        }
        assert!(written < 4 * SPLICE_BUFFER, "{written} bytes are heard");
        drop((client, directory));
    })
    .await;
    assert!(ended.is_ok() || ended.is_err_and(|cut| cut.code == Code::ClientReset));
}

#[tokio::test]
async fn rules_that_change_hold_for_the_next_message() {
    let books = Books::new(json!({}));
    let ended = play(&books, &search(1, "cn"), None, async |mut client, mut directory| {
        gets(&mut directory, &search(1, "cn")).await;
        *books.rules.lock().unwrap() = rules(json!({"operations": ["compare"], "deny_attributes": ["mail"]}));
        directory.write_all(&[entry(1, "mail", 3), done(1)].concat()).await.unwrap();
        gets(&mut client, &[empty_entry(1), done(1)].concat()).await;
        client.write_all(&[search(2, "mail"), unbind()].concat()).await.unwrap();
        assert_eq!(rest(&mut directory).await, unbind());
    })
    .await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(books.denials(), ["operations"]);
}

#[tokio::test]
async fn a_login_that_the_rules_forbid_now_ends_with_the_next_message() {
    let bind = answer::request(1, b"\x60\x0c\x02\x01\x03\x04\x04cn=a\x80\x01p", &[]);
    let bound = answer::done(1, Operation::Bind, ResultCode::Success, "");
    let books = Books::new(json!({"operations": ["bind", "search"]}));
    let ended = play(&books, &bind, None, async |mut client, mut directory| {
        gets(&mut directory, &bind).await;
        directory.write_all(&bound).await.unwrap();
        gets(&mut client, &bound).await;
        *books.rules.lock().unwrap() = rules(json!({"operations": ["search"]}));
        client.write_all(&search(2, "cn")).await.unwrap();
        assert_eq!(rest(&mut client).await, answer::notice_of_disconnection(ResultCode::Unavailable, "target_removed"));
        assert!(rest(&mut directory).await.is_empty());
    })
    .await;
    assert_eq!(ended.unwrap_err().code, Code::TargetRemoved);
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_nothing_moves_ends_and_one_in_which_something_does_lives() {
    let idle = Duration::from_secs(10);
    let start = Instant::now();
    let ended = play(&Books::new(json!({})), b"", Some(idle), |mut client, mut directory| async move {
        for id in 1..4 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(&search(id, "cn")).await.unwrap();
            gets(&mut directory, &search(id, "cn")).await;
        }
        assert_eq!(rest(&mut client).await, answer::notice_of_disconnection(ResultCode::Unavailable, "idle_timeout"));
    })
    .await;
    assert_eq!(ended.unwrap_err().code, Code::IdleTimeout);
    assert_eq!(start.elapsed().as_secs(), 27 + 10);
}

#[tokio::test]
async fn d7_large_messages_take_what_their_target_may_hold_and_no_more() {
    let large = entry(1, "cn", 300_000);
    let enough = async |memory: usize| {
        let books = Books { memory, ..Books::new(json!({})) };
        play(&books, &search(1, "cn"), None, async |mut client, mut directory| {
            gets(&mut directory, &search(1, "cn")).await;
            let _ = tokio::join!(directory.write_all(&large), async {
                let mut got = vec![0; large.len()];
                let _ = client.read_exact(&mut got).await;
            });
            drop((client, directory));
        })
        .await
    };
    assert_eq!(enough(200_000).await.unwrap_err().code, Code::MemoryBudget);
    assert_ne!(enough(2_000_000).await.unwrap_err().code, Code::MemoryBudget);
}

/// A side that has nothing to say, takes everything, and says so only when it is asked again.
#[derive(Default)]
struct Hesitant {
    asked: usize,
    said: VecDeque<Bytes>,
    taken: usize,
}

impl Duplex for Hesitant {
    fn poll_chunks(&mut self, _: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        match self.said.pop_front() {
            Some(chunk) => {
                chunks.push_back(chunk);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        self.taken += chunks.drain(..).map(|chunk| chunk.len()).sum::<usize>();
        self.asked += 1;
        if self.asked % 2 == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_side_that_takes_its_time_to_flush_is_heard_again_and_so_is_the_other() {
    let said = (1..9).map(|id| Bytes::from(search(id, "cn"))).chain([Bytes::from(unbind())]);
    let (mut near, mut far) = (Hesitant { said: said.collect(), ..Hesitant::default() }, Hesitant::default());
    relay(Bytes::new(), &mut near, &mut far, None, &Books::new(json!({}))).await.unwrap();
    assert_eq!(far.taken, 8 * search(1, "cn").len() + unbind().len());
}

/// A directory that never ends.
struct Endless(Bytes);

impl Duplex for Endless {
    fn poll_chunks(&mut self, _: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        chunks.push_back(self.0.clone());
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, _: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        chunks.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Also when nothing of what it says goes on.
#[test]
fn d7_a_directory_that_never_ends_lets_others_have_their_turn() {
    let books = Books::new(json!({"base": "dc=corp"}));
    let (mut near, mut far) = (Hesitant::default(), Endless(Bytes::from(entry(1, "cn", 100))));
    let relay = relay(Bytes::from(search(1, "cn")), &mut near, &mut far, None, &books);
    let relay = std::pin::pin!(relay);
    assert!(relay.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
}
