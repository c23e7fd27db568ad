//! `underpass connect`: what is told beside the streams. It refuses to know how they are carried.

use std::net::SocketAddr;

use serde_json::json;

use super::args::ConnectArgs;
use super::{Outcome, print};
use crate::app::connect::{self, Request, Shown};
use crate::base::code::{Code, Failure};
use crate::base::id::TargetId;
use crate::client::Event;

pub(super) async fn run(args: ConnectArgs, json: bool) -> Outcome {
    let ConnectArgs { target, stdio, listen, allow_from, token_file, endpoint: endpoints } = args;
    let name = target.clone();
    let show = move |shown: Shown<'_>| if json { object(&shown, &name) } else { text(&shown, &name) };
    let request = Request { target, token_file, endpoints };
    match listen {
        Some(at) => connect::listen(request, at, allow_from, show).await,
        None if stdio => Ok(connect::stdio(request, show).await.unwrap_or_else(|failure| {
            // Standard output is the stream's.
            print::failure_beside(&failure, json);
            failure.code.exit()
        })),
        None => {
            let detail = "say how: `--stdio` for a program that starts this one (ssh's ProxyCommand), or `--listen 127.0.0.1:15432` for \
                          programs that connect";
            Err(Failure::new(Code::Usage, detail))
        }
    }
}

fn text(shown: &Shown<'_>, target: &TargetId) {
    match shown {
        Shown::Listening(at) => print::line(format!("listening on {at} for {target}")),
        Shown::Event(Event::Waiting(failure)) => print::note(format!("waiting for the gateway: {failure}")),
        Shown::Event(Event::Failed { client, failure }) => {
            print::note(format!("{client}: {failure}. {}", failure.code.remedy()));
        }
        Shown::Draining => print::note("ending: open streams may finish; another signal cuts them"),
    }
}

fn object(shown: &Shown<'_>, target: &TargetId) {
    match shown {
        Shown::Listening(at) => print::json(&json!({ "listening": at, "target": target })),
        Shown::Event(Event::Waiting(failure)) => print::note(event("waiting", None, failure)),
        Shown::Event(Event::Failed { client, failure }) => print::note(event("failed", Some(*client), failure)),
        Shown::Draining => print::note(json!({ "event": "draining" })),
    }
}

fn event(name: &str, client: Option<SocketAddr>, failure: &Failure) -> serde_json::Value {
    let mut object = print::error(failure);
    object["event"] = name.into();
    if let Some(client) = client {
        object["client"] = client.to_string().into();
    }
    object
}
