//! `underpass gateway`, `token` and `agents`. It refuses to know how a gateway works.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::args::{AgentsCommand, GatewayCommand, Scoped, TokenCommand};
use super::{Outcome, admin, lights, print};
use crate::app::gateway::{self, Initialized, admin_socket};
use crate::base::code::{Exit, Failure};
use crate::config;
use crate::control::agents::{AgentInfo, RevokedAgent, duplicates};
use crate::control::api::{
    AGENTS, AgentsAnswer, DISABLE, ENABLE, GatewayStatus, STATUS, ScopeRequest, TOKENS, TokenAnswer, TokenRequest, revoke_path,
};
use crate::control::disable::{DisabledScope, Standing};

pub(super) async fn run(command: GatewayCommand, json: bool) -> Outcome {
    match command {
        GatewayCommand::Init { places, endpoint, trust_domain, id, listen } => {
            let listen = listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, endpoint.0.port)));
            initialized(&gateway::init(&places.into(), &id, &endpoint, listen, trust_domain)?, json);
        }
        GatewayCommand::Run(places) => return gateway::run(&places.into()).await,
        GatewayCommand::Check(places) => {
            let place: crate::app::Place = places.into();
            let config = config::load_gateway(&place.config(gateway::CONFIG))?;
            gateway::check_files(&config, &place.state_dir)?;
            for listen in config.in_clear() {
                print::note(format!("note: the listener {listen} has no `tls`: clients show it their tokens in plain text"));
            }
            if json { print::json(&config) } else { print::line(config::effective(&config).trim_end()) }
        }
        GatewayCommand::Status(place) => {
            let status: GatewayStatus = admin::get(&admin_socket(&place.state_dir()), STATUS).await?;
            if json { print::json(&status) } else { show_status(&status) }
        }
    }
    Ok(Exit::Ok)
}

fn initialized(made: &Initialized, json: bool) {
    if json {
        return print::json(&json!({
            "config": made.config,
            "trust_domain": made.trust_domain.as_str(),
            "pin": made.pin.to_string(),
            "issuing_not_after": made.issuing_not_after.format(&Rfc3339).unwrap_or_default(),
        }));
    }
    print::line(format!(
        "made the private PKI of {} (its issuing CA ends on {})",
        made.trust_domain,
        print::time(made.issuing_not_after)
    ));
    print::line(format!("pin     {}", made.pin));
    print::line(format!("config  {}", made.config.display()));
    print::line("next    underpass gateway run; and keep a copy of pki/root.key offline: running does not need it");
}

fn show_status(status: &GatewayStatus) {
    print::line(format!("gateway      {} {} (instance {})", status.gateway, status.version, status.instance));
    print::line(format!("trust domain {}", status.trust_domain));
    print::line(format!("pin          {}", status.pin));
    let endpoints: Vec<_> = status.endpoints.iter().map(ToString::to_string).collect();
    print::line(format!("endpoints    {}", endpoints.join(" ")));
    print::line(format!("issuing CA   ends {}", print::time(status.issuing_not_after)));
    print::line(format!("sessions     {}", status.sessions.len()));
    for (agent, instances) in duplicates(&status.sessions) {
        print::line(format!("duplicate    {agent} x{instances} (`underpass explain duplicate_identity`)"));
    }
}

pub(super) async fn token(command: TokenCommand, json: bool) -> Outcome {
    let TokenCommand::Create { place, tenant, group, ttl } = command;
    let request = TokenRequest { tenant, group, ttl_seconds: Some(ttl.as_secs()) };
    let made: TokenAnswer = admin::post(&admin_socket(&place.state_dir()), TOKENS, &request).await?;
    if json {
        print::json(&made);
        return Ok(Exit::Ok);
    }
    for created in &made.created {
        print::note(format!("created {created}"));
    }
    print::note(format!("token {} can be used once, until {}", made.id, print::time(made.expires)));
    print::line(made.token.expose());
    Ok(Exit::Ok)
}

pub(super) async fn agents(command: AgentsCommand, json: bool) -> Outcome {
    match command {
        AgentsCommand::List(place) => {
            let answer: AgentsAnswer = admin::get(&admin_socket(&place.state_dir()), AGENTS).await?;
            if json { print::json(&answer) } else { list(&answer.agents) }
        }
        AgentsCommand::Revoke { place, agent } => {
            let path = revoke_path(&agent);
            let revoked: RevokedAgent = admin::post(&admin_socket(&place.state_dir()), &path, &json!({})).await?;
            if json { print::json(&revoked) } else { show_revoked(&revoked) }
        }
        AgentsCommand::Disable(scoped) => set_standing(DISABLE, scoped, json).await?,
        AgentsCommand::Enable(scoped) => set_standing(ENABLE, scoped, json).await?,
    }
    Ok(Exit::Ok)
}

fn list(agents: &[AgentInfo]) {
    if agents.is_empty() {
        return print::note("no agent is enrolled; `underpass token create` makes a token for one");
    }
    let rows: Vec<_> = agents.iter().map(row).collect();
    let heading = ["AGENT", "TUNNEL", "SERVING", "TARGETS", "LANES", "STREAMS", "FROM", "VERSION", "CERTIFICATE ENDS", "NOTE"];
    print::table(heading, &rows);
}

fn row(info: &AgentInfo) -> [String; 10] {
    let duplicates = duplicates(&info.sessions).get(&info.agent).copied();
    let note = match (info.revoked, info.disabled.as_slice(), duplicates) {
        (Some(_), ..) => "revoked".to_owned(),
        (None, [_, ..], _) => format!("disabled ({})", each_since(&info.disabled)),
        (None, [], Some(several)) => format!("DUPLICATE x{several}"),
        (None, [], None) => String::new(),
    };
    let lanes: usize = info.sessions.iter().map(|session| session.lanes).sum();
    let streams: usize = info.sessions.iter().map(|session| session.streams).sum();
    let version = info.sessions.first().map(|session| session.version.clone());
    // Of clones all, since each is to be found; of one process the first.
    let shown = if duplicates.is_some() { info.sessions.len() } else { 1 };
    let from: Vec<_> = info.sessions.iter().take(shown).map(|session| session.peer.as_str()).collect();
    [
        info.agent.to_string(),
        lights::tunnel(info),
        lights::serving(&info.sessions),
        lights::targets(&info.sessions),
        lanes.to_string(),
        streams.to_string(),
        print::or_dash(Some(from.join(" ")).filter(|from| !from.is_empty())),
        print::or_dash(version),
        print::time(info.not_after),
        note,
    ]
}

async fn set_standing(path: &str, scoped: Scoped, json: bool) -> Result<(), Failure> {
    let Scoped { place, scope } = scoped;
    let standing: Standing = admin::post(&admin_socket(&place.state_dir()), path, &ScopeRequest { scope }).await?;
    if json {
        print::json(&standing);
        return Ok(());
    }
    print::line(told(&standing));
    if !standing.audited {
        print::note("warning: the audit is full and does not have it");
    }
    Ok(())
}

/// How it is now, and what keeps the agents out beside that.
fn told(standing: &Standing) -> String {
    let Standing { scope, disabled, within, changed, .. } = standing;
    let own = match (disabled, changed) {
        (Some(since), _) => format!("disabled {scope} since {}: not let in until `enable`", print::time(*since)),
        (None, true) => format!("enabled {scope}"),
        (None, false) => format!("{scope} was not disabled"),
    };
    match (within.as_slice(), disabled) {
        ([], _) => own,
        (_, Some(_)) => format!("{own}; disabled as well: {}", each_since(within)),
        (_, None) => format!("{own}; not let in, still disabled: {}", each_since(within)),
    }
}

/// Such as `acme since 2026-01-31 12:00 UTC, acme/dc1 since 2026-02-01 08:30 UTC`.
fn each_since(disabled: &[DisabledScope]) -> String {
    let each = disabled.iter().map(|DisabledScope { scope, since }| format!("{scope} since {}", print::time(*since)));
    each.collect::<Vec<_>>().join(", ")
}

fn show_revoked(revoked: &RevokedAgent) {
    print::line(format!("revoked {}: {} certificates count no more", revoked.agent, revoked.serials.len()));
    if !revoked.audited {
        print::note("warning: the audit is full and does not have it");
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::base::light::Tunnel;
    use crate::pki::identity::Serial;

    fn disabled(scopes: &[&str]) -> Vec<DisabledScope> {
        let since = datetime!(2026-01-31 12:00 UTC);
        scopes.iter().map(|scope| DisabledScope { scope: scope.parse().unwrap(), since }).collect()
    }

    #[test]
    fn an_agent_without_a_session_has_a_dash_where_a_session_would_say_something() {
        let info = AgentInfo {
            agent: "acme/dc1/agent-1".parse().unwrap(),
            serial: Serial::random().unwrap(),
            enrolled: datetime!(2026-01-01 00:00 UTC),
            not_after: datetime!(2026-01-31 08:05 UTC),
            revoked: None,
            disabled: disabled(&["acme", "acme/dc1"]),
            tunnel: Tunnel::Down,
            sessions: Vec::new(),
        };
        let note = "disabled (acme since 2026-01-31 12:00 UTC, acme/dc1 since 2026-01-31 12:00 UTC)";
        assert_eq!(row(&info), ["acme/dc1/agent-1", "down", "-", "-", "0", "0", "-", "-", "2026-01-31 08:05 UTC", note]);
    }

    #[test]
    fn enabling_says_what_has_changed_and_what_keeps_the_agents_out_still() {
        let standing = |within: &[&str], changed| Standing {
            scope: "acme/dc1/a".parse().unwrap(),
            disabled: None,
            within: disabled(within),
            changed,
            audited: true,
        };
        assert_eq!(told(&standing(&[], true)), "enabled acme/dc1/a");
        assert_eq!(told(&standing(&[], false)), "acme/dc1/a was not disabled");
        let still = "enabled acme/dc1/a; not let in, still disabled: acme/dc1 since 2026-01-31 12:00 UTC";
        assert_eq!(told(&standing(&["acme/dc1"], true)), still);
        let since = Some(datetime!(2026-01-31 12:00 UTC));
        let own = "disabled acme/dc1/a since 2026-01-31 12:00 UTC: not let in until `enable`";
        assert_eq!(told(&Standing { disabled: since, ..standing(&[], true) }), own);
        let both = format!("{own}; disabled as well: acme since 2026-01-31 12:00 UTC");
        assert_eq!(told(&Standing { disabled: since, ..standing(&["acme"], false) }), both);
    }
}
