//! Searches over a directory that the test plays: pages, limits, rules, and what a hostile one sends.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt, duplex};

use super::super::fixture::{Asked, Site, all, directory, done, entry, search, search_at};
use super::*;
use crate::base::limits::SEARCH_RESPONSE;
use crate::base::tasks::Tasks;
use crate::ldap::ber::{Writer, tag};
use crate::ldap::message::{Operation, answer};
use crate::ldap::search::found::Value;

/// Sequences in each other.
fn nested(depth: usize) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..depth {
        let length = u32::try_from(reversed.len()).unwrap();
        reversed.extend(length.to_le_bytes());
        reversed.extend([0x84, 0x30]);
    }
    reversed.reverse();
    reversed
}

fn names(events: &[Event]) -> Vec<&str> {
    fn name(event: &Event) -> &str {
        match event {
            Event::Entry(entry) => entry.dn.as_str(),
            Event::Reference(uris) => uris[0].as_str(),
            Event::End(_) => "end",
        }
    }
    events.iter().map(name).collect()
}

fn refused(end: Event) -> (Code, String) {
    match end {
        Event::End(Err(Problem::Refused(refusal))) => (refusal.code, refusal.detail),
        other => panic!("{other:?}"),
    }
}

/// Set in the process that is to be aborted.
const VICTIM: &str = "UNDERPASS_TEST_VICTIM";

/// What the guard is for: without it a reply of 60 KB ends the process, whatever catches panics.
#[test]
fn d7_a_nested_reply_aborts_the_bare_library() {
    let name = "agent::bridge::ldap::search::run::tests::d7_a_nested_reply_aborts_the_bare_library";
    if std::env::var_os(VICTIM).is_none() {
        let victim = Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(VICTIM, "1").output().unwrap();
        assert!(!victim.status.success());
        let said = String::from_utf8_lossy(&victim.stderr);
        assert!(said.contains("stack overflow"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut ours, library) = UnixStream::pair().unwrap();
        ours.write_all(&nested(10_000)).await.unwrap();
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(library.into_std().unwrap()));
        let (connection, _ldap) = LdapConnAsync::with_settings(settings, "ldapi://directory").await.unwrap();
        let _ = connection.drive().await;
    });
}

#[tokio::test]
async fn d7_through_the_guard_a_nested_reply_is_an_ordinary_error() {
    let (found, end) = all(search("{}", "{}", directory(|_| nested(10_000)))).await;
    assert!(found.is_empty());
    let (code, detail) = refused(end);
    assert!(code == Code::DirectoryInvalid && detail.contains("deep"), "{detail}");
}

#[tokio::test]
async fn d7_whatever_a_directory_answers_ends_its_search_alone() {
    fn message(id: u32, op: &[u8]) -> Vec<u8> {
        answer::message(id, &[], |writer| writer.whole(op))
    }
    type Answers = fn(u32) -> Vec<u8>;
    let cases: &[(&str, Answers)] = &[
        ("an empty message", |_| vec![0x30, 0]),
        ("no message", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("an indefinite length", |_| vec![0x30, 0x80, 0, 0]),
        ("4 GiB", |_| vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 1]),
        ("a message without an operation", |_| vec![0x30, 3, 2, 1, 1]),
        ("another id", |id| done(id + 1, 0, b"")),
        ("a large id", |_| done(0x7fff_ffff, 0, b"")),
        ("an id that is too large", |_| vec![0x30, 0x0e, 2, 5, 0, 0x80, 0, 0, 0, 0x65, 5, 0x0a, 1, 0, 4, 0]),
        ("an answer to a bind", |id| answer::done_as(id, Operation::Bind, 0, "", "", &[])),
        ("an answer to an extension", |id| answer::done_as(id, Operation::Extended, 0, "", "", &[])),
        ("a request", |id| message(id, &[0x4a, 4, b'c', b'n', b'=', b'x'])),
        ("an operation that is not known", |id| message(id, &[0x7e, 0])),
        ("an empty entry", |id| message(id, &[0x64, 0])),
        ("an entry of a name alone", |id| message(id, &[0x64, 2, 4, 0])),
        ("an entry whose name is no text", |id| message(id, &[0x64, 5, 4, 1, 0xff, 0x30, 0])),
        ("an attribute without values", |id| message(id, &[0x64, 9, 4, 0, 0x30, 5, 0x30, 3, 4, 1, b'c'])),
        ("an empty end", |id| message(id, &[0x65, 0])),
        ("an end without words", |id| message(id, &[0x65, 5, 0x0a, 1, 0, 4, 0])),
        ("a page that is none", |id| {
            let control = [b"\x30\x1a\x04\x161.2.840.113556.1.4.319\x04\x00".as_slice()];
            let mut controls = Writer::default();
            controls.constructed(tag::context_constructed(0), |list| list.whole(control[0]));
            answer::done_as(id, Operation::Search, 0, "", "", &controls.into_bytes())
        }),
        ("controls that are none", |id| answer::done_as(id, Operation::Search, 0, "", "", &[0xa0, 2, 0x30, 0])),
    ];
    for (case, reply) in cases {
        let (found, end) = all(search("{}", "{}", directory(|asked| reply(asked.id)))).await;
        assert!(found.is_empty(), "{case}");
        assert_eq!(refused(end).0, Code::DirectoryInvalid, "{case}");
    }
}

#[tokio::test]
async fn d7_an_answer_before_the_question_and_an_end_in_the_middle_are_errors() {
    let (near, mut far) = duplex(1024);
    far.write_all(&done(1, 0, b"")).await.unwrap();
    assert_eq!(refused(all(search("{}", "{}", near)).await.1).0, Code::DirectoryInvalid);
    let (_, end) = all(search("{}", "{}", directory(|_| Vec::new()))).await;
    assert_eq!(refused(end).0, Code::TargetReset);
    // In the middle of an entry.
    let half = |asked: &Asked| {
        let mut whole = entry(asked.id, "cn=x", &[("cn", b"x")]);
        whole.truncate(whole.len() - 1);
        whole
    };
    let mut asked = false;
    let cut = directory(move |request| if std::mem::replace(&mut asked, true) { Vec::new() } else { half(request) });
    let mut waiting = search("{\"time_limit\": 1}", "{}", cut);
    assert!(waiting.next().now_or_never().is_none(), "half an entry is none");
}

/// Five entries, page by page; the limit is that of all pages together (as OpenLDAP counts), or of each.
fn five(together: bool) -> impl FnMut(&Asked) -> Vec<u8> {
    move |asked| {
        let (limit, page) = asked.page();
        let (size, cookie) = page.unwrap_or((1000, Vec::new()));
        let first = u32::from(cookie.first().copied().unwrap_or(0));
        let left = if limit == 0 { u32::MAX } else { limit - if together { first } else { 0 } };
        let last = 5.min(first + size.min(left));
        let entries = (first..last).flat_map(|index| entry(asked.id, &format!("cn={index}"), &[("cn", b"x")]));
        let end = match last {
            5 => done(asked.id, 0, &[]),
            _ if size > left => done(asked.id, 4, &[]),
            last => done(asked.id, 0, &[last as u8]),
        };
        entries.chain(end).collect()
    }
}

#[tokio::test]
async fn pages_are_asked_for_until_the_last_or_the_limit() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let pages = directory(move |request| {
        seen.lock().unwrap().push(request.page());
        five(true)(request)
    });
    let (found, end) = all(search(r#"{"page_size": 2}"#, "{}", pages)).await;
    assert_eq!(names(&found), ["cn=0", "cn=1", "cn=2", "cn=3", "cn=4"]);
    let Event::End(Ok(summary)) = end else { panic!("{end:?}") };
    assert_eq!((summary.count, summary.truncated, summary.result.code), (5, false, 0));
    let page = |at: Vec<u8>| (0, Some((2, at)));
    assert_eq!(*asked.lock().unwrap(), [page(vec![]), page(vec![2]), page(vec![4])]);

    for (limit, count, truncated) in [(3, 3, true), (5, 5, false), (4, 4, true), (9, 5, false)] {
        for together in [true, false] {
            let query = format!("{{\"page_size\": 2, \"size_limit\": {limit}}}");
            let (found, end) = all(search(&query, "{}", directory(five(together)))).await;
            let Event::End(Ok(summary)) = end else { panic!("{end:?}") };
            assert_eq!((found.len(), summary.count, summary.truncated), (count, count as u64, truncated), "{limit}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_gives_more_than_is_wanted_is_cut() {
    let endless = directory(|asked| (0..50).flat_map(|_| entry(asked.id, "cn=x", &[])).collect());
    let (found, end) = all(search(r#"{"size_limit": 7}"#, "{}", endless)).await;
    let Event::End(Ok(summary)) = end else { panic!("{end:?}") };
    assert_eq!((found.len(), summary.truncated, summary.result.name), (7, true, "sizeLimitExceeded"));
}

#[tokio::test]
async fn the_base_alone_is_asked_for_without_pages() {
    let pages = directory(|asked| {
        assert_eq!(asked.page(), (0, None));
        [entry(asked.id, "", &[("objectSid", b"\x01\x05"), ("cn", b"x")]), done(asked.id, 0, b"")].concat()
    });
    let (found, _) = all(search(r#"{"scope": "base"}"#, "{}", pages)).await;
    let Event::Entry(root) = &found[0] else { panic!("{found:?}") };
    assert_eq!(root.attributes["objectSid"], [Value::Bytes(vec![1, 5])]);
    assert_eq!(root.attributes["cn"], [Value::Text("x".into())]);
}

#[tokio::test]
async fn what_the_rules_deny_never_reaches_the_directory_or_is_taken_out() {
    let untouched = || directory(|asked| panic!("asked {:?}", asked.operation));
    for (query, rules) in [
        (r#"{"bind": {"dn": "cn=x", "password": "p"}}"#, "{}"),
        (r#"{"base": "dc=other"}"#, r#"{"base": "dc=corp"}"#),
        (r#"{"filter": "(USERPASSWORD;x-a=*)"}"#, "{}"),
        (r#"{"filter": "(2.5.4.35=a*)"}"#, "{}"),
        ("{}", r#"{"operations": ["compare"]}"#),
    ] {
        let site = Site::new(rules, usize::MAX);
        let (_, end) = all(search_at(&site, query, untouched())).await;
        assert_eq!(refused(end).0, Code::RequestDenied, "{query}");
        assert_eq!(site.denied.lock().unwrap().len(), 1, "{query} is on record once");
    }
    let leaky = directory(|asked| {
        let mut reply = entry(asked.id, "cn=x", &[("cn", b"x"), ("userPASSWORD;x", b"secret"), ("2.5.4.35", b"secret")]);
        reply.extend(answer::message(asked.id, &[], |writer| {
            writer.constructed(0x73, |uris| uris.octets(tag::OCTETS, b"ldap://elsewhere/"));
        }));
        reply.extend(done(asked.id, 0, b""));
        reply
    });
    let (found, _) = all(search("{}", "{}", leaky)).await;
    assert_eq!(names(&found), ["cn=x"]);
    let Event::Entry(entry) = &found[0] else { panic!("{found:?}") };
    assert_eq!(entry.attributes.keys().collect::<Vec<_>>(), ["cn"]);
}

#[tokio::test]
async fn rules_that_change_hold_for_the_next_message_and_end_a_login_that_they_forbid() {
    let login = r#"{"bind": {"dn": "cn=x", "password": "p"}}"#;
    let before = r#"{"operations": ["bind", "search"]}"#;
    for (after, while_binding) in [(r#"{"operations": ["search"]}"#, true), (r#"{"operations": ["search"]}"#, false)] {
        let site = Site::new(before, usize::MAX);
        let reloaded = site.clone();
        let reloads = directory(move |asked| match asked.operation {
            Some(Operation::Bind) => {
                while_binding.then(|| reloaded.reload(after));
                answer::done_as(asked.id, Operation::Bind, 0, "", "", &[])
            }
            _ => {
                reloaded.reload(after);
                entry(asked.id, "cn=x", &[("cn", b"x")])
            }
        });
        let (found, end) = all(search_at(&site, login, reloads)).await;
        assert_eq!((found.len(), refused(end).0), (0, Code::TargetRemoved));
    }
    let site = Site::new("{}", usize::MAX);
    let reloaded = site.clone();
    let reloads = directory(move |asked| {
        reloaded.reload(r#"{"deny_attributes": ["mail"]}"#);
        [entry(asked.id, "cn=x", &[("cn", b"x"), ("mail", b"m")]), done(asked.id, 0, b"")].concat()
    });
    let (found, _) = all(search_at(&site, "{}", reloads)).await;
    let Event::Entry(entry) = &found[0] else { panic!("{found:?}") };
    assert_eq!(entry.attributes.keys().collect::<Vec<_>>(), ["cn"]);
}

#[tokio::test]
async fn d7_what_a_search_holds_of_its_directorys_messages_is_what_its_target_may_hold() {
    let many = |id| {
        let mut values = Writer::default();
        values.constructed(tag::SEQUENCE, |it| {
            it.octets(tag::OCTETS, b"cn");
            it.constructed(tag::SET, |it| (0..20_000).for_each(|_| it.octets(tag::OCTETS, b"x")));
        });
        [answer::entry(id, b"\x04\x04cn=x", &[&values.into_bytes()], &[]), done(id, 0, b"")].concat()
    };
    let (_, end) = all(search_at(&Site::new("{}", 4 << 20), "{}", directory(move |asked| many(asked.id)))).await;
    assert_eq!(refused(end).0, Code::MemoryBudget, "60 KB of which each value is an element");
    let (found, _) = all(search_at(&Site::new("{}", 16 << 20), "{}", directory(move |asked| many(asked.id)))).await;
    assert_eq!(found.len(), 1);
    let withheld = |_: &Asked| [&[0x30, 0x83, 0x20, 0, 0][..], &[0; 1 << 20]].concat();
    let (_, end) = all(search_at(&Site::new("{}", 512 << 10), "{}", directory(withheld))).await;
    assert_eq!(refused(end).0, Code::MemoryBudget, "half a message");
    let length = u32::try_from(SEARCH_RESPONSE).unwrap().to_be_bytes();
    let head = move |_: &Asked| [&[0x30, 0x84][..], &length].concat();
    let (_, end) = all(search("{}", "{}", directory(head))).await;
    assert_eq!(refused(end).0, Code::SearchTooLarge, "before it has come");
}

#[tokio::test]
async fn references_pass_where_the_site_wants_them() {
    let elsewhere = directory(|asked| {
        let mut reply = answer::message(asked.id, &[], |writer| {
            writer.constructed(0x73, |uris| uris.octets(tag::OCTETS, b"ldap://elsewhere/"));
        });
        reply.extend(done(asked.id, 0, b""));
        reply
    });
    let (found, _) = all(search("{}", r#"{"referrals": "pass"}"#, elsewhere)).await;
    assert_eq!(names(&found), ["ldap://elsewhere/"]);
}

#[tokio::test]
async fn e7_a_login_comes_first_and_its_refusal_is_the_directorys() {
    let rules = r#"{"operations": ["bind", "search"]}"#;
    let login = r#"{"bind": {"dn": "cn=x", "password": "p"}}"#;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let fine = directory(move |asked| {
        seen.lock().unwrap().push(asked.operation);
        match asked.operation {
            Some(Operation::Bind) => answer::done_as(asked.id, Operation::Bind, 0, "", "", &[]),
            _ => done(asked.id, 0, b""),
        }
    });
    let (_, end) = all(search(login, rules, fine)).await;
    assert!(matches!(end, Event::End(Ok(_))), "{end:?}");
    assert_eq!(*order.lock().unwrap(), [Some(Operation::Bind), Some(Operation::Search)]);
    let wrong = directory(|asked| answer::done_as(asked.id, Operation::Bind, 49, "", "80090308: LdapErr", &[]));
    let (_, end) = all(search(login, rules, wrong)).await;
    let Event::End(Err(Problem::Directory(ended))) = end else { panic!("{end:?}") };
    assert_eq!((ended.name, ended.message.as_str()), ("invalidCredentials", "80090308: LdapErr"));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_says_nothing_is_waited_for_as_long_as_was_said() {
    let (near, _far) = duplex(64 * 1024);
    let begun = Instant::now();
    let (_, end) = all(search(r#"{"time_limit": 7}"#, "{}", near)).await;
    assert_eq!(refused(end).0, Code::SearchTimeout);
    assert_eq!(begun.elapsed(), Duration::from_secs(7) + SEARCH_GRACE);
}

/// Whoever takes slowly holds up the directory, and not the agent's memory.
#[tokio::test]
async fn d7_endless_entries_wait_for_their_taker() {
    const VALUE: usize = 16 * 1024;
    let (near, mut far) = duplex(1024);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    Tasks::new().spawn(async move {
        let entry = entry(1, "cn=x", &[("cn", &[b'x'; VALUE])]);
        while far.write_all(&entry).await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut endless = search("{}", "{}", near);
    for taken in 0..1_000 {
        assert!(matches!(endless.next().await, Event::Entry(_)));
        let ahead = sent.load(Ordering::SeqCst) - taken;
        // What waits in two batches, in the library's queue and in its socket.
        assert!(ahead * VALUE < 1024 * 1024, "{ahead} entries ahead");
    }
}
