//! Making an authority's files, all or none. Refuses to know how certificates are issued from them.
//!
//! A marker file is there from before the first file until after the last: while it is there nothing is loaded, and what is
//! beside it was never used, so the next attempt may replace it. A lock on the directory keeps two attempts apart.

use std::fs::File;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustix::fs::FlockOperation;
use time::OffsetDateTime;

use super::super::identity::{Serial, TrustDomain};
use super::super::pem;
use super::super::request::PrivateKey;
use super::{BACKDATED, subject};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::files;

pub(super) const ROOT_PEM: &str = "root.pem";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const ISSUING_PEM: &str = "issuing.pem";
pub(super) const ISSUING_KEY: &str = "issuing.key";
const FILES: [&str; 4] = [ROOT_PEM, ROOT_KEY, ISSUING_PEM, ISSUING_KEY];
const UNFINISHED: &str = "init.unfinished";

const ROOT_LIFETIME: time::Duration = time::Duration::days(20 * 365 + 5);
const ISSUING_LIFETIME: time::Duration = time::Duration::days(5 * 365 + 1);

pub(super) fn init(directory: &Path, trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<(), Failure> {
    files::create_private_dir(directory)?;
    let _lock = lock(directory)?;
    let marker = directory.join(UNFINISHED);
    if !is_there(&marker) {
        refuse_existing(directory)?;
    }
    files::write_private(&marker, b"")?;
    for name in FILES {
        files::remove(&directory.join(name))?;
    }
    write_files(directory, trust_domain, now)?;
    files::remove(&marker)
}

pub(super) fn refuse_unfinished(directory: &Path) -> Result<(), Failure> {
    if is_there(&directory.join(UNFINISHED)) {
        let why = format_args!("the initialisation of {} was not finished: run it again", directory.display());
        return Err(Failure::new(Code::StateMissing, why));
    }
    Ok(())
}

fn refuse_existing(directory: &Path) -> Result<(), Failure> {
    match FILES.iter().find(|name| is_there(&directory.join(name))) {
        Some(name) => Err(Failure::new(Code::StateExists, format_args!("{} is there already", directory.join(name).display()))),
        None => Ok(()),
    }
}

/// Held until the file is dropped; the system drops it with the process.
fn lock(directory: &Path) -> Result<File, Failure> {
    let file = File::open(directory).or_fail(Code::StateUnwritable, format_args!("cannot open {}", directory.display()))?;
    let busy = format_args!("another process is initialising {}", directory.display());
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).or_fail(Code::StateExists, busy)?;
    Ok(file)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn write_files(directory: &Path, trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<(), Failure> {
    let (root_key, issuing_key) = (PrivateKey::generate()?, PrivateKey::generate()?);
    root_key.save(&directory.join(ROOT_KEY))?;
    issuing_key.save(&directory.join(ISSUING_KEY))?;
    let root = ca(trust_domain, "root", now, ROOT_LIFETIME, 1)?;
    let root = CertifiedIssuer::self_signed(root, root_key.into_key_pair()).or_fail(Code::Internal, "cannot sign the root")?;
    let issuing = ca(trust_domain, "issuing", now, ISSUING_LIFETIME, 0)?;
    let issuing = CertifiedIssuer::<KeyPair>::signed_by(issuing, issuing_key.into_key_pair(), &root)
        .or_fail(Code::Internal, "cannot sign the issuing CA")?;
    pem::save(&directory.join(ROOT_PEM), [root.der()])?;
    pem::save(&directory.join(ISSUING_PEM), [issuing.der()])
}

fn ca(
    trust_domain: &TrustDomain,
    kind: &str,
    now: OffsetDateTime,
    lifetime: time::Duration,
    path_length: u8,
) -> Result<CertificateParams, Failure> {
    let serial = Serial::random()?;
    let uri = format!("spiffe://{trust_domain}").as_str().try_into().or_fail(Code::Internal, "a trust domain is ASCII")?;
    let mut params = CertificateParams::default();
    // The digits tell the generations of one trust domain apart, for people and for path building.
    let generation = serial.to_string();
    params.distinguished_name = subject(trust_domain, format!("Underpass {kind} CA {}", &generation[..8]));
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_be_bytes()));
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATED;
    params.not_after = now + lifetime;
    Ok(params)
}
