//! Clocks that are wrong, jump, or tell another zone's time. Refuses to know certificates beyond their dates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration as Span, OffsetDateTime};

use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, Scratch, always, eventually};

/// Days by which a clock is wrong.
const WRONG: [i64; 2] = [400, -2];

/// What makes a program's wall clock be something else; the monotonic one goes on as it is.
fn clock(how: (&str, &str)) -> Vec<(String, String)> {
    let library = library();
    let library = library.display().to_string();
    [("LD_PRELOAD", library.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_NO_CACHE", "1"), how]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn wrong_by(days: i64) -> Vec<(String, String)> {
    clock(("FAKETIME", &format!("{days:+}d")))
}

/// A clock that is so far off as a file says, at any moment.
fn adjustable(file: &Path) -> Vec<(String, String)> {
    clock(("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()))
}

fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.expect("libfaketime is installed")
}

/// Whether a text has exactly two times, and one of them is on the day that a wrong clock shows.
fn tells_both_times(detail: &str, days: i64) -> bool {
    let word = |word: &&str| word.ends_with('Z') && OffsetDateTime::parse(word, &Rfc3339).is_ok();
    let times: Vec<_> = detail.split([' ', ';', ',', '\n']).filter(word).collect();
    let wrong = OffsetDateTime::now_utc() + Span::days(days);
    // A midnight may have passed meanwhile.
    let days = [wrong, wrong - Span::hours(1)].map(|time| time.date().to_string());
    times.len() == 2 && times.iter().any(|time| days.iter().any(|day| time.starts_with(day.as_str())))
}

#[tokio::test]
async fn f21_an_agent_whose_clock_is_wrong_says_so_with_both_times() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let mut late = Agent::blank(&gateway, "a2");
    let token = gateway.token("acme", "dc1").await;
    for days in WRONG {
        agent.set_env(&wrong_by(days));
        agent.launch();
        let detail = agent.fails_with("certificate_expired").await;
        assert!(tells_both_times(&detail, days), "{detail}");
        late.set_env(&wrong_by(days));
        let refused = late.enrollment(&token).run().await.exits(77);
        assert!(refused.stderr.contains("certificate_expired"), "{}", refused.stderr);
        assert!(tells_both_times(refused.stderr.trim(), days), "{}", refused.stderr);
    }
    // The right time is all that they lack, and the token is as good as new.
    late.set_env(&[]);
    late.enrollment(&token).run().await.ok();
    agent.set_env(&[]);
    agent.start().await;
}

#[tokio::test]
async fn f21_a_gateway_whose_clock_was_wrong_serves_again_once_it_is_right() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    for days in WRONG {
        gateway.process().kill();
        gateway.set_env(&wrong_by(days));
        gateway.start().await;
        agent.launch();
        agent.fails_with("certificate_expired").await;
        gateway.process().kill();
        gateway.set_env(&[]);
        gateway.start().await;
        agent.connected().await;
        agent.process().kill();
    }
    // It is the gateway that finds the agent's certificate to begin in the future when its own clock is behind.
    let behind = |row: &Value| row["code"] == "certificate_expired" && tells_both_times(row["detail"].as_str().unwrap(), -2);
    gateway.audited("connect_refused", behind).await;
}

#[tokio::test]
async fn f21_a_clock_that_jumps_costs_no_session_and_no_stream() {
    let (echo, scratch) = (Target::echo().await, Scratch::new());
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let file = scratch.write("offset", "+0s");
    site.agent.process().kill();
    site.gateway.process().kill();
    site.gateway.set_env(&adjustable(&file));
    site.agent.set_env(&adjustable(&file));
    site.gateway.start().await;
    site.agent.start().await;
    let session = site.agent.session().await.unwrap()["session"].clone();
    let mut client = site.client("echo").await;
    for offset in ["+1d", "-1d"] {
        std::fs::write(&file, offset).unwrap();
        // Longer than a dead peer may go unnoticed.
        let going_on = async || echoes(&mut client, b"tick").await.is_ok() && site.agent.is_connected().await;
        always(&format!("clocks at {offset}: the stream goes on"), Duration::from_secs(7), going_on).await;
        assert!(serves(site.at("echo")).await, "clocks at {offset}");
    }
    assert_eq!(site.agent.session().await.unwrap()["session"], session);
    let span = site.gateway.audit().iter().map(time_of).max().unwrap() - OffsetDateTime::now_utc();
    assert!(span > Span::hours(23), "the clock did jump: {span}");
}

#[tokio::test]
async fn f45_logs_and_audits_are_in_utc_whatever_the_zone_and_the_language() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let zone = [("TZ", "CHAST-12:45CHADT-13:45"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "ar_EG.UTF-8")];
    let zone = zone.map(|(name, value)| (name.to_owned(), value.to_owned()));
    site.gateway.process().kill();
    site.gateway.set_env(&zone);
    site.agent.set_env(&zone);
    let before = OffsetDateTime::now_utc() - Span::minutes(1);
    site.gateway.start().await;
    site.agent.start().await;
    assert!(serves(site.at("echo")).await);
    site.agent.audited("closed", |_| true).await;
    let now = before..OffsetDateTime::now_utc() + Span::minutes(1);
    let opened = |rows: Vec<Value>| rows.into_iter().rfind(|row| row["event"] == "opened").unwrap();
    for row in [opened(site.gateway.audit()), opened(site.agent.audit())] {
        assert!(now.contains(&time_of(&row)), "{row}");
        assert!(row["time"].as_str().unwrap().ends_with('Z'), "{row}");
    }
    for said in [site.gateway.running().stderr(), site.agent.running().stderr()] {
        let line: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert!(now.contains(&time_of(&line)), "{line}");
    }
    eventually("the status is understood", SOON, async || site.agent.status().await).await;
}

fn time_of(row: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(row["time"].as_str().unwrap_or_else(|| panic!("{row}")), &Rfc3339).unwrap()
}
