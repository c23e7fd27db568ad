//! `underpass client-token`. It refuses to know how tokens are made and kept.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::args::{ClientTokenCommand, Expiry};
use super::{Outcome, admin, print};
use crate::app::gateway::admin_socket;
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::grant::Grants;
use crate::base::id::Name;
use crate::base::size;
use crate::control::api::clients::{
    CLIENT_TOKENS, ClientTokenAnswer, ClientTokenRequest, ClientTokensAnswer, revoke_client_token_path,
};
use crate::control::clients::{ClientTokenInfo, ClientTokenState, RevokedClientToken};
use crate::wire::token::ClientToken;

/// Grants of one token that a list shows; JSON has them all.
const GRANTS_SHOWN: usize = 3;

pub(super) async fn run(command: ClientTokenCommand, json: bool) -> Outcome {
    match command {
        ClientTokenCommand::Create { place, grants, name, expires, max_streams, rate } => {
            let (ttl_seconds, never_expires) = match expires {
                Expiry::After(ttl) => (Some(ttl.as_secs()), false),
                Expiry::Never => (None, true),
            };
            let grants = Grants::new(grants).or_fail(Code::Usage, "--grant")?;
            let request = ClientTokenRequest { name, grants, max_streams, rate, ttl_seconds, never_expires };
            let made: ClientTokenAnswer = admin::post(&admin_socket(&place.state_dir()), CLIENT_TOKENS, &request).await?;
            if json { print::json(&made) } else { show_made(&made) }
        }
        ClientTokenCommand::List(place) => {
            let answer: ClientTokensAnswer = admin::get(&admin_socket(&place.state_dir()), CLIENT_TOKENS).await?;
            if json { print::json(&answer) } else { list(&answer.client_tokens) }
        }
        ClientTokenCommand::Revoke { place, token } => {
            if token.starts_with(ClientToken::PREFIX) {
                let why = "that is a token itself; give its name or its id, which `client-token list` shows";
                return Err(Failure::new(Code::Usage, why));
            }
            let path = revoke_client_token_path(&Name::parse(&token).or_fail(Code::Usage, "NAME")?);
            let revoked: RevokedClientToken = admin::post(&admin_socket(&place.state_dir()), &path, &json!({})).await?;
            if json { print::json(&revoked) } else { show_revoked(&revoked) }
        }
    }
    Ok(Exit::Ok)
}

fn show_made(made: &ClientTokenAnswer) {
    let ClientTokenInfo { name, id, grants, expires, .. } = &made.info;
    let until = expires.map_or_else(|| "it never expires".to_owned(), |expires| format!("until {}", print::time(expires)));
    print::note(format!("client token {name} ({id}) reaches {grants}, {until}"));
    if let Some(limits) = limits(&made.info) {
        print::note(format!("it may use {limits}"));
    }
    for part in &made.unknown {
        print::note(format!("note: this gateway knows no {part}; perhaps a grant is mistyped"));
    }
    print::note(format!("it is shown this once; to end it: underpass client-token revoke {name}"));
    if is_readable_by_others() {
        print::note(
            "warning: others can read the file that it was written to: `chmod 600` it, and `umask 077` before the next",
        );
    }
    print::line(made.token.expose());
}

/// Whether standard output is a file with a mode that lets others in.
fn is_readable_by_others() -> bool {
    let file = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0)
}

fn list(tokens: &[ClientTokenInfo]) {
    if tokens.is_empty() {
        return print::note("there is no client token; `underpass client-token create` makes one");
    }
    let rows: Vec<_> = tokens.iter().map(row).collect();
    print::table(["NAME", "ID", "GRANTS", "LIMITS", "CREATED", "EXPIRES", "STATE"], &rows);
}

fn row(info: &ClientTokenInfo) -> [String; 7] {
    let state = match info.state {
        ClientTokenState::Active => "active",
        ClientTokenState::Expired => "expired",
        ClientTokenState::Revoked => "revoked",
    };
    [
        info.name.to_string(),
        info.id.clone(),
        grants(&info.grants),
        print::or_dash(limits(info)),
        print::time(info.created),
        info.expires.map_or_else(|| "never".to_owned(), print::time),
        state.to_owned(),
    ]
}

fn grants(grants: &Grants) -> String {
    let mut shown: Vec<_> = grants.iter().take(GRANTS_SHOWN).map(ToString::to_string).collect();
    let more = grants.iter().count() - shown.len();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(" ")
}

fn limits(info: &ClientTokenInfo) -> Option<String> {
    let streams = info.max_streams.map(|streams| format!("{streams} streams"));
    let rate = info.rate.map(|rate| format!("{}/s", size::show(&u64::from(rate.get()))));
    let limits: Vec<_> = [streams, rate].into_iter().flatten().collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}

fn show_revoked(revoked: &RevokedClientToken) {
    let RevokedClientToken { name, id, audited } = revoked;
    print::line(format!("revoked {name} ({id}): its streams are cut, and nobody logs in with it any more"));
    if !audited {
        print::note("warning: the audit is full and does not have it");
    }
}
