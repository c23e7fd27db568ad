//! Tests of making, loading and using an authority, its files and what it issues.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::init::{ISSUING_KEY, ISSUING_PEM, ROOT_KEY, ROOT_PEM};
use super::*;
use crate::base::files;
use crate::pki::hostile::requests;

const DAYS: Duration = Duration::from_secs(DAY);

struct Place {
    dir: tempfile::TempDir,
    now: OffsetDateTime,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: OffsetDateTime::now_utc() }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn init(&self) -> Result<Authority, Failure> {
        Authority::init(&self.state(), &"acme.example".parse().unwrap(), self.now)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }
}

fn agent() -> AgentId {
    "acme/dc1/a1".parse().unwrap()
}

fn requested() -> RequestedKey {
    RequestedKey::from_csr(&PrivateKey::generate().unwrap().csr_der().unwrap()).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> Code {
    result.unwrap_err().code
}

#[test]
fn init_makes_a_pki_that_others_cannot_touch_and_that_loads_again() {
    let place = Place::new();
    let made = place.init().unwrap();
    let loaded = Authority::load(&place.state()).unwrap();
    assert_eq!((loaded.pin(), loaded.root(), loaded.trust_domain()), (made.pin(), made.root(), made.trust_domain()));
    assert_eq!(loaded.trust_domain().as_str(), "acme.example");
    assert_eq!(std::fs::metadata(place.state()).unwrap().mode() & 0o7777, 0o700);
    let names: BTreeSet<_> = std::fs::read_dir(place.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [ROOT_PEM, ROOT_KEY, ISSUING_PEM, ISSUING_KEY].map(Into::into).into());
    for name in names {
        assert_eq!(std::fs::metadata(place.state().join(&name)).unwrap().mode() & 0o7777, 0o600, "{name:?}");
    }
}

#[test]
fn init_refuses_to_overwrite_any_file() {
    for name in [ROOT_PEM, ROOT_KEY, ISSUING_PEM, ISSUING_KEY] {
        let place = Place::new();
        files::create_private_dir(&place.state()).unwrap();
        files::write_private(&place.file(name), b"precious").unwrap();
        let refusal = place.init().unwrap_err();
        assert!(refusal.code == Code::StateExists && refusal.detail.contains(name), "{refusal}");
        assert_eq!(files::read_private(&place.file(name)).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(place.state()).unwrap().count(), 1);
    }
    let place = Place::new();
    let first = place.init().unwrap().pin();
    assert_eq!(code(place.init()), Code::StateExists);
    assert_eq!(Authority::load(&place.state()).unwrap().pin(), first);
}

#[test]
fn what_a_crash_in_init_leaves_is_not_loaded_and_is_made_anew() {
    for left in [&[][..], &[ROOT_KEY], &[ROOT_KEY, ISSUING_KEY, ROOT_PEM], &[ROOT_KEY, ISSUING_KEY, ROOT_PEM, ISSUING_PEM]] {
        let place = Place::new();
        let lost = place.init().unwrap().pin();
        for name in [ROOT_PEM, ROOT_KEY, ISSUING_PEM, ISSUING_KEY].iter().filter(|name| !left.contains(name)) {
            files::remove(&place.file(name)).unwrap();
        }
        files::write_private(&place.file("init.unfinished"), b"").unwrap();
        assert_eq!(code(Authority::load(&place.state())), Code::StateMissing, "{left:?}");
        let made = place.init().unwrap();
        assert_ne!(made.pin(), lost);
        assert_eq!(Authority::load(&place.state()).unwrap().pin(), made.pin());
    }
}

#[test]
fn two_inits_at_once_make_one_pki() {
    let place = Place::new();
    let results: Vec<_> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..8).map(|_| scope.spawn(|| place.init())).collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
    });
    let made: Vec<_> = results.iter().flatten().map(Authority::pin).collect();
    assert_eq!(made, [Authority::load(&place.state()).unwrap().pin()]);
    assert!(results.into_iter().filter_map(Result::err).all(|failure| failure.code == Code::StateExists));
}

#[test]
fn the_root_key_may_be_kept_elsewhere() {
    let place = Place::new();
    place.init().unwrap();
    files::remove(&place.file(ROOT_KEY)).unwrap();
    let authority = Authority::load(&place.state()).unwrap();
    authority.issue_agent(&agent(), &requested(), 30 * DAYS, place.now).unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let (place, other) = (Place::new(), Place::new());
    place.init().unwrap();
    other.init().unwrap();
    for name in [ROOT_PEM, ISSUING_PEM, ISSUING_KEY] {
        let own = std::fs::read(place.file(name)).unwrap();
        files::write_private(&place.file(name), &std::fs::read(other.file(name)).unwrap()).unwrap();
        assert_eq!(code(Authority::load(&place.state())), Code::StateInvalid, "{name} of another PKI");
        files::write_private(&place.file(name), b"damaged").unwrap();
        assert_eq!(code(Authority::load(&place.state())), Code::StateInvalid, "{name} damaged");
        files::remove(&place.file(name)).unwrap();
        assert_eq!(code(Authority::load(&place.state())), Code::StateMissing, "{name} missing");
        files::write_private(&place.file(name), &own).unwrap();
        Authority::load(&place.state()).unwrap();
    }
}

#[test]
fn e11_an_authority_that_others_could_have_read_or_changed_is_not_loaded() {
    let place = Place::new();
    place.init().unwrap();
    let chmod = |path: PathBuf, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for (path, mode, restored) in [
        (place.file(ISSUING_KEY), 0o644, 0o600),
        (place.file(ROOT_PEM), 0o666, 0o600),
        (place.file(ISSUING_PEM), 0o620, 0o600),
        (place.state(), 0o777, 0o700),
    ] {
        chmod(path.clone(), mode);
        assert_eq!(code(Authority::load(&place.state())), Code::FilePermissions, "{} {mode:o}", path.display());
        chmod(path, restored);
        Authority::load(&place.state()).unwrap();
    }
    std::fs::rename(place.file(ISSUING_KEY), place.file("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.file("elsewhere"), place.file(ISSUING_KEY)).unwrap();
    assert_eq!(code(Authority::load(&place.state())), Code::FilePermissions);

    let open = Place::new();
    std::fs::create_dir(open.state()).unwrap();
    chmod(open.state(), 0o777);
    assert_eq!(code(open.init()), Code::FilePermissions);
}

#[test]
fn lifetimes_are_those_of_the_design_and_end_with_the_issuer() {
    let place = Place::new();
    let authority = place.init().unwrap();
    let years = |certificate: &CertificateDer<'_>| {
        let validity = parse(certificate).unwrap().validity().clone();
        (validity.not_after.to_datetime() - validity.not_before.to_datetime()).whole_days() / 365
    };
    assert_eq!((years(&authority.root), years(&authority.issuing)), (20, 5));
    let issued = authority.issue_agent(&agent(), &requested(), 30 * DAYS, place.now).unwrap();
    let leaf = &pem::parse(issued.chain_pem.as_bytes()).unwrap()[0];
    let validity = parse(leaf).unwrap().validity().clone();
    assert_eq!(validity.not_after.to_datetime(), issued.not_after);
    assert_eq!((place.now - validity.not_before.to_datetime()).whole_minutes(), 10);
    assert_eq!((issued.not_after - place.now + time::Duration::SECOND).whole_days(), 30);
    for lifetime in [100 * 365 * DAYS, Duration::MAX] {
        let issued = authority.issue_agent(&agent(), &requested(), lifetime, place.now).unwrap();
        assert_eq!(issued.not_after, authority.issuing_not_after());
    }
    let late = authority.issuing_not_after() - time::Duration::days(1);
    let endpoints = ["wss://gateway.example".parse().unwrap()];
    let gateway = authority.issue_gateway(&"gw1".parse().unwrap(), &endpoints, late).unwrap();
    assert_eq!(gateway.identity().not_after, authority.issuing_not_after());
    let over = authority.issuing_not_after();
    assert_eq!(code(authority.issue_agent(&agent(), &requested(), 30 * DAYS, over)), Code::IssuerExpiring);
    assert_eq!(code(authority.issue_gateway(&"gw1".parse().unwrap(), &endpoints, over)), Code::IssuerExpiring);
}

#[test]
fn ca_certificates_may_sign_to_the_depth_they_need_and_nothing_else() {
    let authority = Place::new().init().unwrap();
    for (der, path_length) in [(&authority.root, 1), (&authority.issuing, 0)] {
        let certificate = parse(der).unwrap();
        assert!(is_signing_ca(&certificate));
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.path_len_constraint == Some(path_length));
        assert_eq!(certificate.raw_serial().len(), 16);
        assert_ne!(certificate.raw_serial()[0] & 0x80, 0x80);
    }
}

#[test]
fn s7_of_a_greedy_request_the_key_alone_is_taken() {
    let place = Place::new();
    let authority = place.init().unwrap();
    let key = PrivateKey::generate().unwrap();
    let requested = RequestedKey::from_csr(&requests::greedy(key.key_pair())).unwrap();
    let issued = authority.issue_agent(&agent(), &requested, 30 * DAYS, place.now).unwrap();
    let chain = pem::parse(issued.chain_pem.as_bytes()).unwrap();
    assert_eq!(chain[1..], [authority.issuing.clone(), authority.root.clone()]);
    let leaf = parse(&chain[0]).unwrap();
    assert_eq!(leaf.public_key().raw, key.spki_der());
    assert!(!leaf.is_ca() && !leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(leaf.subject().to_string(), "O=acme.example, CN=acme/dc1/a1");
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI("spiffe://acme.example/tenant/acme/group/dc1/agent/a1")]);
    let usages = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && !usages.server_auth && !usages.any && usages.other.is_empty());
    let mut extensions: Vec<_> = leaf.extensions().iter().map(|extension| extension.oid.to_id_string()).collect();
    extensions.sort();
    assert_eq!(extensions, ["2.5.29.15", "2.5.29.17", "2.5.29.35", "2.5.29.37"]);
    let credential = Credential::from_pem(&issued.chain_pem, key).unwrap();
    assert_eq!((credential.identity().agent(), credential.identity().serial), (Some(&agent()), issued.serial));
}

#[test]
fn every_certificate_has_its_own_serial() {
    let place = Place::new();
    let authority = place.init().unwrap();
    let key = requested();
    let serials: BTreeSet<_> =
        (0..20).map(|_| authority.issue_agent(&agent(), &key, 30 * DAYS, place.now).unwrap().serial).collect();
    assert_eq!(serials.len(), 20);
}

#[test]
fn an_authority_and_what_it_makes_may_be_shared_between_tasks() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Authority>();
    shared::<Credential>();
    shared::<RequestedKey>();
    shared::<crate::pki::tls::GatewayTls>();
    shared::<crate::pki::tls::AgentTls>();
    shared::<crate::pki::revoke::Revocations>();
}
