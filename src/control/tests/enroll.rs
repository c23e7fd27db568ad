//! One token, one key, one certificate: against thieves, races, lost answers and guesses.

use std::time::Instant;

use super::*;
use crate::control::records::{Agent, Record, SerialRecord, Tenant, Token};
use crate::control::store::Expect;
use crate::control::tokens::token_id;
use crate::pki::identity::Role;
use crate::pki::request::RequestedKey;
use crate::wire::token::TokenSecret;

#[tokio::test]
async fn a_token_gives_the_agent_its_identity() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let enrolled = gateway.try_enroll(ask(&token, Some("web-1"))).await.unwrap();
    assert_eq!(enrolled.agent.to_string(), "acme/dc1/web-1");
    assert_eq!(enrolled.endpoints, token.endpoints);
    let identity = identity(&enrolled);
    assert_eq!(identity.agent(), Some(&enrolled.agent));
    assert_eq!(identity.not_after, enrolled.not_after);
    assert_eq!(token.pin, *gateway.control.parts.authority.pin().as_bytes());
    assert_eq!(token.group, group("acme/dc1"));
}

#[tokio::test]
async fn an_agent_without_a_wish_gets_a_free_name() {
    let gateway = Gateway::new().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let token = gateway.token("acme/dc1").await;
        let agent = gateway.try_enroll(ask(&token, None)).await.unwrap().agent;
        let digits = agent.agent.as_str().strip_prefix("agent-").unwrap().to_owned();
        assert!(digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{agent}");
        names.insert(digits);
    }
    assert_eq!(names.len(), 5);
}

#[tokio::test]
async fn s6_a_used_token_is_refused_to_another_key() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    gateway.try_enroll(ask(&token, Some("web-1"))).await.unwrap();
    for wished in [Some("web-1"), Some("web-2"), None] {
        assert_eq!(code(gateway.try_enroll(ask(&token, wished)).await), Code::TokenRefused);
    }
    assert_eq!((gateway.count::<Agent>().await, gateway.count::<SerialRecord>().await), (1, 1));
}

#[tokio::test]
async fn s6_a_lost_answer_is_given_again_to_the_same_key() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let key = PrivateKey::generate().unwrap();
    let first = gateway.try_enroll(ask_with(&token, &key, None)).await.unwrap();
    let gateway = gateway.restart(AUDIT_SIZE).await;
    // Another request of the same key, and another wish: what was decided stays.
    let again = gateway.try_enroll(ask_with(&token, &key, Some("other"))).await.unwrap();
    assert_eq!((&again.agent, &again.chain_pem, again.not_after), (&first.agent, &first.chain_pem, first.not_after));
    assert_eq!(gateway.count::<SerialRecord>().await, 1);
    let rows = gateway.audit();
    let repeated: Vec<_> = rows.iter().filter(|row| row["event"] == "enrolled").map(|row| &row["repeated"]).collect();
    assert_eq!(repeated, [false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s6_fifty_parallel_redemptions_with_fifty_keys_give_one_certificate() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let tasks = crate::base::tasks::Tasks::new();
    let started: Vec<_> = (0..50)
        .map(|n| {
            let control = Arc::clone(&gateway.control);
            let ask = EnrollAsk { source: source(n), ..ask(&token, (n % 2 == 0).then_some("web-1")) };
            tasks.spawn(async move { control.enroll_at(ask, Instant::now(), OffsetDateTime::now_utc()).await })
        })
        .collect();
    let mut winners = Vec::new();
    for task in started {
        match task.await.unwrap().unwrap() {
            Ok(enrolled) => winners.push(enrolled),
            Err(failure) => assert_eq!(failure.code, Code::TokenRefused, "{failure}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let serials = records::list::<SerialRecord>(gateway.control.store()).await.unwrap();
    let serials: Vec<_> = serials.iter().map(|stored| stored.record.serial).collect();
    assert_eq!(serials, [identity(&winners[0]).serial]);
    assert_eq!(gateway.count::<Agent>().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s6_fifty_parallel_tries_of_one_key_get_the_same_certificate() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let key = PrivateKey::generate().unwrap();
    let tasks = crate::base::tasks::Tasks::new();
    let started: Vec<_> = (0..50)
        .map(|n| {
            let control = Arc::clone(&gateway.control);
            let ask = EnrollAsk { source: source(n), ..ask_with(&token, &key, None) };
            tasks.spawn(async move { control.enroll_at(ask, Instant::now(), OffsetDateTime::now_utc()).await })
        })
        .collect();
    let mut chains = std::collections::BTreeSet::new();
    for task in started {
        chains.insert(task.await.unwrap().unwrap().unwrap().chain_pem);
    }
    assert_eq!((chains.len(), gateway.count::<SerialRecord>().await), (1, 1));
}

#[tokio::test]
async fn s6_a_token_counts_until_its_second_and_no_longer() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let key = PrivateKey::generate().unwrap();
    let at = async |seconds| {
        *gateway.control.throttle() = Throttle::new(crate::base::limits::ENROLL_PER_MINUTE, 100);
        let now = token.expires + time::Duration::seconds(seconds);
        gateway.control.enroll_at(ask_with(&token, &key, None), Instant::now(), now).await
    };
    assert_eq!(code(at(1).await), Code::TokenExpired);
    assert_eq!(code(at(0).await), Code::TokenExpired);
    at(-1).await.unwrap();
    assert_eq!(code(at(1).await), Code::TokenExpired, "also for the key that used it");
}

#[tokio::test]
async fn s6_a_token_enrolls_into_its_own_group_alone() {
    let gateway = Gateway::new().await;
    let other = gateway.enroll("acme/dc2/web-1").await;
    let mine = gateway.enroll("acme/dc1/web-1").await;
    assert_eq!(mine.agent.to_string(), "acme/dc1/web-1");
    let role = identity(&mine).role.to_string();
    assert_eq!(role, "spiffe://test.example/tenant/acme/group/dc1/agent/web-1");
    let kept = records::get::<Agent>(gateway.control.store(), "acme/dc2/web-1").await.unwrap().unwrap().record;
    assert_eq!((kept.serial, kept.superseded.len()), (identity(&other).serial, 0));
}

#[tokio::test]
async fn s6_guessing_ends_after_five_tries_a_minute_of_a_source() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let start = Instant::now();
    let guess = || EnrollAsk { secret: TokenSecret::generate().unwrap().encode(), ..ask(&token, None) };
    let now = OffsetDateTime::now_utc();
    for _ in 0..5 {
        assert_eq!(code(gateway.control.enroll_at(guess(), start, now).await), Code::TokenRefused);
    }
    for _ in 0..20 {
        assert_eq!(code(gateway.control.enroll_at(guess(), start, now).await), Code::EnrollLimited);
    }
    let right = || ask(&token, None);
    let soon = start + Duration::from_secs(59);
    assert_eq!(code(gateway.control.enroll_at(right(), soon, now).await), Code::EnrollLimited, "the right one too");
    let elsewhere = EnrollAsk { source: source(1), ..guess() };
    assert_eq!(code(gateway.control.enroll_at(elsewhere, soon, now).await), Code::TokenRefused, "others are not harmed");
    gateway.control.enroll_at(right(), start + Duration::from_secs(60), now).await.unwrap();

    let rows = gateway.audit();
    let refusals: Vec<_> = rows.iter().filter(|row| row["event"] == "enroll_refused").map(|row| &row["code"]).collect();
    assert_eq!(refusals.iter().filter(|code| **code == "token_refused").count(), 6);
    assert_eq!(refusals.iter().filter(|code| **code == "enroll_limited").count(), 1, "a flood is recorded once");
}

#[tokio::test]
async fn s6_what_is_no_secret_is_no_token() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let id = token_id(&token.secret);
    let right = token.secret.encode();
    let hash = records::get::<Token>(gateway.control.store(), id.as_str()).await.unwrap().unwrap().record.secret_sha256;
    for wrong in ["", "x", &id, &hash, &right.expose()[..42], &format!("{}A", right.expose()), &"A".repeat(100_000)] {
        let ask = EnrollAsk { secret: secret(wrong), ..ask(&token, None) };
        assert_eq!(code(gateway.try_enroll(ask).await), Code::TokenRefused);
    }
}

#[tokio::test]
async fn s6_the_whole_hash_decides_and_not_the_part_that_finds_the_record() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let store = gateway.control.store();
    let stored = records::get::<Token>(store, token_id(&token.secret)).await.unwrap().unwrap();
    let mut other = stored.record.clone();
    other.secret_sha256.replace_range(16.., &"0".repeat(48));
    store.commit(vec![other.put(stored.unchanged())]).await.unwrap();
    assert_eq!(code(gateway.try_enroll(ask(&token, None)).await), Code::TokenRefused);
}

#[tokio::test]
async fn s7_a_bad_request_is_refused_and_burns_no_token() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let good = ask(&token, Some("web-1"));
    let mut forged = good.csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    let trailing = [good.csr.as_slice(), &[0]].concat();
    for csr in [Vec::new(), b"garbage".to_vec(), vec![0x30; 9 * 1024], forged, trailing, rsa_like(&good.csr)] {
        let bad = EnrollAsk { csr, ..good.clone() };
        assert_eq!(code(gateway.try_enroll(bad).await), Code::CsrInvalid);
    }
    assert_eq!(gateway.count::<Agent>().await, 0);
    assert_eq!(gateway.try_enroll(good).await.unwrap().agent.to_string(), "acme/dc1/web-1");
}

/// The request with its curve's identifier changed from P-256 to a neighbour.
fn rsa_like(csr: &[u8]) -> Vec<u8> {
    const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = csr.windows(8).position(|window| window == P256).unwrap();
    let mut changed = csr.to_vec();
    changed[at + 7] = 0x06;
    changed
}

#[tokio::test]
async fn s7_only_the_key_is_taken_from_a_request() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    let mut params = rcgen::CertificateParams::new(vec!["*.gw1.example".into(), "gw1.example".into()]).unwrap();
    let stolen = "spiffe://test.example/gateway/gw1".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(stolen));
    params.distinguished_name.push(rcgen::DnType::CommonName, "gw1.example");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::Any];
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    let hash = RequestedKey::from_csr(&csr).unwrap().spki_sha256();

    let enrolled = gateway.try_enroll(EnrollAsk { csr, ..ask(&token, Some("web-1")) }).await.unwrap();
    let identity = identity(&enrolled);
    assert!(matches!(&identity.role, Role::Agent { agent, .. } if agent.to_string() == "acme/dc1/web-1"), "{identity:?}");
    let leaf = &pem::parse(enrolled.chain_pem.as_bytes()).unwrap()[0];
    for wanted in ["gw1.example", "gateway/gw1"] {
        assert!(!leaf.windows(wanted.len()).any(|window| window == wanted.as_bytes()), "{wanted} is in the certificate");
    }
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let lifetime = identity.not_after - OffsetDateTime::now_utc();
    assert!(lifetime <= time::Duration::days(30) && lifetime > time::Duration::days(29));
    let kept = records::get::<SerialRecord>(gateway.control.store(), identity.serial.to_string()).await.unwrap().unwrap();
    assert_eq!(kept.record.spki_sha256, text::hex(&hash));
}

#[tokio::test]
async fn enrolling_again_under_the_same_name_replaces_the_certificate() {
    let gateway = Gateway::new().await;
    let first = gateway.enroll("acme/dc1/web-1").await;
    let second = gateway.enroll("acme/dc1/web-1").await;
    let (old, new) = (identity(&first).serial, identity(&second).serial);
    let agent = records::get::<Agent>(gateway.control.store(), "acme/dc1/web-1").await.unwrap().unwrap().record;
    assert_eq!((agent.serial, agent.superseded.as_slice()), (new, &[old][..]));
    assert!(!gateway.is_revoked(old), "the running agent goes on until it takes the new one");
    assert_eq!(gateway.count::<Agent>().await, 1);
}

#[tokio::test]
async fn expired_certificates_of_an_agent_are_cleared_away_when_it_enrolls_again() {
    let gateway = Gateway::new().await;
    gateway.enroll("acme/dc1/web-1").await;
    let token = gateway.token("acme/dc1").await;
    let record = records::get::<Token>(gateway.control.store(), token_id(&token.secret)).await.unwrap().unwrap();
    let later = OffsetDateTime::now_utc() + time::Duration::days(31);
    let longer = Token { expires: later + time::Duration::hours(1), ..record.record.clone() };
    gateway.control.store().commit(vec![longer.put(record.unchanged())]).await.unwrap();
    gateway.control.enroll_at(ask(&token, Some("web-1")), Instant::now(), later).await.unwrap();
    let agent = records::get::<Agent>(gateway.control.store(), "acme/dc1/web-1").await.unwrap().unwrap().record;
    assert_eq!((agent.superseded.len(), gateway.count::<SerialRecord>().await), (0, 1));
}

#[tokio::test]
async fn a_tenant_and_a_group_are_made_once_and_said() {
    let gateway = Gateway::new().await;
    let made = gateway.control.create_token(&group("acme/dc1"), None, &admin()).await.unwrap();
    assert_eq!(made.created, ["tenant acme", "group acme/dc1"]);
    let made = gateway.control.create_token(&group("acme/dc2"), None, &admin()).await.unwrap();
    assert_eq!(made.created, ["group acme/dc2"]);
    let made = gateway.control.create_token(&group("acme/dc2"), None, &admin()).await.unwrap();
    assert!(made.created.is_empty());

    let (new, caller) = (group("beta/x"), admin());
    let make = || gateway.control.create_token(&new, None, &caller);
    let (one, two, three) = tokio::join!(make(), make(), make());
    let said = [one, two, three].into_iter().flat_map(|made| made.unwrap().created).count();
    assert_eq!((said, gateway.count::<Tenant>().await), (2, 2), "of those who race one makes it");
}

#[tokio::test]
async fn a_tokens_validity_has_bounds() {
    let gateway = Gateway::new().await;
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    for ttl in [Duration::ZERO, week + Duration::from_secs(1), Duration::MAX] {
        assert_eq!(code(gateway.control.create_token(&group("a/b"), Some(ttl), &admin()).await), Code::Usage);
    }
    let before = OffsetDateTime::now_utc();
    let made = gateway.control.create_token(&group("a/b"), Some(week), &admin()).await.unwrap();
    assert!(made.expires > before + week - Duration::from_secs(1) && made.expires <= OffsetDateTime::now_utc() + week);
    let made = gateway.control.create_token(&group("a/b"), None, &admin()).await.unwrap();
    assert!(made.expires <= OffsetDateTime::now_utc() + Duration::from_secs(60 * 60), "an hour unless said");
    assert_eq!(EnrollmentToken::parse(made.token.expose()).unwrap().expires, made.expires);
}

#[tokio::test]
async fn tokens_are_forgotten_a_day_after_they_expired() {
    let gateway = Gateway::new().await;
    let token = gateway.token("acme/dc1").await;
    gateway.control.sweep(token.expires + KEPT).await.unwrap();
    assert_eq!(gateway.count::<Token>().await, 1);
    gateway.control.sweep(token.expires + KEPT + time::Duration::seconds(1)).await.unwrap();
    assert_eq!(gateway.count::<Token>().await, 0);
    assert_eq!(gateway.count::<Tenant>().await, 1, "nothing else is");
}

#[tokio::test]
async fn a_record_with_an_unknown_field_or_under_another_name_is_an_error() {
    let gateway = Gateway::new().await;
    let store = gateway.control.store();
    let mut write = Tenant { name: Name::parse("acme").unwrap(), created: OffsetDateTime::now_utc() }.put(Expect::Absent);
    write.key.id = "beta".into();
    store.commit(vec![write.clone()]).await.unwrap();
    let failure = records::get::<Tenant>(store, "beta").await.unwrap_err();
    assert!(failure.code == Code::StoreFailed && failure.detail.contains("another's name"), "{failure}");
    write.expect = Expect::Anything;
    write.value = Some(br#"{"name":"beta","created":"2026-01-01T00:00:00Z","since":1}"#.to_vec());
    store.commit(vec![write]).await.unwrap();
    let failure = records::get::<Tenant>(store, "beta").await.unwrap_err();
    assert!(failure.detail.contains("tenant `beta`") && failure.detail.contains("unknown field"), "{failure}");
}
