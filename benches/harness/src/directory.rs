//! An OpenLDAP server (slapd) with some entries, over TLS and without, as the target of searches. Refuses to know who searches.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::pki::Pki;
use crate::place::{Place, free_port};
use crate::process::{Process, run};

/// The name in its certificate.
pub(crate) const HOST: &str = "localhost";

/// What all entries are below.
pub(crate) const SUFFIX: &str = "dc=bench,dc=test";

/// How many people are in it: `u0`, `u1` and so on.
pub(crate) const ENTRIES: usize = 1_000;

/// A directory that is up.
pub(crate) struct Directory {
    _process: Process,
    /// How it is reached.
    pub(crate) reach: Reach,
}

/// Where a directory listens, at its end's loopback.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) tls_port: u16,
    /// Without TLS.
    pub(crate) clear_port: u16,
    /// The file of the certificate that its own is signed by.
    pub(crate) root: PathBuf,
}

impl Directory {
    /// Makes one in a directory of files, and waits until it listens.
    pub(crate) fn start(place: &Place, files: &Path) -> Result<Self> {
        let database = files.join("database");
        std::fs::create_dir_all(&database)?;
        let pki = Pki::make(files, &[HOST])?;
        let (root, both) = (pki.root(), pki.both(HOST));
        let config = files.join("slapd.conf");
        let database = database.display();
        let text = format!(
            "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
loglevel none
TLSCACertificateFile {root}
TLSCertificateFile {both}
TLSCertificateKeyFile {both}
database mdb
suffix {SUFFIX}
directory {database}
maxsize 67108864
index objectClass,uid eq
"
        );
        std::fs::write(&config, text)?;
        let people = files.join("people.ldif");
        std::fs::write(&people, ldif())?;
        let mut command = place.program("slapadd");
        command.arg("-q").arg("-f").arg(&config).arg("-l").arg(&people);
        run(command)?;
        let reach = Reach { tls_port: free_port(), clear_port: free_port(), root: root.into() };
        let (tls, clear) = (Place::inside(reach.tls_port), Place::inside(reach.clear_port));
        let mut command = place.program("slapd");
        // With a level of debugging it stays in the foreground; 0 says nothing.
        command.arg("-f").arg(&config).arg("-h").arg(format!("ldaps://{tls}/ ldap://{clear}/")).args(["-d", "0"]);
        let mut process = Process::start_quiet("slapd", command)?;
        process.listens(reach.tls_port)?;
        process.listens(reach.clear_port)?;
        Ok(Self { _process: process, reach })
    }
}

fn ldif() -> String {
    let mut text = format!("dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: bench\no: bench\n\n");
    for number in 0..ENTRIES {
        let _ = write!(
            text,
            "dn: uid=u{number},{SUFFIX}\nobjectClass: inetOrgPerson\nuid: u{number}\ncn: Person {number}\nsn: {number}\n\
             mail: u{number}@bench.test\ntelephoneNumber: +1 555 {number}\n\n"
        );
    }
    text
}
