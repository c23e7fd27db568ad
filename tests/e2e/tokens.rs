//! Client tokens as an operator handles them: made, listed and revoked by the command line, over crashes, and never on record
//! in clear. Refuses to know how clients show them.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use underpass::wire::token::ClientToken;

use crate::harness::process::{Finished, Program};
use crate::harness::site::Gateway;
use crate::secrets::{contains, files, visible};

async fn gateway() -> Gateway {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    gateway
}

async fn create(gateway: &Gateway, more: &[&str]) -> Finished {
    gateway.admin(&[&["client-token", "create"], more].concat()).run().await
}

async fn list(gateway: &Gateway) -> Vec<Value> {
    let text = gateway.admin(&["client-token", "list", "--json"]).run().await.ok();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["client_tokens"].as_array().unwrap().clone()
}

async fn states(gateway: &Gateway) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list(gateway).await.iter().map(|info| (text(&info["name"]), text(&info["state"]))).collect()
}

/// The words of each line.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn a_client_token_is_made_listed_and_revoked() {
    let gateway = gateway().await;
    gateway.token("acme", "dc1").await;
    let grants = ["--grant", "acme/dc1/*", "--grant", "acme/dc2/db"];
    let wanted = [&grants[..], &["--name", "ci", "--expires", "30d", "--max-streams", "5", "--rate", "10MiB"]].concat();
    let made = create(&gateway, &wanted).await.exits(0);
    let token = ClientToken::parse(&made.stdout).expect("standard output is the token alone");
    assert_eq!(token.endpoints, [gateway.endpoint().parse().unwrap()]);
    assert_eq!(made.stdout.lines().count(), 1);
    for said in [
        "client token ci (",
        "reaches acme/dc1/* acme/dc2/db, until ",
        "5 streams, 10MiB/s",
        "knows no group acme/dc2",
        "client-token revoke ci",
    ] {
        assert!(made.stderr.contains(said), "{said}: {}", made.stderr);
    }
    assert!(!made.stderr.contains("warning"), "{}", made.stderr);
    create(&gateway, &["--grant", "*/*/*", "--name", "everything", "--expires", "never"]).await.ok();

    let listed = list(&gateway).await;
    let text = gateway.admin(&["client-token", "list"]).run().await.ok();
    let rows = table(&text);
    assert_eq!(rows[0], ["NAME", "ID", "GRANTS", "LIMITS", "CREATED", "EXPIRES", "STATE"]);
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(rows[1][..7], ["ci", id, "acme/dc1/*", "acme/dc2/db", "5", "streams,", "10MiB/s"]);
    assert_eq!((rows[1].last(), rows[2][7..].join(" ")), (Some(&"active"), "never active".to_owned()));
    assert!(made.stderr.contains(id));

    let taken = create(&gateway, &["--grant", "acme/dc1/db", "--name", "ci"]).await.exits(64);
    assert!(taken.stderr.contains("client_token_exists: `ci`"), "{}", taken.stderr);
    let revoked = gateway.admin(&["client-token", "revoke", id]).run().await.ok();
    assert!(revoked.starts_with(&format!("revoked ci ({id})")), "{revoked}");
    gateway.admin(&["client-token", "revoke", "ci"]).run().await.ok();
    let unknown = gateway.admin(&["client-token", "revoke", "nobody"]).run().await.exits(64);
    assert!(unknown.stderr.contains("client_token_unknown"), "{}", unknown.stderr);
    create(&gateway, &["--grant", "acme/dc1/db", "--name", "ci"]).await.ok();
    assert_eq!(states(&gateway).await, [("ci", "active"), ("everything", "active")].map(|(n, s)| (n.into(), s.into())));
}

#[tokio::test]
async fn what_is_mistyped_is_refused_before_anything_is_asked_of_the_gateway() {
    let gateway = Gateway::init().await;
    for (arguments, says) in [
        (&["--name", "ci"][..], "--grant"),
        (&["--grant", "acme/dc1"], "is no grant"),
        (&["--grant", "acme/dc1/*", "--name", "CI"], "is not a name"),
        (&["--grant", "acme/dc1/*", "--expires", "soon"], "a duration, such as 30d, or never"),
        (&["--grant", "acme/dc1/*", "--rate", "4GiB"], "less than 4GiB"),
        (&["--grant", "acme/dc1/*", "--rate", "10"], "is not a size"),
    ] {
        let refused = create(&gateway, arguments).await.exits(64);
        assert!(refused.stderr.contains(says), "{arguments:?}: {}", refused.stderr);
    }
    create(&gateway, &["--grant", "acme/dc1/*"]).await.exits(69);
}

#[tokio::test]
async fn e11_a_token_in_a_file_that_others_can_read_is_warned_of() {
    let gateway = gateway().await;
    let file = gateway.dir().join("ci.token");
    let create = async |umask: &str| {
        let _ = std::fs::remove_file(&file);
        let script = format!(r#"umask {umask}; "$0" client-token create --grant 'acme/dc1/*' > "$FILE""#);
        let shell = Program::new("sh").arg("-c").arg(script).arg(Program::underpass_path());
        shell.env("UNDERPASS_GATEWAY_DIR", gateway.dir()).env("FILE", &file).run().await.exits(0).stderr
    };
    let warned = create("022").await;
    assert!(warned.contains("warning: others can read") && warned.contains("chmod 600"), "{warned}");
    let quiet = create("077").await;
    assert!(!quiet.contains("warning"), "{quiet}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    ClientToken::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
}

#[tokio::test]
async fn client_tokens_and_their_revocations_outlive_a_crash() {
    let mut gateway = gateway().await;
    for name in ["kept", "gone"] {
        create(&gateway, &["--grant", "acme/dc1/*", "--name", name]).await.ok();
    }
    gateway.admin(&["client-token", "revoke", "gone"]).run().await.ok();
    gateway.process().kill();
    let before = gateway.audit();
    let last = before.last().unwrap();
    assert_eq!((&last["event"], &last["name"]), (&"client_token_revoked".into(), &"gone".into()), "it was on record first");
    gateway.start().await;
    assert_eq!(states(&gateway).await, [("gone", "revoked"), ("kept", "active")].map(|(n, s)| (n.into(), s.into())));
}

#[tokio::test]
async fn i1_a_client_tokens_text_is_nowhere_but_on_standard_output() {
    let mut gateway = gateway().await;
    let made = create(&gateway, &["--grant", "acme/dc1/*", "--name", "ci"]).await.exits(0);
    let (text, id) = (made.stdout.trim(), list(&gateway).await[0]["id"].as_str().unwrap().to_owned());
    let secret = ClientToken::parse(text).unwrap().secret.expose().to_vec();
    let refused = create(&gateway, &["--grant", "acme/dc1/*", "--name", "ci"]).await.exits(64);
    let revoked = gateway.admin(&["client-token", "revoke", "ci", "--json"]).run().await;

    let mut seen = visible(gateway.process());
    for (what, output) in [("create's notes", made.stderr.clone()), ("a refusal", refused.stderr), ("revoke", revoked.ok())] {
        seen.push((what.to_owned(), output.into_bytes()));
    }
    seen.push(("metrics".to_owned(), gateway.metrics().await.into_bytes()));
    seen.extend(
        files(&gateway.dir()).into_iter().map(|file| (file.display().to_string(), std::fs::read(&file).unwrap_or_default())),
    );
    assert!(seen.iter().any(|(place, bytes)| place.ends_with("audit.jsonl") && contains(bytes, id.as_bytes())));
    assert!(seen.iter().any(|(place, bytes)| place.contains("state.db") && contains(bytes, id.as_bytes())));
    // The end of the text alone: its beginning holds the endpoints and the pin, which are public.
    let forms = [
        secret.clone(),
        URL_SAFE_NO_PAD.encode(&secret).into_bytes()[..42].to_vec(),
        text.as_bytes()[text.len() - 40..].to_vec(),
    ];
    for (place, bytes) in seen {
        for form in &forms {
            assert!(!contains(&bytes, form), "{place} has it");
        }
    }
}
