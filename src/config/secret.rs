//! Where a secret comes from. The configuration holds references, never secrets. Refuses to know what a secret is for.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::base::code::{Code, Failure};
use crate::base::files;
use crate::base::secret::Secret;

/// The directory in which systemd puts what `LoadCredential=` names.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A reference to a secret, written `{file: PATH}`, `{env: NAME}` or `{credential: NAME}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// A file that no other user can read.
    File(PathBuf),
    /// A variable of this process's environment.
    Env(String),
    /// A credential that systemd hands over: a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl SecretRef {
    /// Fetches the secret.
    ///
    /// # Errors
    /// `secret_missing` if it is not there or empty, `file_permissions` if other users can read the file.
    pub fn resolve(&self) -> Result<Secret, Failure> {
        self.resolve_in(|name| std::env::var_os(name).and_then(|value| value.into_string().ok()))
    }

    fn resolve_in(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Secret, Failure> {
        let missing = |why: &str| Failure::new(Code::SecretMissing, format_args!("{self}: {why}"));
        let secret = match self {
            Self::File(path) => self.read(path)?,
            Self::Env(name) => Secret::new(&variable(name).ok_or_else(|| missing("the variable is not set"))?),
            Self::Credential(name) => {
                let directory = variable(CREDENTIALS_DIRECTORY).ok_or_else(|| {
                    missing("not started by systemd with LoadCredential= ($CREDENTIALS_DIRECTORY is not set)")
                })?;
                self.read(&Path::new(&directory).join(name))?
            }
        };
        if secret.expose().is_empty() { Err(missing("it is empty")) } else { Ok(secret) }
    }

    fn read(&self, path: &Path) -> Result<Secret, Failure> {
        let failed = |code, why: &dyn fmt::Display| Failure::new(code, format_args!("{self}: {why}"));
        let bytes = files::read_private(path).map_err(|failure| match failure.code {
            Code::FilePermissions => failed(Code::FilePermissions, &failure.detail),
            _ => failed(Code::SecretMissing, &failure.detail),
        })?;
        let bytes = zeroize::Zeroizing::new(bytes);
        std::str::from_utf8(&bytes).map(Secret::new).map_err(|_| failed(Code::SecretMissing, &"it is not text"))
    }

    pub(super) fn rebase(&mut self, directory: &Path) {
        if let Self::File(path) = self {
            super::rebase(path, directory);
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "secret {{file: {}}}", path.display()),
            Self::Env(name) => write!(f, "secret {{env: {name}}}"),
            Self::Credential(name) => write!(f, "secret {{credential: {name}}}"),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RefVisitor)
    }
}

/// Reads the reference; a plain value is taken for the secret itself and told without being shown.
struct RefVisitor;

const FORMS: &str = "a reference to the secret, not the secret itself: {file: PATH}, {env: NAME} or {credential: NAME}";

impl<'de> Visitor<'de> for RefVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        let Some((form, place)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::custom(format_args!("expected {FORMS}")));
        };
        let found = match form.as_str() {
            "file" => SecretRef::File(place.into()),
            "env" if is_variable(&place) => SecretRef::Env(place),
            "env" => return Err(de::Error::custom("the name of a variable has letters, digits and underscores only")),
            "credential" if is_credential(&place) => SecretRef::Credential(place),
            "credential" => {
                return Err(de::Error::custom("the name of a credential has letters, digits, `-`, `_` and `.` only"));
            }
            other => return Err(de::Error::unknown_field(other, &["file", "env", "credential"])),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("a reference to a secret has one key: file, env or credential"));
        }
        Ok(found)
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// No path: the file is one of systemd's, or none.
fn is_credential(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_variables_and_credentials_are_fetched_by_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        files::write_private(&dir.path().join("proxy"), b"from systemd\n").unwrap();
        let variable = |name: &str| match name {
            "PASSWORD" => Some("from the environment".to_owned()),
            CREDENTIALS_DIRECTORY => dir.path().to_str().map(str::to_owned),
            _ => None,
        };
        let fetch = |reference: SecretRef| reference.resolve_in(variable);
        assert_eq!(fetch(SecretRef::Env("PASSWORD".into())).unwrap().expose(), "from the environment");
        assert_eq!(fetch(SecretRef::Credential("proxy".into())).unwrap().expose(), "from systemd");
        assert_eq!(
            fetch(SecretRef::Env("OTHER".into())).unwrap_err().to_string(),
            "secret_missing: secret {env: OTHER}: the variable is not set"
        );
        assert_eq!(fetch(SecretRef::Credential("other".into())).unwrap_err().code, Code::SecretMissing);
        let outside = SecretRef::Credential("proxy".into()).resolve_in(|_| None).unwrap_err();
        assert_eq!(outside.code, Code::SecretMissing);
        for name in ["", "..", "../proxy", "a/b", ".hidden"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
