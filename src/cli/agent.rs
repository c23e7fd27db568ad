//! `underpass agent`. It refuses to know how an agent works.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::args::AgentCommand;
use super::{Outcome, admin, print};
use crate::agent::status::LinkStatus;
use crate::app::agent::{self, AgentStatus, Enrolled, STATUS, admin_socket, credential_files};
use crate::app::explain::{self, Explanation};
use crate::app::{Place, targets};
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::endpoint::HostPort;
use crate::base::files;
use crate::base::id::printable;
use crate::base::light::{Light, Reach, Tunnel};
use crate::base::limits::MAX_TOKEN;
use crate::base::secret::Secret;
use crate::config;
use crate::tunnel::dial::Egress;
use crate::wire::token::EnrollmentToken;

pub(super) async fn run(command: AgentCommand, json: bool) -> Outcome {
    match command {
        AgentCommand::Enroll { places, token_file, name, proxy, proxy_username, proxy_password_file } => {
            let place = places.into();
            let egress = egress(&place, proxy.as_deref(), proxy_username.as_deref(), proxy_password_file.as_deref())?;
            let token = EnrollmentToken::parse(read_token(&token_file)?.expose())?;
            let enrolled = agent::enroll(&place, &token, name.as_ref(), &egress).await?;
            show_enrolled(&enrolled, json);
        }
        AgentCommand::Run(places) => return agent::run(&places.into()).await,
        AgentCommand::Check { places, explain } => {
            let place: Place = places.into();
            let config = config::load_agent(&place.config(agent::CONFIG))?;
            targets::policy(&config)?;
            match credential_files(&place.state_dir).load() {
                Ok(credential) => targets::check_labels(&config, credential.identity())?,
                Err(_) => print::note(format!(
                    "note: no identity in {} yet; `underpass agent enroll` gets one",
                    place.state_dir.display()
                )),
            }
            if let Some(request) = explain {
                let explanation = explain::explain(&config, &request)?;
                show_explanation(&request, &explanation, json);
                return Ok(if explanation.allowed { Exit::Ok } else { Exit::Denied });
            }
            if json { print::json(&config) } else { print::line(config::effective(&config).trim_end()) }
        }
        AgentCommand::Status(place) => {
            let status: AgentStatus = admin::get(&admin_socket(&place.state_dir()), STATUS).await?;
            if json {
                print::json(&status)
            } else {
                show_status(&status)
            }
            let connected = status.sessions.iter().any(|session| session.tunnel == Tunnel::Connected);
            return Ok(if connected { Exit::Ok } else { Exit::Unavailable });
        }
    }
    Ok(Exit::Ok)
}

/// From the arguments, else from a configuration that is there already, else from the environment.
fn egress(place: &Place, proxy: Option<&str>, user: Option<&str>, password: Option<&Path>) -> Result<Egress, Failure> {
    if let Some(proxy) = proxy {
        let proxy = proxy_url(proxy)?;
        let password = password.map(files::read_private).transpose()?;
        let password = password.map(|bytes| Secret::new(&String::from_utf8_lossy(&bytes)));
        return Ok(Egress::through(&proxy, &[], user.zip(password.as_ref())));
    }
    let config = place.config(agent::CONFIG);
    if config.exists() { agent::egress(&config::load_agent(&config)?) } else { Ok(Egress::from_environment()) }
}

/// Parsed here rather than by the command line's grammar, which would print what it refuses: somebody's password, maybe.
fn proxy_url(text: &str) -> Result<HostPort, Failure> {
    let rest = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let wrong = "--proxy is not http://HOST:PORT; a user and a password have arguments of their own";
    rest.and_then(|rest| rest.parse().ok()).ok_or_else(|| Failure::new(Code::Usage, wrong))
}

fn read_token(path: &Path) -> Result<Secret, Failure> {
    if path.as_os_str().as_encoded_bytes().starts_with(EnrollmentToken::PREFIX.as_bytes()) {
        // Quoting it would put it into one more place.
        let detail = "--token-file takes a file or -, not the token: it is in the shell's history now, so make a fresh one";
        return Err(Failure::new(Code::Usage, detail));
    }
    let limit = MAX_TOKEN as u64 + 1;
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.or_fail(Code::ConfigUnreadable, format_args!("the token file {}", path.display()))?;
    Ok(Secret::new(&text))
}

fn show_enrolled(enrolled: &Enrolled, json: bool) {
    if json {
        return print::json(&json!({
            "agent": enrolled.agent.to_string(),
            "not_after": enrolled.not_after.format(&Rfc3339).unwrap_or_default(),
            "config": enrolled.config,
            "config_written": enrolled.config_written,
        }));
    }
    print::line(format!("enrolled as {} until {}", enrolled.agent, print::time(enrolled.not_after)));
    let config = enrolled.config.display();
    if enrolled.config_written {
        print::line(format!("wrote {config}: add the targets that the gateway may reach, then `underpass agent run`"));
    } else {
        print::line(format!("kept {config} as it is"));
    }
}

fn show_explanation(request: &str, explanation: &Explanation, json: bool) {
    if json {
        return print::json(explanation);
    }
    let verdict = if explanation.allowed { "allow" } else { "deny" };
    print::line(format!("{verdict:<7}{}", printable(request, 512)));
    print::line(format!("{:<7}{}", "rule", explanation.rule));
    if let (Some(code), Some(why)) = (explanation.code, &explanation.why) {
        print::line(format!("{:<7}{code}: {why}", "why"));
    }
    if let Some(note) = &explanation.note {
        print::line(format!("{:<7}{note}", "note"));
    }
    if !explanation.left_out.is_empty() {
        print::line(format!("{:<7}{} (taken out of what is found)", "left", explanation.left_out.join(", ")));
    }
}

fn show_status(status: &AgentStatus) {
    print::line(format!("agent        {} {}", status.agent, status.version));
    let warning = status.certificate.warning.as_ref().map(|code| format!("  ({code})")).unwrap_or_default();
    let ends = &status.certificate.not_after;
    let ends = OffsetDateTime::parse(ends, &Rfc3339).map_or_else(|_| ends.clone(), print::time);
    print::line(format!("certificate  ends {ends}{warning}"));
    print::line(format!("streams      {}", status.streams));
    print::line("");
    let rows: Vec<_> = status.sessions.iter().map(link).collect();
    print::table(["GATEWAY", "TUNNEL", "LANES", "SINCE", "LAST FRAME", "ROUND TRIP", "NEXT TRY", "PROXY", "LAST ERROR"], &rows);
    print::line("");
    let rows: Vec<_> = status
        .targets
        .iter()
        .map(|target| {
            let streams = format!("{} of {}", target.streams, target.max_streams);
            [target.name.clone(), target.kind.clone(), target.address.clone(), streams, last_try(&target.light)]
        })
        .collect();
    print::table(["TARGET", "KIND", "ADDRESS", "STREAMS", "LAST TRY"], &rows);
}

fn next_try(link: &LinkStatus) -> String {
    match (link.tunnel, link.next_attempt_ms) {
        (Tunnel::Down | Tunnel::Resuming, Some(millis)) => print::duration(Duration::from_millis(millis)),
        (Tunnel::Down | Tunnel::Resuming, None) => "now".to_owned(),
        _ => "-".to_owned(),
    }
}

/// Such as `failing (target_refused) since 2026-01-31 12:00 UTC`.
fn last_try(light: &Light<Reach>) -> String {
    let code = light.code.map(|code| format!(" ({code})")).unwrap_or_default();
    let since = light.since.filter(|_| light.state == Reach::Failing);
    let since = since.map(|since| format!(" since {}", print::time(since))).unwrap_or_default();
    format!("{}{code}{since}", light.state)
}

fn link(link: &LinkStatus) -> [String; 9] {
    let shown = |duration: Option<Duration>| print::or_dash(duration.map(print::duration));
    let error = link.last_error.as_ref().map(|error| format!("{}: {}", error.code, error.detail));
    [
        link.endpoint.clone(),
        link.tunnel.to_string(),
        print::or_dash(link.lanes.map(|lanes| lanes.to_string())),
        shown(link.connected_s.map(Duration::from_secs)),
        shown(link.last_frame_age_ms.map(Duration::from_millis)),
        shown(link.round_trip_us.map(Duration::from_micros)),
        next_try(link),
        print::or_dash(link.proxy.clone()),
        print::or_dash(error),
    ]
}
