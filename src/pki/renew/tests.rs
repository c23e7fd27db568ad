//! Tests of saving, loading and renewing credentials, with crashes in between.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::pki::request::RequestedKey;

struct Place {
    dir: tempfile::TempDir,
    authority: Authority,
    now: OffsetDateTime,
}

impl Place {
    fn new() -> Self {
        let (dir, now) = (tempfile::tempdir().unwrap(), OffsetDateTime::now_utc());
        let authority = Authority::init(dir.path(), &"acme.example".parse().unwrap(), now).unwrap();
        Self { dir, authority, now }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self) -> Credential {
        let key = PrivateKey::generate().unwrap();
        let requested = RequestedKey::from_csr(&key.csr_der().unwrap()).unwrap();
        let lifetime = std::time::Duration::from_secs(30 * 86400);
        let issued = self.authority.issue_agent(&"acme/dc1/a1".parse().unwrap(), &requested, lifetime, self.now).unwrap();
        Credential::from_pem(&issued.chain_pem, key).unwrap()
    }

    fn gateway(&self, endpoints: &[&str], now: OffsetDateTime) -> Result<Credential, Failure> {
        let endpoints: Vec<Endpoint> = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
        gateway_credential(&self.authority, self.dir.path(), &"gw1".parse().unwrap(), &endpoints, now)
    }
}

fn serial(credential: &Credential) -> String {
    credential.identity().serial.to_string()
}

#[test]
fn a_credential_is_saved_and_loaded() {
    let place = Place::new();
    let (certificate, key) = (place.file("agent.pem"), place.file("agent.key"));
    assert_eq!(Credential::load(&certificate, &key).unwrap_err().code, Code::StateMissing);
    let credential = place.agent();
    credential.save(&certificate, &key).unwrap();
    assert_eq!(serial(&Credential::load(&certificate, &key).unwrap()), serial(&credential));
    assert!(!pending_key(&key).exists());
    files::remove(&key).unwrap();
    assert_eq!(Credential::load(&certificate, &key).unwrap_err().code, Code::StateMissing);
}

#[test]
fn a_certificate_for_another_key_is_damage() {
    let place = Place::new();
    let (certificate, key) = (place.file("agent.pem"), place.file("agent.key"));
    place.agent().save(&certificate, &key).unwrap();
    PrivateKey::generate().unwrap().save(&key).unwrap();
    let failure = Credential::load(&certificate, &key).unwrap_err();
    assert!(failure.code == Code::StateInvalid && failure.detail.contains("agent.pem"), "{failure}");
    files::write_private(&certificate, b"damaged").unwrap();
    assert_eq!(Credential::load(&certificate, &key).unwrap_err().code, Code::StateInvalid);
}

#[test]
fn f25_a_crash_at_any_point_of_a_renewal_leaves_the_old_pair_or_the_new_one() {
    let place = Place::new();
    let (certificate, key) = (place.file("agent.pem"), place.file("agent.key"));
    let (old, new) = (place.agent(), place.agent());
    let steps: [&dyn Fn(); 4] = [
        &|| new.key.save(&pending_key(&key)).unwrap(),
        &|| pem::save(&certificate, &new.chain).unwrap(),
        &|| new.key.save(&key).unwrap(),
        &|| files::remove(&pending_key(&key)).unwrap(),
    ];
    for done in 0..=steps.len() {
        old.save(&certificate, &key).unwrap();
        steps[..done].iter().for_each(|step| step());
        let expected = if done < 2 { &old } else { &new };
        assert_eq!(serial(&Credential::load(&certificate, &key).unwrap()), serial(expected), "after {done} steps");
        assert_eq!(serial(&Credential::load(&certificate, &key).unwrap()), serial(expected), "and once more");
    }
}

#[test]
fn an_enrollment_that_crashed_before_its_key_was_in_place_is_completed() {
    let place = Place::new();
    let (certificate, key) = (place.file("agent.pem"), place.file("agent.key"));
    let credential = place.agent();
    credential.key.save(&pending_key(&key)).unwrap();
    pem::save(&certificate, &credential.chain).unwrap();
    assert_eq!(serial(&Credential::load(&certificate, &key).unwrap()), serial(&credential));
    assert!(key.exists() && !pending_key(&key).exists());
}

#[test]
fn e11_a_key_that_others_can_read_is_refused_even_if_a_new_one_waits() {
    let place = Place::new();
    let (certificate, key) = (place.file("agent.pem"), place.file("agent.key"));
    let credential = place.agent();
    credential.save(&certificate, &key).unwrap();
    credential.key.save(&pending_key(&key)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(Credential::load(&certificate, &key).unwrap_err().code, Code::FilePermissions);
}

#[test]
fn the_last_third_is_the_time_to_renew() {
    let place = Place::new();
    let credential = place.agent();
    let Identity { not_before, not_after, .. } = *credential.identity();
    let third = (not_after - not_before) / 3;
    assert!(!credential.in_last_third(not_before));
    assert!(!credential.in_last_third(not_after - third - Duration::minutes(1)));
    assert!(credential.in_last_third(not_after - third + Duration::minutes(1)));
    assert!(credential.in_last_third(not_after + Duration::days(1)));
    assert_eq!(credential.remaining(not_after - Duration::hours(1)), Duration::hours(1));
    assert!(credential.remaining(not_after + Duration::hours(1)).is_negative());
}

#[test]
fn the_gateway_keeps_its_certificate_as_long_as_it_is_good() {
    let place = Place::new();
    let both = ["wss://gateway.example:443", "wss://10.1.2.3:8443", "wss://[fd00::1]"];
    let first = place.gateway(&both, place.now).unwrap();
    let again = |endpoints: &[&str], now| place.gateway(endpoints, now).unwrap();
    assert_eq!(serial(&again(&both, place.now)), serial(&first));
    assert_eq!(serial(&again(&[both[2], both[1], both[0]], place.now)), serial(&first), "order means nothing");
    assert_eq!(serial(&again(&both, place.now + Duration::days(59))), serial(&first));

    let renewed = again(&both, place.now + Duration::days(61));
    assert_ne!(serial(&renewed), serial(&first), "in its last third");
    let fewer = again(&both[..1], place.now);
    assert_ne!(serial(&fewer), serial(&renewed), "an endpoint was removed");
    assert_eq!(hosts_of(&fewer.chain()[0]).unwrap(), ["gateway.example"]);
    let more = again(&both, place.now);
    assert_ne!(serial(&more), serial(&fewer), "an endpoint was added");
    assert_eq!(hosts_of(&more.chain()[0]).unwrap(), ["gateway.example", "10.1.2.3", "fd00::1"]);
}

#[test]
fn the_gateway_makes_a_new_certificate_if_the_old_one_is_of_another_pki_or_damaged() {
    let (place, other) = (Place::new(), Place::new());
    let endpoints = ["wss://gateway.example"];
    other.gateway(&endpoints, other.now).unwrap().save(&place.file(GATEWAY_PEM), &place.file(GATEWAY_KEY)).unwrap();
    let ours = place.gateway(&endpoints, place.now).unwrap();
    assert_eq!(ours.chain().last(), Some(place.authority.root()));
    files::write_private(&place.file(GATEWAY_PEM), b"damaged").unwrap();
    let anew = place.gateway(&endpoints, place.now).unwrap();
    assert_ne!(serial(&anew), serial(&ours));
    PrivateKey::generate().unwrap().save(&place.file(GATEWAY_KEY)).unwrap();
    assert_ne!(serial(&place.gateway(&endpoints, place.now).unwrap()), serial(&anew));
}

#[test]
fn e11_the_gateway_does_not_replace_a_key_that_others_could_have_read() {
    let place = Place::new();
    place.gateway(&["wss://gateway.example"], place.now).unwrap();
    std::fs::set_permissions(place.file(GATEWAY_KEY), PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(place.gateway(&["wss://gateway.example"], place.now).unwrap_err().code, Code::FilePermissions);
}
