//! The audit's files: appended to, rotated by size, capped, mended. Owns their names and their room.
//! Refuses to know what a row says.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{AuditSettings, OnFull};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::{files, limits};
use crate::observe::metrics;

const ACTIVE: &str = "audit.jsonl";

/// Sorts by name as by time.
const STAMP: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z");

/// How often a full audit looks whether somebody has made room.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often is looked whether the active file is still at its path: for each row it would be a quarter of the row's cost.
const FOLLOW: Duration = Duration::from_millis(100);

/// The active file and the rotated ones before it.
pub(super) struct Trail {
    dir: PathBuf,
    active: PathBuf,
    file: File,
    /// Bytes of the active file; they end with a line feed unless `torn`.
    size: u64,
    torn: bool,
    /// Oldest first, with their bytes.
    rotated: VecDeque<(PathBuf, u64)>,
    max_size: u64,
    on_full: OnFull,
    looked: Instant,
    /// Rows that wait to be written together, and when such were written last.
    held: Vec<u8>,
    released: Option<Instant>,
    /// When the active file was last seen at its path.
    followed: Option<Instant>,
    failing: bool,
}

impl Trail {
    pub(super) fn open(settings: &AuditSettings, now: Instant) -> Result<Self, Failure> {
        let dir = settings.dir.clone();
        files::create_private_dir(&dir).map_err(|failure| failure.context("audit"))?;
        let active = dir.join(ACTIVE);
        let what = format!("audit {}", active.display());
        let (file, size) = open_active(&active).or_fail(Code::AuditFull, &what)?;
        let rotated = list_rotated(&dir).or_fail(Code::AuditFull, &what)?;
        let AuditSettings { max_size, on_full, .. } = *settings;
        Ok(Self {
            dir,
            active,
            file,
            size,
            torn: false,
            rotated,
            max_size,
            on_full,
            looked: now,
            held: Vec::new(),
            released: None,
            followed: None,
            failing: false,
        })
    }

    /// Writes one row, which ends with its line feed, behind those that were held; all of it or nothing.
    pub(super) fn append(&mut self, row: &[u8], now: Instant) -> Result<(), Failure> {
        self.release(now)?;
        self.write_rows(row, now)
    }

    /// Keeps a row until others are written with it: at the latest when somebody releases them. One that comes long after the last is
    /// written at once.
    pub(super) fn hold(&mut self, row: &[u8], now: Instant) -> Result<(), Failure> {
        if self.held.len() + row.len() > limits::AUDIT_HELD {
            self.release(now)?;
        }
        self.held.extend_from_slice(row);
        if self.failing || self.released.is_none_or(|at| now.saturating_duration_since(at) >= limits::AUDIT_HOLD) {
            self.release(now)?;
        }
        Ok(())
    }

    /// Whether rows are held.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Writes the rows that were held. Those for which there is no room go on waiting for it.
    pub(super) fn release(&mut self, now: Instant) -> Result<(), Failure> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.released = Some(now);
        let mut held = std::mem::take(&mut self.held);
        let written = self.write_rows(&held, now);
        if written.is_ok() {
            held.clear();
        }
        self.held = held;
        written
    }

    fn write_rows(&mut self, row: &[u8], now: Instant) -> Result<(), Failure> {
        match self.try_append(row, now) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(dir = %self.dir.display(), "the audit is written again");
                }
                Ok(())
            }
            Err(error) => self.could_not(&error),
        }
    }

    /// Fails while the last row could not be written and that matters.
    pub(super) fn ready(&self) -> Result<(), Failure> {
        if self.failing && self.on_full == OnFull::Refuse {
            return Err(Failure::new(Code::AuditFull, format_args!("{} could not be written", self.active.display())));
        }
        Ok(())
    }

    /// Whether what is left should be kept for the rows of those who have proved who they are. Where old files give way
    /// anyway, never.
    pub(super) fn is_half_full(&self) -> bool {
        self.on_full == OnFull::Refuse && self.total() > self.max_size / 2
    }

    fn try_append(&mut self, row: &[u8], now: Instant) -> io::Result<()> {
        let length = row.len() as u64;
        if self.is_full(length) || self.followed.is_none_or(|at| now.saturating_duration_since(at) >= FOLLOW) {
            self.follow_path()?;
            self.followed = Some(now);
        }
        if self.is_full(length) {
            self.rotate()?;
        }
        self.make_room(length, now)?;
        self.write(row)
    }

    fn is_full(&self, length: u64) -> bool {
        self.size > 0 && self.size + length > self.max_size / limits::AUDIT_FILES
    }

    /// One `write`, so that a row is there as a whole before the caller goes on. What a full disk cut off is taken back.
    fn write(&mut self, row: &[u8]) -> io::Result<()> {
        if self.torn {
            // The piece that could not be taken back ends here, as a line of its own.
            self.file.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        let written = loop {
            match self.file.write(row) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if written == row.len() {
            self.size += written as u64;
            return Ok(());
        }
        if self.file.set_len(self.size).is_err() {
            self.torn = true;
            self.size += written as u64;
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Somebody may have moved or removed the active file; rows must not go to a file that nobody can find.
    fn follow_path(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        match fs::symlink_metadata(&self.active) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            _ => self.reopen(),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open_active(&self.active)?;
        self.torn = false;
        self.rotated = list_rotated(&self.dir)?;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut time = OffsetDateTime::now_utc();
        let target = loop {
            let stamp = time.format(STAMP).map_err(io::Error::other)?;
            let path = self.dir.join(format!("audit-{stamp}.jsonl"));
            if !path.exists() {
                break path;
            }
            time += Duration::from_micros(1);
        };
        fs::rename(&self.active, &target)?;
        self.reopen()
    }

    fn make_room(&mut self, length: u64, now: Instant) -> io::Result<()> {
        if self.has_room(length) {
            return Ok(());
        }
        if self.on_full == OnFull::Refuse {
            if now.saturating_duration_since(self.looked) >= LOOK_AGAIN {
                self.looked = now;
                self.rotated = list_rotated(&self.dir)?;
            }
        } else {
            while !self.has_room(length)
                && let Some((oldest, _)) = self.rotated.pop_front()
            {
                fs::remove_file(&oldest)?;
                metrics::audit_file_deleted();
            }
        }
        if self.has_room(length) {
            Ok(())
        } else {
            Err(io::Error::other(format!("{} of its {} bytes are used", self.total(), self.max_size)))
        }
    }

    fn has_room(&self, length: u64) -> bool {
        self.total() + length <= self.max_size
    }

    fn total(&self) -> u64 {
        self.size + self.rotated.iter().map(|(_, size)| size).sum::<u64>()
    }

    fn could_not(&mut self, error: &io::Error) -> Result<(), Failure> {
        let failure = Failure::new(Code::AuditFull, format_args!("audit {}: {error}", self.active.display()));
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(code = %failure.code, on_full = ?self.on_full, "{}", failure.detail);
        }
        match self.on_full {
            OnFull::Refuse => Err(failure),
            OnFull::Drop => {
                metrics::audit_dropped();
                Ok(())
            }
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.release(Instant::now());
    }
}

/// Opens or makes the active file and cuts off a last row without its end, which a crash has left and nobody was told of.
fn open_active(path: &Path) -> io::Result<(File, u64)> {
    // Non-blocking, so that a FIFO in the file's place cannot hold this process; regular files don't care.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    let size = file.metadata()?.len();
    let whole = end_of_last_row(&mut file, size)?;
    if whole < size {
        file.set_len(whole)?;
        tracing::warn!(file = %path.display(), bytes = size - whole, "removed an audit row without its end");
    }
    Ok((file, whole))
}

fn end_of_last_row(file: &mut File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).map_err(io::Error::other)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn list_rotated(dir: &Path) -> io::Result<VecDeque<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with("audit-") && name.ends_with(".jsonl"));
        // One that vanishes meanwhile takes no room.
        if ours
            && let Ok(there) = entry.metadata()
            && there.is_file()
        {
            files.push((entry.path(), there.len()));
        }
    }
    files.sort();
    Ok(files.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f28_a_full_disk_loses_the_row_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let settings = AuditSettings { dir: dir.path().join("audit"), max_size: 1 << 20, on_full: OnFull::Refuse };
        let now = Instant::now();
        let mut trail = Trail::open(&settings, now).unwrap();
        trail.append(b"one\n", now).unwrap();

        let disk = std::mem::replace(&mut trail.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        let error = trail.write(b"two\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(trail.could_not(&error).unwrap_err().code, Code::AuditFull);
        trail.file = disk;
        trail.append(b"three\n", now).unwrap();
        assert_eq!(fs::read_to_string(&trail.active).unwrap(), "one\nthree\n");

        // A piece that could not be taken back is a line of its own, not the beginning of the next row.
        trail.file.write_all(b"pie").unwrap();
        trail.torn = true;
        trail.append(b"four\n", now).unwrap();
        assert_eq!(fs::read_to_string(&trail.active).unwrap(), "one\nthree\npie\nfour\n");
    }
}
