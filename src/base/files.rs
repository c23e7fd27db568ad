//! Files that must be trusted: reading secrets and configuration only if no other user could have written (or, for secrets, read)
//! them, and replacing secrets so that a crash leaves either the old or the new content. Refuses to know what is in them.
//!
//! All calls block. What is trusted: a regular file owned by this process's user or by root, in a directory that no other user
//! can change. The directories above that one are the site's own business.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::code::{Code, Failure, OrFail};
use super::limits::MAX_TRUSTED_FILE;

/// Reads a key or another secret. Symbolic links are not followed; a file of this process's user may have mode 0600 at most,
/// one of root's 0640 (as systemd hands over credentials).
///
/// # Errors
/// `state_missing` if there is no such file; `file_permissions` if another user could have read or written it, or it is no
/// regular file; `config_unreadable` if it cannot be read or has more than [`MAX_TRUSTED_FILE`] bytes.
pub fn read_private(path: &Path) -> Result<Vec<u8>, Failure> {
    let (file, metadata) = open_trusted(path, OFlags::NOFOLLOW)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    let excess = metadata.mode() & if own { 0o177 } else { 0o137 };
    if excess != 0 {
        return Err(untrusted(path, format_args!("has mode {:04o}: other users can reach a secret", metadata.mode() & 0o7777)));
    }
    read_limited(file, path)
}

/// Reads a configuration file or a certificate: anyone may read it, only its owner may write it. Symbolic links are followed.
///
/// # Errors
/// As [`read_private`].
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, Failure> {
    let (file, _) = open_trusted(path, OFlags::empty())?;
    read_limited(file, path)
}

/// Writes or replaces a secret with mode 0600, whatever the umask. After a crash at any point the file has either its old or its
/// new content; when this returns, the new one is on the disk.
///
/// # Errors
/// `file_permissions` if other users can change the directory; `state_unwritable` if the system refuses (disk full, read-only).
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let directory = directory_of(path);
    check_directory(directory)?;
    let what = || format!("cannot write {}", path.display());
    let mut new = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(PermissionsExt::from_mode(0o600))
        .tempfile_in(directory)
        .or_fail(Code::StateUnwritable, what())?;
    new.write_all(bytes).and_then(|()| new.as_file().sync_all()).or_fail(Code::StateUnwritable, what())?;
    new.persist(path).map_err(|refused| refused.error).or_fail(Code::StateUnwritable, what())?;
    sync_directory(directory)
}

/// Removes a file if it is there, durably.
///
/// # Errors
/// `state_unwritable` if the system refuses.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(Code::StateUnwritable, format_args!("cannot remove {}: {error}", path.display()))),
        Ok(()) => sync_directory(directory_of(path)),
    }
}

/// Makes a directory (and those above it) with mode 0700 if it is missing. One that exists is taken as it is if no other user can
/// change it.
///
/// # Errors
/// `file_permissions` if other users can change it; `state_unwritable` if it cannot be made.
pub fn create_private_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .or_fail(Code::StateUnwritable, format_args!("cannot make the directory {}", path.display()))?;
    check_directory(path)
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// `state_unwritable` if the system refuses.
pub fn sync_directory(path: &Path) -> Result<(), Failure> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .or_fail(Code::StateUnwritable, format_args!("cannot sync the directory {}", path.display()))
}

/// Opens a file and checks the handle, so that what was checked is what is read.
fn open_trusted(path: &Path, flags: OFlags) -> Result<(File, Metadata), Failure> {
    check_directory(directory_of(path))?;
    // Non-blocking, so that a FIFO in the place of a file cannot hold this process; regular files don't care.
    let flags = flags | OFlags::NONBLOCK;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(|e| unopened(path, &e))?;
    let metadata = file.metadata().map_err(|error| unopened(path, &error))?;
    if !metadata.is_file() {
        return Err(untrusted(path, "is no regular file"));
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & 0o022 != 0 {
        return Err(untrusted(path, format_args!("has mode {:04o}: other users can write it", metadata.mode() & 0o7777)));
    }
    Ok((file, metadata))
}

fn read_limited(file: File, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_TRUSTED_FILE as u64;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unopened(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(Code::ConfigUnreadable, format_args!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A directory is trusted if only its owner can change it, or if its sticky bit keeps others from replacing our entries.
fn check_directory(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| unopened(path, &error))?;
    if !metadata.is_dir() {
        return Err(untrusted(path, "is no directory"));
    }
    check_owner(path, &metadata)?;
    let sticky = metadata.mode() & 0o1000 != 0;
    if metadata.mode() & 0o022 != 0 && !sticky {
        return Err(untrusted(
            path,
            format_args!("has mode {:04o}: other users can replace what is in it", metadata.mode() & 0o7777),
        ));
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Failure> {
    let own = rustix::process::geteuid().as_raw();
    match metadata.uid() {
        0 => Ok(()),
        uid if uid == own => Ok(()),
        uid => Err(untrusted(path, format_args!("belongs to user {uid}, not to root or this process's user {own}"))),
    }
}

fn untrusted(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::FilePermissions, format_args!("{} {why}", path.display()))
}

fn unopened(path: &Path, error: &io::Error) -> Failure {
    let symlink = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error());
    match error.kind() {
        _ if exhausted => Failure::new(Code::OutOfDescriptors, format_args!("cannot read {}: {error}", path.display())),
        _ if symlink => untrusted(path, "is a symbolic link"),
        ErrorKind::NotFound => Failure::new(Code::StateMissing, format_args!("{} does not exist", path.display())),
        _ => Failure::new(Code::ConfigUnreadable, format_args!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn a_secret_is_replaced_whole_and_private() {
        let dir = directory();
        let path = dir.path().join("key");
        write_private(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(code(read_private(&path)), Code::StateMissing);
    }

    #[test]
    fn e11_a_secret_that_others_can_read_or_write_is_refused() {
        let dir = directory();
        let path = dir.path().join("key");
        write_private(&path, b"secret").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o666, 0o700] {
            chmod(&path, mode);
            assert_eq!(code(read_private(&path)), Code::FilePermissions, "{mode:o}");
        }
        for mode in [0o600, 0o400] {
            chmod(&path, mode);
            assert_eq!(read_private(&path).unwrap(), b"secret", "{mode:o}");
        }
    }

    #[test]
    fn e11_a_symlinked_secret_is_refused_and_replacing_it_leaves_what_it_names() {
        let dir = directory();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write_private(&real, b"real").unwrap();
        symlink(&real, &link).unwrap();
        assert_eq!(code(read_private(&link)), Code::FilePermissions);
        write_private(&link, b"new").unwrap();
        assert_eq!(read_private(&link).unwrap(), b"new");
        assert_eq!(read_private(&real).unwrap(), b"real");
    }

    #[test]
    fn e11_a_directory_that_others_can_change_is_refused() {
        let dir = directory();
        let path = dir.path().join("key");
        write_private(&path, b"secret").unwrap();
        for mode in [0o777, 0o770, 0o702] {
            chmod(dir.path(), mode);
            assert_eq!(code(read_private(&path)), Code::FilePermissions, "{mode:o}");
            assert_eq!(code(write_private(&path, b"x")), Code::FilePermissions, "{mode:o}");
            assert_eq!(code(read_trusted(&path).map(drop)), Code::FilePermissions, "{mode:o}");
            assert_eq!(code(create_private_dir(dir.path())), Code::FilePermissions, "{mode:o}");
        }
        chmod(dir.path(), 0o1777);
        assert_eq!(read_private(&path).unwrap(), b"secret");
    }

    #[test]
    fn e11_configuration_may_be_read_by_all_and_written_by_its_owner_alone() {
        let dir = directory();
        let path = dir.path().join("agent.yaml");
        std::fs::write(&path, "version: 1").unwrap();
        chmod(&path, 0o644);
        read_trusted(&path).unwrap();
        assert_eq!(read_trusted(&path).unwrap(), b"version: 1");
        for mode in [0o664, 0o646] {
            chmod(&path, mode);
            assert_eq!(code(read_trusted(&path).map(drop)), Code::FilePermissions, "{mode:o}");
            assert_eq!(code(read_trusted(&path)), Code::FilePermissions, "{mode:o}");
        }
    }

    #[test]
    fn a_fifo_or_a_directory_is_no_secret() {
        let dir = directory();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
            .unwrap();
        assert_eq!(code(read_private(&fifo)), Code::FilePermissions);
        let sub = dir.path().join("a/b");
        create_private_dir(&sub).unwrap();
        assert_eq!(std::fs::metadata(&sub).unwrap().mode() & 0o777, 0o700);
        assert_eq!(code(read_private(&sub)), Code::FilePermissions);
    }

    #[test]
    fn a_file_without_end_is_cut_off() {
        let dir = directory();
        let path = dir.path().join("key");
        write_private(&path, &vec![0; MAX_TRUSTED_FILE]).unwrap();
        read_private(&path).unwrap();
        write_private(&path, &vec![0; MAX_TRUSTED_FILE + 1]).unwrap();
        assert_eq!(code(read_private(&path)), Code::ConfigUnreadable);
    }
}
