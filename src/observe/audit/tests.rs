//! What an auditor relies on: every row is there, whole, in order, and says nothing that its event did not.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;

fn settings(dir: &Path, max_size: u64, on_full: OnFull) -> AuditSettings {
    AuditSettings { dir: dir.join("audit"), max_size, on_full }
}

fn reloaded(what: &str) -> Event<'_> {
    Event::Reloaded { what }
}

fn request_row(path: &str) -> Event<'_> {
    let (request, stream) = (RequestId::fresh(), Some(RequestId::fresh()));
    let (target, caller, source, method) = ("acme/dc1/erp", "token ci", None, "GET");
    Event::Request {
        request,
        stream,
        target,
        caller,
        source,
        method,
        path,
        status: Some(200),
        code: None,
        detail: None,
        up: 1,
        down: 2,
        millis: 3,
    }
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// All rows of a trail, oldest first.
fn all_rows(dir: &Path) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(dir.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The active file `audit.jsonl` sorts after `audit-….jsonl`.
    files.sort();
    files.iter().flat_map(|file| rows(file)).collect()
}

fn total(dir: &Path) -> u64 {
    fs::read_dir(dir.join("audit")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn r1_a_row_is_in_the_file_before_the_caller_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let agent: AgentId = "acme/dc1/a1".parse().unwrap();
    let (request, session) = (RequestId::fresh(), SessionId::fresh());
    audit
        .record(&Event::Opened {
            request,
            session,
            target: "acme/dc1/db",
            agent: Some(&agent),
            caller: "127.0.0.1",
            source: Some("127.0.0.1:4000".parse().unwrap()),
            address: None,
        })
        .unwrap();
    // The audit is still open: what is read here is what a killed process would have left.
    let row = rows(&dir.path().join("audit/audit.jsonl")).remove(0);
    let mut expected = serde_json::json!({
        "event": "opened", "request": request.to_string(), "session": session.to_string(), "target": "acme/dc1/db",
        "agent": "acme/dc1/a1", "caller": "127.0.0.1", "source": "127.0.0.1:4000",
    });
    expected["time"] = row["time"].clone();
    assert_eq!(row, expected);
    assert!(row["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn r1_every_kind_of_event_says_who_what_and_with_which_result() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let agent: AgentId = "acme/dc1/a1".parse().unwrap();
    let (request, session, instance) = (RequestId::fresh(), SessionId::fresh(), InstanceId::fresh());
    let time = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let (acme, dc1) = (&agent.group.tenant, &agent.group.group);
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let serials = ["0a".to_owned()];
    let by = "uid 0";
    for event in [
        Event::Started { role: "gateway", version: "0.1.0", instance },
        Event::TokenCreated { tenant: acme, group: dc1, token: "t1", expires: time, by },
        Event::Enrolled { agent: &agent, serial: "0a", not_after: time, source, repeated: false },
        Event::EnrollRefused { code: Code::TokenRefused, detail: "unknown", source },
        Event::ConnectRefused { source, code: Code::Revoked, detail: "serial 0a" },
        Event::Connected { session, agent: &agent, serial: "0a", peer: "192.0.2.1:1" },
        Event::Reauthorised { session, agent: &agent, serial: "0a", until: time, policy: Some(2) },
        Event::AgentLight {
            session,
            agent: &agent,
            state: Serving::NotServing,
            code: Some(Code::AgentNotServing),
            detail: None,
        },
        Event::Refused { request, target: "db", agent: None, caller: "c", source: None, code: Code::NoAgent, detail: "none" },
        Event::Closed { request, target: "db", up: 1, down: 2, millis: 3, code: Some(Code::IdleTimeout) },
        request_row("/a"),
        Event::Disconnected { session, agent: &agent, code: Code::Revoked, detail: "" },
        Event::Revoked { agent: &agent, serials: &serials, by },
        Event::Reloaded { what: "targets" },
        Event::ReloadRefused { detail: "line 3" },
        Event::Stopped { role: "gateway", instance, code: None },
    ] {
        audit.record(&event).unwrap();
    }
    let rows = all_rows(dir.path());
    let names: Vec<_> = rows.iter().map(|row| row["event"].as_str().unwrap()).collect();
    let expected = [
        "started",
        "token_created",
        "enrolled",
        "enroll_refused",
        "connect_refused",
        "connected",
        "reauthorised",
        "agent_light",
        "refused",
        "closed",
        "request",
        "disconnected",
        "revoked",
        "reloaded",
        "reload_refused",
        "stopped",
    ];
    assert_eq!(names, expected);
    assert_eq!(rows[1]["expires"], "2027-01-15T08:00:00.000Z");
    assert_eq!((&rows[1]["tenant"], &rows[1]["by"]), (&"acme".into(), &"uid 0".into()));
    assert_eq!((&rows[8]["code"], &rows[8]["target"]), (&"no_agent".into(), &"db".into()));
    assert_eq!((&rows[9]["up"], &rows[9]["down"], &rows[9]["code"]), (&1.into(), &2.into(), &"idle_timeout".into()));
    assert_eq!((&rows[6]["until"], &rows[6]["policy"]), (&"2027-01-15T08:00:00.000Z".into(), &2.into()));
    assert_eq!((&rows[7]["state"], &rows[7]["code"]), (&"not serving".into(), &"agent_not_serving".into()));
    assert_eq!(rows[12]["serials"], serde_json::json!(["0a"]));
}

#[test]
fn r2_a_strangers_text_cannot_forge_a_row_or_fill_one() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let hostile = format!("x\"}}\r\n{{\"event\":\"enrolled\"\u{1b}[2J\0\u{202e}{}", "y".repeat(1 << 20));
    audit
        .record(&Event::EnrollRefused { code: Code::TokenRefused, detail: &hostile, source: "192.0.2.1".parse().unwrap() })
        .unwrap();
    let text = fs::read_to_string(dir.path().join("audit/audit.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.trim_end().contains(crate::base::id::unprintable), "{text:?}");
    assert!(text.len() < 4096, "{} bytes", text.len());
    assert_eq!(all_rows(dir.path())[0]["event"], "enroll_refused");
}

#[test]
fn e11_the_files_are_private_and_a_symbolic_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 1 << 20, OnFull::Drop);
    Audit::open(&settings).unwrap().record(&reloaded("x")).unwrap();
    let file = settings.dir.join("audit.jsonl");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&settings.dir).unwrap().mode() & 0o777, 0o700);
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &file).unwrap();
    assert!(Audit::open(&settings).is_err());
}

#[test]
fn a_crash_in_the_middle_of_a_row_leaves_only_whole_rows() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 1 << 20, OnFull::Refuse);
    Audit::open(&settings).unwrap().record(&reloaded("before")).unwrap();
    let file = settings.dir.join("audit.jsonl");
    for piece in ["{\"time\":\"2026", &format!("{{\"x\":\"{}", "y".repeat(10_000))] {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole, piece.as_bytes()].concat()).unwrap();
        Audit::open(&settings).unwrap().record(&reloaded("after")).unwrap();
    }
    let said: Vec<_> = rows(&file).iter().map(|row| row["what"].as_str().unwrap().to_owned()).collect();
    assert_eq!(said, ["before", "after", "after"]);
    fs::write(&file, "no row at all").unwrap();
    Audit::open(&settings).unwrap().record(&reloaded("first")).unwrap();
    assert_eq!(rows(&file).len(), 1);
}

#[test]
fn f28_full_with_drop_the_oldest_give_way_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 8192, OnFull::Drop)).unwrap();
    let texts: Vec<_> = (0..500).map(|number| format!("{number:0>40}")).collect();
    for text in &texts {
        audit.record(&reloaded(text)).unwrap();
        assert!(total(dir.path()) <= 8192);
    }
    let kept: Vec<_> = all_rows(dir.path()).iter().map(|row| row["what"].as_str().unwrap().to_owned()).collect();
    assert!(kept.len() > 30, "{}", kept.len());
    assert_eq!(kept, texts[500 - kept.len()..], "the last ones, in order, none missing between");
}

#[test]
fn f28_full_with_refuse_work_is_refused_until_somebody_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8192, OnFull::Refuse);
    let now = Instant::now();
    let mut trail = Trail::open(&settings, now).unwrap();
    let row = json::line(&"r".repeat(100));
    let mut written = 0;
    let refused = loop {
        match trail.append(&row, now) {
            Ok(()) => written += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!(refused.code, Code::AuditFull);
    assert!(refused.detail.contains("audit.jsonl"), "{refused}");
    assert_eq!(trail.ready().unwrap_err().code, Code::AuditFull, "work that must be recorded is refused before it begins");
    assert_eq!(all_rows(dir.path()).len(), written, "what was acknowledged is there, and no more");

    let oldest = fs::read_dir(&settings.dir).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    fs::remove_file(oldest).unwrap();
    assert!(trail.append(&row, now).is_err(), "looked again too early");
    trail.append(&row, now + Duration::from_secs(1)).unwrap();
    trail.ready().unwrap();
}

#[test]
fn f28_a_directory_that_vanishes_is_an_error_and_its_return_is_noticed() {
    for on_full in [OnFull::Refuse, OnFull::Drop] {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), 1 << 20, on_full);
        let audit = Audit::open(&settings).unwrap();
        fs::remove_dir_all(&settings.dir).unwrap();
        assert_eq!(audit.record(&reloaded("lost")).is_err(), on_full == OnFull::Refuse);
        fs::create_dir(&settings.dir).unwrap();
        audit.record(&reloaded("kept")).unwrap();
        assert_eq!(all_rows(dir.path())[0]["what"], "kept");
    }
}

#[test]
fn rows_follow_the_path_when_somebody_moves_the_file_away() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 1 << 20, OnFull::Refuse);
    let audit = Audit::open(&settings).unwrap();
    audit.record(&reloaded("one")).unwrap();
    let file = settings.dir.join("audit.jsonl");
    fs::rename(&file, dir.path().join("shipped")).unwrap();
    // Not at once: the path is looked at ten times a second. Until then rows go where the file is.
    let before = Instant::now();
    while !file.exists() {
        audit.record(&reloaded("two")).unwrap();
        assert!(before.elapsed() < Duration::from_secs(60), "the file is never made again");
    }
    assert_eq!(rows(&file)[0]["what"], "two");
    assert!(!rows(&dir.path().join("shipped")).is_empty());
}

#[test]
fn d8_strangers_cannot_fill_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let stranger =
        Event::ConnectRefused { source: "192.0.2.1".parse().unwrap(), code: Code::TlsFailed, detail: "no certificate" };
    for _ in 0..10_000 {
        audit.record(&stranger).unwrap();
    }
    audit.record(&reloaded("still written")).unwrap();
    let rows = all_rows(dir.path());
    assert!(rows.len() < 1000, "{}", rows.len());
    assert_eq!(rows.last().unwrap()["what"], "still written");
}

#[test]
fn d8_one_callers_requests_leave_room_for_everybody_elses_rows() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    for _ in 0..10_000 {
        audit.record(&request_row("/allowed")).unwrap();
    }
    let refused = |event| match event {
        Event::Request { request, stream, target, source, method, path, .. } => {
            let (caller, code, detail) = ("token other", Some(Code::RequestDenied), Some("allow[0]: the method is not listed"));
            let (status, up, down, millis) = (Some(403), 0, 0, 0);
            audit.limited(&Event::Request {
                request,
                stream,
                target,
                caller,
                source,
                method,
                path,
                status,
                code,
                detail,
                up,
                down,
                millis,
            })
        }
        _ => unreachable!(),
    };
    let told = (0..10_000).filter(|_| refused(request_row("/denied"))).count();
    assert!((1..200).contains(&told), "{told}");
    audit.ready().unwrap();
    audit.record(&reloaded("still written")).unwrap();
    let rows = all_rows(dir.path());
    assert!(total(dir.path()) < (1 << 20) * 3 / 5, "{}", total(dir.path()));
    assert!(rows.iter().filter(|row| row["path"] == "/allowed").count() > 1000);
    assert_eq!(rows.last().unwrap()["what"], "still written");
}

#[test]
fn d8_one_source_has_few_rows_and_what_is_beyond_them_is_told_in_one_at_the_latest_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let stranger = |source: &str| {
        audit.limited(&Event::ConnectRefused { source: source.parse().unwrap(), code: Code::TlsFailed, detail: "junk" })
    };
    assert_eq!((0..5000).filter(|_| stranger("192.0.2.1")).count(), 10, "as many log lines as rows");
    assert!(stranger("192.0.2.2"), "another source has its own row in the same minute");
    assert_eq!(all_rows(dir.path()).len(), 11);
    // As if the minute were over.
    let minute_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    audit.settle();
    assert_eq!(all_rows(dir.path()).len(), 11, "the minute is not over");
    audit.files.as_ref().unwrap().lock().unwrap().noise.backdate(minute_ago);
    audit.settle();
    assert_eq!(all_rows(dir.path()).len(), 12, "told also if nothing else happens");
    audit.record(&reloaded("targets")).unwrap();
    assert_eq!((0..20).filter(|_| stranger("2001:db8::1")).count(), 10);
    audit.record(&Event::Stopped { role: "gateway", instance: InstanceId::fresh(), code: None }).unwrap();
    let rows = all_rows(dir.path());
    let suppressed: Vec<_> = rows.iter().filter(|row| row["event"] == "suppressed").collect();
    assert_eq!(suppressed.len(), 2);
    assert_eq!(suppressed[0]["count"], 4990);
    assert_eq!(suppressed[0]["most"], serde_json::json!([{"source": "192.0.2.1", "count": 4990}]));
    assert_eq!(suppressed[1]["most"], serde_json::json!([{"source": "2001:db8::/64", "count": 10}]));
    assert_eq!(rows[11]["event"], "suppressed", "before the row that came after the minute");
    assert_eq!(rows.last().unwrap()["event"], "stopped");
}

#[test]
fn d8_while_the_audit_is_half_full_noise_is_counted_and_told_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8192, OnFull::Refuse);
    let audit = Audit::open(&settings).unwrap();
    while total(dir.path()) <= 4096 {
        audit.record(&reloaded("targets")).unwrap();
    }
    let junk = Event::ConnectRefused { source: "192.0.2.1".parse().unwrap(), code: Code::TlsFailed, detail: "junk" };
    assert!(audit.limited(&junk), "the log tells of it");
    let stopped = || Event::Stopped { role: "gateway", instance: InstanceId::fresh(), code: None };
    audit.record(&stopped()).unwrap();
    let told = || all_rows(dir.path()).iter().filter(|row| row["event"] == "suppressed").count();
    assert_eq!(told(), 0, "{:?}", all_rows(dir.path()));
    fs::remove_dir_all(&settings.dir).unwrap();
    fs::create_dir(&settings.dir).unwrap();
    while audit.record(&reloaded("found again")).is_err() || all_rows(dir.path()).is_empty() {}
    audit.record(&stopped()).unwrap();
    assert_eq!(told(), 1);
}

/// A refusal of a caller's.
fn refuses(audit: &Audit, caller: &str, code: Code) -> bool {
    let request = RequestId::fresh();
    audit.limited(&Event::Refused { request, target: "acme/dc1/db", agent: None, caller, source: None, code, detail: "none" })
}

#[test]
fn d8_a_caller_who_is_refused_without_end_has_few_rows_and_hides_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    assert_eq!(
        (0..5000).filter(|_| refuses(&audit, "token nothing", Code::NotGranted)).count(),
        60,
        "as many log lines as rows"
    );
    assert!(refuses(&audit, "token other", Code::NoAgent));
    audit.record(&Event::Stopped { role: "gateway", instance: InstanceId::fresh(), code: None }).unwrap();
    let rows = all_rows(dir.path());
    assert_eq!(rows.len(), 63);
    assert_eq!((&rows[60]["event"], &rows[60]["caller"]), (&"refused".into(), &"token other".into()));
    assert_eq!(rows[61]["most"], serde_json::json!([{"caller": "token nothing", "count": 4940}]));
}

#[test]
fn d8_while_the_audit_is_half_full_refused_callers_leave_it_to_streams() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 8192, OnFull::Refuse)).unwrap();
    while total(dir.path()) <= 4096 {
        audit.record(&reloaded("targets")).unwrap();
    }
    let before = total(dir.path());
    assert!(refuses(&audit, "token nothing", Code::NotGranted), "the log tells of it");
    assert_eq!(total(dir.path()), before);
    audit.record(&reloaded("still written")).unwrap();
}

#[test]
fn f28_a_refused_caller_finds_out_that_there_is_room_again_however_often_it_has_asked() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8192, OnFull::Refuse);
    let audit = Audit::open(&settings).unwrap();
    while audit.record(&reloaded("targets")).is_ok() {}
    while refuses(&audit, "token ci", Code::AuditFull) {}
    fs::remove_dir_all(&settings.dir).unwrap();
    fs::create_dir(&settings.dir).unwrap();
    // The path is looked at ten times a second.
    let before = Instant::now();
    while audit.ready().is_err() {
        refuses(&audit, "token ci", Code::AuditFull);
        assert!(before.elapsed() < Duration::from_secs(30), "it never finds out");
    }
    assert_eq!(all_rows(dir.path())[0]["event"], "refused");
}

#[test]
fn an_observer_sees_rows_as_they_are_written_even_if_none_is_kept() {
    let (audit, mut seen) = Audit::discard().observed();
    audit.record(&reloaded("targets")).unwrap();
    let row: Value = serde_json::from_str(&seen.try_recv().unwrap()).unwrap();
    assert_eq!(row["what"], "targets");
    drop(seen);
    audit.record(&reloaded("targets")).unwrap();
}

#[test]
fn rows_of_many_threads_are_whole_and_in_the_order_of_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 64 << 20, OnFull::Refuse)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| audit.record(&reloaded("targets")).unwrap()));
        }
    });
    let times: Vec<_> = all_rows(dir.path()).iter().map(|row| row["time"].as_str().unwrap().to_owned()).collect();
    assert_eq!(times.len(), 1000);
    assert!(times.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn r1_rows_of_requests_are_written_together_soon_in_their_order_and_before_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let paths =
        || -> Vec<_> { all_rows(dir.path()).iter().map(|row| row["path"].as_str().unwrap_or("-").to_owned()).collect() };
    audit.record(&request_row("/1")).unwrap();
    assert_eq!(paths(), ["/1"], "one that comes alone waits for nothing");
    audit.record(&request_row("/2")).unwrap();
    audit.record(&request_row("/3")).unwrap();
    assert_eq!(paths(), ["/1"]);
    audit.record(&reloaded("targets")).unwrap();
    assert_eq!(paths(), ["/1", "/2", "/3", "-"]);

    audit.record(&request_row("/4")).unwrap();
    let (tasks, runs) = (crate::base::tasks::Tasks::new(), audit.clone());
    let task = tasks.spawn(async move { runs.release_held().await });
    while paths().len() < 5 {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    tasks.abort().await;
    drop(task);

    let long = "/x".repeat(200);
    for _ in 0..200 {
        audit.record(&request_row(&long)).unwrap();
    }
    assert!(paths().len() > 100, "no more than 64 KiB wait");
    drop(audit);
    assert_eq!(paths().len(), 205, "nor is one lost when all ends");
}

#[test]
fn f28_rows_of_requests_that_find_no_room_are_counted_and_others_refuse_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8192, OnFull::Refuse);
    let audit = Audit::open(&settings).unwrap();
    audit.record(&request_row("/first")).unwrap();
    audit.record(&request_row("/held")).unwrap();
    while audit.record(&reloaded("targets")).is_ok() {}
    let _ = audit.record(&request_row("/full"));
    assert_eq!(audit.ready().unwrap_err().code, Code::AuditFull);
    assert!(audit.record(&reloaded("targets")).is_err());
    fs::remove_dir_all(&settings.dir).unwrap();
    fs::create_dir(&settings.dir).unwrap();
    let before = Instant::now();
    while audit.record(&reloaded("again")).is_err() {
        assert!(before.elapsed() < Duration::from_secs(30), "it never finds out");
    }
    let rows = all_rows(dir.path());
    assert!(rows.iter().any(|row| row["what"] == "again") && !rows.iter().any(|row| row["path"] == "/full"), "{rows:?}");
}

#[test]
fn d8_the_rows_of_every_minute_leave_room_for_those_that_tell_something() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let (session, agent) = (SessionId::fresh(), "acme/dc1/a1".parse().unwrap());
    let until = OffsetDateTime::now_utc();
    for _ in 0..10_000 {
        audit.record(&Event::Reauthorised { session, agent: &agent, serial: "0a", until, policy: None }).unwrap();
    }
    assert!(total(dir.path()) < (1 << 19) + 1024, "{}", total(dir.path()));
    audit.record(&reloaded("x")).unwrap();
}

#[test]
fn d8_a_lane_that_breaks_and_goes_on_without_end_has_few_rows_and_hides_no_other_agents() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 1 << 20, OnFull::Refuse)).unwrap();
    let session = SessionId::fresh();
    let told = |agent: &str, times: usize| {
        let agent: AgentId = agent.parse().unwrap();
        let broken = Event::LaneBroken { session, agent: &agent, lane: 0, code: Code::LinkClosed, detail: "reset" };
        let (peer, serial) = ("192.0.2.1:1", "0a");
        let resumed = Event::LaneResumed { session, agent: &agent, lane: 0, generation: 1, serial, peer, paused_ms: 1 };
        (0..times).map(|_| usize::from(audit.limited(&broken)) + usize::from(audit.limited(&resumed))).sum::<usize>()
    };
    assert_eq!(told("acme/dc1/a1", 5000), 30, "as many log lines as rows");
    assert_eq!(told("acme/dc1/a2", 1), 2);
    audit.record(&Event::Stopped { role: "gateway", instance: InstanceId::fresh(), code: None }).unwrap();
    let rows = all_rows(dir.path());
    assert_eq!(rows.len(), 34);
    assert_eq!(rows[32]["most"], serde_json::json!([{"agent": "acme/dc1/a1", "count": 9970}]));
}

#[test]
fn d8_while_the_audit_is_half_full_broken_lanes_leave_it_to_streams() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&settings(dir.path(), 8192, OnFull::Refuse)).unwrap();
    while total(dir.path()) <= 4096 {
        audit.record(&reloaded("targets")).unwrap();
    }
    let (session, before) = (SessionId::fresh(), total(dir.path()));
    let agent = "acme/dc1/a1".parse().unwrap();
    let broken = Event::LaneBroken { session, agent: &agent, lane: 0, code: Code::LinkClosed, detail: "reset" };
    assert!(audit.limited(&broken), "the log tells of it");
    assert_eq!(total(dir.path()), before);
}
