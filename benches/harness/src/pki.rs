//! A throwaway PKI for peers that need one, made with the openssl command. Refuses to know who uses it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// A root and certificates below it, in a directory.
pub(crate) struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Makes a root, and for each DNS name a key and a certificate that serves both ends of TLS.
    pub(crate) fn make(dir: &Path, names: &[&str]) -> Result<Self> {
        let pki = Self { dir: dir.to_owned() };
        pki.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=root.test -keyout root.key -out root.pem")?;
        for name in names {
            pki.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -CA root.pem -CAkey root.key \
                 -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:{name} \
                 -addext extendedKeyUsage=serverAuth,clientAuth -keyout {name}.key -out {name}.crt"
            ))?;
            let both = std::fs::read_to_string(dir.join(format!("{name}.crt")))?
                + &std::fs::read_to_string(dir.join(format!("{name}.key")))?;
            std::fs::write(dir.join(format!("{name}.pem")), both)?;
        }
        Ok(pki)
    }

    /// The root's certificate.
    pub(crate) fn root(&self) -> String {
        self.file("root.pem")
    }

    /// A name's certificate and key in one file.
    pub(crate) fn both(&self, name: &str) -> String {
        self.file(&format!("{name}.pem"))
    }

    /// An openssl command in the directory, its arguments separated by blanks.
    pub(crate) fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(&self.dir);
        run(command).context("making a throwaway PKI").map(drop)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}
