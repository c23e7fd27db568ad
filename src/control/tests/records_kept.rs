//! What is recorded and what must never be: the audit has every decision before its answer, and no file, log or error a secret.

use super::*;
use crate::control::store::{Answer, CommitError, Entry, Key, Kind, Revision, Write};
use crate::gateway::issuer::Issuer;
use crate::wire::token::TokenSecret;

#[tokio::test]
async fn r1_each_decision_is_in_the_audit_before_its_answer() {
    let gateway = Gateway::new().await;
    let last = |event: &str| {
        let row = gateway.audit().pop().unwrap();
        assert_eq!(row["event"], event, "{row}");
        row
    };
    let made = gateway.control.create_token(&group("acme/dc1"), None, &admin()).await.unwrap();
    let row = last("token_created");
    assert_eq!((&row["tenant"], &row["group"], &row["by"]), (&"acme".into(), &"dc1".into(), &"uid 1000".into()));
    assert_eq!(row["token"], made.id);
    let asked = &gateway.audit()[0];
    assert_eq!((&asked["event"], &asked["op"], &asked["on"]), (&"asked".into(), &"token create".into(), &"acme/dc1".into()));

    let token = EnrollmentToken::parse(made.token.expose()).unwrap();
    let enrolled = gateway.try_enroll(ask(&token, Some("web-1"))).await.unwrap();
    let row = last("enrolled");
    assert_eq!((&row["agent"], &row["source"]), (&"acme/dc1/web-1".into(), &"192.0.2.1".into()));
    assert_eq!(row["serial"], identity(&enrolled).serial.to_string());

    gateway.try_enroll(ask(&token, None)).await.unwrap_err();
    let row = last("enroll_refused");
    assert_eq!((&row["code"], &row["source"]), (&"token_refused".into(), &"192.0.2.1".into()));

    gateway.control.revoke(&enrolled.agent, &admin()).await.unwrap();
    let row = last("revoked");
    assert_eq!((&row["agent"], &row["by"]), (&"acme/dc1/web-1".into(), &"uid 1000".into()));
    assert_eq!(row["serials"], serde_json::json!([identity(&enrolled).serial]));

    let made = gateway.client_token("ci").await;
    let row = last("client_token_created");
    assert_eq!((&row["token"], &row["name"], &row["by"]), (&made.info.id.into(), &"ci".into(), &"uid 1000".into()));
    assert_eq!(row["grants"], serde_json::json!(["acme/dc1/*"]));
    assert!(row["expires"].as_str().unwrap().ends_with('Z'), "{row}");

    let done = gateway.control.revoke_client_token(&Name::parse("ci").unwrap(), &admin()).await.unwrap();
    let row = last("client_token_revoked");
    assert_eq!((&row["token"], &row["name"], &row["by"]), (&done.id.into(), &"ci".into(), &"uid 1000".into()));

    gateway.control.create_token(&group("acme/dc1"), Some(Duration::ZERO), &admin()).await.unwrap_err();
    let row = last("failed");
    assert_eq!((&row["op"], &row["code"], &row["by"]), (&"token create".into(), &"usage".into(), &"uid 1000".into()));
}

#[tokio::test]
async fn r1_with_a_full_audit_nothing_is_granted_and_nothing_burnt_but_revoking_works() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let old = gateway.enroll("acme/dc1/old").await;
    let client = gateway.client_token("ci").await;
    let gateway = gateway.restart(1).await;
    assert_eq!(code(gateway.control.create_token(&group("acme/dc9"), None, &admin()).await), Code::AuditFull);
    assert_eq!(gateway.count::<records::Group>().await, 1, "it was not made");
    let key = PrivateKey::generate().unwrap();
    let refused = gateway.try_enroll(ask_with(&token, &key, Some("web-1"))).await.unwrap_err();
    assert_eq!(refused.code, Code::EnrollRefused);
    assert!(refused.detail.contains("audit_full"), "{refused}");
    let done = gateway.control.revoke(&old.agent, &admin()).await.unwrap();
    assert!(!done.audited && gateway.is_revoked(identity(&old).serial), "an attacker is cut off all the same");
    let wish = clients::wish(Some("more"), &["acme/dc1/*"]);
    assert_eq!(code(gateway.control.create_client_token(&wish, &admin()).await), Code::AuditFull);
    assert_eq!(gateway.count::<records::ClientToken>().await, 1, "it was not made");
    let done = gateway.control.revoke_client_token(&Name::parse("ci").unwrap(), &admin()).await.unwrap();
    assert!(!done.audited && gateway.login(&client.token).is_err());

    let gateway = gateway.restart(AUDIT_SIZE).await;
    let enrolled = gateway.try_enroll(ask_with(&token, &key, Some("web-1"))).await.unwrap();
    assert_eq!(gateway.audit().last().unwrap()["agent"], enrolled.agent.to_string());
}

/// Everything below a directory, as bytes.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(everything(&entry));
        } else {
            files.push((entry.clone(), std::fs::read(&entry).unwrap()));
        }
    }
    files
}

#[tokio::test]
async fn i1_a_tokens_secret_is_in_no_file_log_error_or_debug_output() {
    let (_guard, log) = captured_log();
    let gateway = Gateway::new().await;
    let made = gateway.control.create_token(&group("acme/dc1"), None, &admin()).await.unwrap();
    let token = EnrollmentToken::parse(made.token.expose()).unwrap();
    let mut shown = format!("{made:?} {:?} {:?}", ask(&token, None), token);
    let key = PrivateKey::generate().unwrap();
    for ask in [ask_with(&token, &key, None), ask_with(&token, &key, None), ask(&token, None)] {
        shown += &format!("{:?}", gateway.try_enroll(ask).await);
    }
    let half = EnrollAsk { secret: secret(&token.secret.encode().expose()[..42]), ..ask(&token, None) };
    shown += &format!("{:?}", gateway.try_enroll(half).await);
    let other = TokenSecret::generate().unwrap();
    shown += &format!("{:?}", gateway.try_enroll(EnrollAsk { secret: other.encode(), ..ask(&token, None) }).await);

    let forms = [
        token.secret.expose().to_vec(),
        token.secret.encode().expose().as_bytes()[..42].to_vec(),
        text::hex(token.secret.expose()).into_bytes(),
        other.encode().expose().as_bytes().to_vec(),
        made.token.expose().as_bytes()[60..].to_vec(),
    ];
    let mut outputs = everything(gateway.dir.path());
    outputs.push(("log".into(), log.lock().unwrap().clone()));
    outputs.push(("errors and debug output".into(), shown.into_bytes()));
    assert!(outputs.iter().any(|(path, bytes)| path.ends_with("store.sqlite-wal") && contains(bytes, made.id.as_bytes())));
    assert!(outputs.iter().any(|(path, bytes)| path.ends_with("log") && contains(bytes, b"enrollment refused")));
    for (path, bytes) in outputs {
        for form in &forms {
            assert!(!contains(&bytes, form), "{} has it", path.display());
        }
    }
}

#[tokio::test]
async fn i1_a_client_tokens_text_is_in_no_file_log_error_or_debug_output() {
    let (_guard, log) = captured_log();
    let gateway = Gateway::new().await;
    let made = gateway.client_token("ci").await;
    let token = crate::wire::token::ClientToken::parse(made.token.expose()).unwrap();
    let mut shown = format!("{made:?} {token:?} {:?}", gateway.login(&made.token).unwrap());
    shown += &format!("{:?}", gateway.control.client_tokens().await.unwrap());
    shown += &format!("{:?}", gateway.control.create_client_token(&clients::wish(Some("ci"), &["a/b/c"]), &admin()).await);
    shown += &format!("{:?}", gateway.control.revoke_client_token(&Name::parse("ci").unwrap(), &admin()).await);
    shown += &format!("{:?}", gateway.login(&made.token).unwrap_err());
    let gateway = gateway.restart(AUDIT_SIZE).await;

    let forms = [
        token.secret.expose().to_vec(),
        token.secret.encode().expose().as_bytes()[..42].to_vec(),
        text::hex(token.secret.expose()).into_bytes(),
        made.token.expose().as_bytes()[60..].to_vec(),
    ];
    let mut outputs = everything(gateway.dir.path());
    outputs.push(("log".into(), log.lock().unwrap().clone()));
    outputs.push(("errors and debug output".into(), shown.into_bytes()));
    assert!(outputs.iter().any(|(path, bytes)| path.ends_with("store.sqlite") && contains(bytes, made.info.id.as_bytes())));
    assert!(outputs.iter().any(|(path, bytes)| path.ends_with("log") && contains(bytes, b"client token revoked")));
    for (path, bytes) in outputs {
        for form in &forms {
            assert!(!contains(&bytes, form), "{} has it", path.display());
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A store whose disk is full.
struct Failing(tokio::sync::watch::Sender<Revision>);

fn full<T, E: From<Failure>>() -> Result<T, E> {
    Err(Failure::new(Code::StoreFailed, "/var/lib/underpass/store.sqlite: disk I/O error").into())
}

impl Store for Failing {
    fn get(&self, _: Key) -> Answer<'_, Option<Entry>> {
        Box::pin(async { full() })
    }
    fn list(&self, _: Kind) -> Answer<'_, Vec<Entry>> {
        Box::pin(async { full() })
    }
    fn commit(&self, _: Vec<Write>) -> Answer<'_, Revision, CommitError> {
        Box::pin(async { full() })
    }
    fn watch(&self, _: Kind) -> tokio::sync::watch::Receiver<Revision> {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn i1_a_stranger_learns_nothing_of_what_is_wrong_inside() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let parts = Parts {
        store: Arc::new(Failing(tokio::sync::watch::Sender::default())),
        authority: Arc::clone(&gateway.control.parts.authority),
        revocations: Revocations::new(),
        callers: Callers::new(),
        audit: gateway.control.parts.audit.clone(),
        endpoints: Vec::new(),
        certificate_lifetime: Duration::from_secs(60),
    };
    let broken = Control::unpublished(parts);
    let refused = broken.enroll(ask(&token, None)).await.unwrap_err();
    assert_eq!(refused.code, Code::EnrollRefused);
    assert!(!refused.detail.contains('/') && refused.detail.contains("store_failed"), "{refused}");
    let row = gateway.audit().pop().unwrap();
    assert_eq!(row["code"], "store_failed", "the audit has what it was: {row}");
    gateway.try_enroll(ask(&token, None)).await.unwrap();
}

#[tokio::test]
async fn nothing_starts_without_knowing_the_revocations() {
    let gateway = Gateway::new().await;
    let parts = Parts {
        store: Arc::new(Failing(tokio::sync::watch::Sender::default())),
        authority: Arc::clone(&gateway.control.parts.authority),
        revocations: Revocations::new(),
        callers: Callers::new(),
        audit: Audit::discard(),
        endpoints: Vec::new(),
        certificate_lifetime: Duration::from_secs(60),
    };
    assert_eq!(Control::start(parts).await.err().map(|failure| failure.code), Some(Code::StoreFailed));
}
