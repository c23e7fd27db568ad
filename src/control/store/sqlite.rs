//! The store in one SQLite file: one thread owns the connection, many commits share one sync to the disk. Refuses to know what
//! the records mean.
//!
//! The file is private (0600) and used by one process at a time; support staff may read it with `sqlite3` meanwhile. Each row
//! carries a checksum, so that a damaged page is an error and never a wrong answer.

mod schema;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Answer, CommitError, Entry, Expect, Key, Kind, Revision, Store, Write};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::{files, limits};

/// The store in a file. Dropping it finishes what was asked and closes the file.
pub struct Sqlite {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    changes: Arc<Changes>,
}

impl Sqlite {
    /// Opens the file, making it if need be and bringing its schema up to date. Blocks on the disk.
    ///
    /// # Errors
    /// `store_newer` for a file of a newer version, `file_permissions` if others may read it, and `store_failed` if another
    /// process uses it, or it is damaged or no database of ours, with what SQLite said. Nothing is changed then.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_waiting(path, limits::STORE_BUSY)
    }

    fn open_waiting(path: &Path, busy: Duration) -> Result<Self, Failure> {
        let path = resolved(path)?;
        let lock = lock(&path)?;
        create_private(&path)?;
        let mut connection = connect(&path, busy)?;
        let latest = schema::prepare(&mut connection).map_err(|failure| failure.context(path.display()))?;
        let changes = Arc::new(Changes::starting_at(latest));
        let (jobs, inbox) = mpsc::channel(limits::STORE_QUEUE);
        let writer = Writer { connection, changes: Arc::clone(&changes), path, _lock: lock };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || writer.run(inbox));
        Ok(Self { jobs: Some(jobs), thread: Some(thread.or_fail(Code::Internal, "the store's thread")?), changes })
    }

    async fn ask<T, E: From<Failure>>(&self, job: impl FnOnce(Reply<T, E>) -> Job) -> Result<T, E> {
        let ended = || Failure::new(Code::StoreFailed, "the store's thread has ended");
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Store for Sqlite {
    fn get(&self, key: Key) -> Answer<'_, Option<Entry>> {
        Box::pin(self.ask(|reply| Job::Get(key, reply)))
    }

    fn list(&self, kind: Kind) -> Answer<'_, Vec<Entry>> {
        Box::pin(self.ask(move |reply| Job::List(kind, reply)))
    }

    fn commit(&self, batch: Vec<Write>) -> Answer<'_, Revision, CommitError> {
        Box::pin(async move {
            if let Some(write) = batch.iter().find(|write| write.value.as_ref().is_some_and(|v| v.len() > limits::MAX_RECORD)) {
                return Err(Failure::new(Code::StoreFailed, format_args!("{} is too large to be kept", write.key)).into());
            }
            self.ask(|reply| Job::Commit(batch, reply)).await
        })
    }

    fn watch(&self, kind: Kind) -> watch::Receiver<Revision> {
        self.changes.of(kind).subscribe()
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened, and every answer since then was an error.
            let _ = thread.join();
        }
    }
}

/// Tells watchers which kinds changed.
struct Changes([watch::Sender<Revision>; Kind::ALL.len()]);

impl Changes {
    fn starting_at(revision: Revision) -> Self {
        Self(std::array::from_fn(|_| watch::Sender::new(revision)))
    }

    fn of(&self, kind: Kind) -> &watch::Sender<Revision> {
        &self.0[kind as usize]
    }
}

type Reply<T, E = Failure> = oneshot::Sender<Result<T, E>>;

enum Job {
    Get(Key, Reply<Option<Entry>>),
    List(Kind, Reply<Vec<Entry>>),
    Commit(Vec<Write>, Reply<Revision, CommitError>),
}

/// Owns the connection, on its own thread.
struct Writer {
    connection: Connection,
    changes: Arc<Changes>,
    path: PathBuf,
    _lock: File,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(limits::STORE_QUEUE);
        while inbox.blocking_recv_many(&mut jobs, limits::STORE_QUEUE) > 0 {
            self.turn(std::mem::take(&mut jobs));
        }
    }

    /// Does all the jobs in one transaction, then answers them: however many commits, one sync.
    fn turn(&mut self, jobs: Vec<Job>) {
        let writes = jobs.iter().any(|job| matches!(job, Job::Commit(..)));
        let mut jobs = jobs.into_iter();
        let mut done = Done::default();
        let committed = transact(&mut self.connection, writes, &mut jobs, &mut done);
        let committed = committed.or_fail(Code::StoreFailed, self.path.display());
        done.answers.extend(jobs.map(not_done));
        if committed.is_ok() {
            for (kind, revision) in done.changed {
                self.changes.of(kind).send_replace(revision);
            }
        }
        for answer in done.answers {
            answer(committed.clone());
        }
    }
}

/// What a turn has done so far; it counts only if its transaction is committed.
#[derive(Default)]
struct Done {
    answers: Vec<Pending>,
    changed: Vec<(Kind, Revision)>,
}

/// An answer that is sent when it is known whether what it rests on was committed.
type Pending = Box<dyn FnOnce(Result<(), Failure>)>;

fn pending<T: 'static, E: From<Failure> + 'static>(reply: Reply<T, E>, outcome: Result<T, E>) -> Pending {
    // Nobody may be waiting any more: the asker was cancelled.
    Box::new(move |committed| drop(reply.send(committed.map_err(E::from).and(outcome))))
}

fn not_done(job: Job) -> Pending {
    let why = Failure::new(Code::StoreFailed, "another operation failed");
    match job {
        Job::Get(_, reply) => pending(reply, Err(why)),
        Job::List(_, reply) => pending(reply, Err(why)),
        Job::Commit(_, reply) => pending(reply, Err(why.into())),
    }
}

fn transact(
    connection: &mut Connection,
    writes: bool,
    jobs: &mut impl Iterator<Item = Job>,
    done: &mut Done,
) -> Result<(), Trouble> {
    // A reader takes no write lock, so that reads go on while another process holds it.
    let behavior = if writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
    let transaction = connection.transaction_with_behavior(behavior)?;
    for job in jobs {
        match job {
            Job::Get(key, reply) => done.answers.push(pending(reply, get(&transaction, &key).map_err(Failure::from))),
            Job::List(kind, reply) => done.answers.push(pending(reply, list(&transaction, kind).map_err(Failure::from))),
            Job::Commit(batch, reply) => {
                let outcome = apply(&transaction, &batch);
                if let Err(ApplyError::Failed(trouble)) = outcome {
                    done.answers.push(not_done(Job::Commit(batch, reply)));
                    return Err(trouble);
                }
                if let Ok(revision) = outcome {
                    done.changed.extend(batch.iter().map(|write| (write.key.kind, revision)));
                }
                done.answers.push(pending(reply, outcome.map_err(CommitError::from)));
            }
        }
    }
    Ok(transaction.commit()?)
}

fn get(transaction: &Transaction<'_>, key: &Key) -> Result<Option<Entry>, Trouble> {
    let mut statement =
        transaction.prepare_cached("SELECT id, revision, value, sum FROM record WHERE kind = ?1 AND id = ?2")?;
    let row = statement.query_row(params![key.kind.as_str(), key.id], StoredRow::read).optional()?;
    row.map(|row| row.checked(key.kind)).transpose()
}

fn list(transaction: &Transaction<'_>, kind: Kind) -> Result<Vec<Entry>, Trouble> {
    let mut statement =
        transaction.prepare_cached("SELECT id, revision, value, sum FROM record WHERE kind = ?1 ORDER BY id")?;
    let rows = statement.query_map(params![kind.as_str()], StoredRow::read)?;
    rows.map(|row| row?.checked(kind)).collect()
}

/// Reads every row, also those that damage has moved to a kind that nobody asks for.
fn verify(connection: &Connection) -> Result<(), Trouble> {
    let mut statement = connection.prepare("SELECT id, revision, value, sum, kind FROM record")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(4)?;
        match Kind::ALL.into_iter().find(|known| known.as_str() == kind) {
            Some(kind) => StoredRow::read(row)?.checked(kind)?,
            None => return Err(Trouble::Kind(kind)),
        };
    }
    Ok(())
}

/// Checks every expectation before the first change, so that a conflict needs no undoing.
fn apply(transaction: &Transaction<'_>, batch: &[Write]) -> Result<Revision, ApplyError> {
    for write in batch {
        let now = get(transaction, &write.key)?.map(|entry| entry.revision);
        let holds = match write.expect {
            Expect::Anything => true,
            Expect::Absent => now.is_none(),
            Expect::At(revision) => now == Some(revision),
        };
        if !holds {
            return Err(ApplyError::Conflict(write.key.clone()));
        }
    }
    let mut clock = transaction.prepare_cached("UPDATE clock SET revision = revision + 1 RETURNING revision")?;
    let revision: i64 = clock.query_row([], |row| row.get(0))?;
    for Write { key, value, .. } in batch {
        match value {
            Some(value) => {
                let mut put = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO record (kind, id, revision, value, sum) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                let sum = checksum(key.kind.as_str(), &key.id, revision, value);
                put.execute(params![key.kind.as_str(), key.id, revision, value, sum])?;
            }
            None => {
                let mut delete = transaction.prepare_cached("DELETE FROM record WHERE kind = ?1 AND id = ?2")?;
                delete.execute(params![key.kind.as_str(), key.id])?;
            }
        }
    }
    Ok(Revision(revision.unsigned_abs()))
}

/// A row as it lies in the file, not yet trusted.
struct StoredRow {
    id: String,
    revision: i64,
    value: Vec<u8>,
    sum: Vec<u8>,
}

impl StoredRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get(0)?, revision: row.get(1)?, value: row.get(2)?, sum: row.get(3)? })
    }

    fn checked(self, kind: Kind) -> Result<Entry, Trouble> {
        if self.sum != checksum(kind.as_str(), &self.id, self.revision, &self.value) {
            return Err(Trouble::Damaged(Key::new(kind, self.id)));
        }
        Ok(Entry { id: self.id, revision: Revision(self.revision.unsigned_abs()), value: self.value })
    }
}

fn checksum(kind: &str, id: &str, revision: i64, value: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [kind.as_bytes(), &[0], id.as_bytes(), &[0], &revision.to_be_bytes(), value] {
        context.update(part);
    }
    context.finish().as_ref()[..8].to_vec()
}

/// What goes wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the record `{0}` is damaged: its checksum does not match")]
    Damaged(Key),
    #[error("there is a record of the unknown kind `{0}`")]
    Kind(String),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::new(Code::StoreFailed, trouble)
    }
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("{0} was changed meanwhile")]
    Conflict(Key),
    #[error(transparent)]
    Failed(#[from] Trouble),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApplyError> for CommitError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflict(key) => Self::Conflict(key),
            ApplyError::Failed(trouble) => Self::Failed(trouble.into()),
        }
    }
}

/// Links on the way to the directory are the operator's business (systemd makes some); the file itself must be none.
fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    let (parent, name) = path
        .parent()
        .zip(path.file_name())
        .ok_or_else(|| Failure::new(Code::StoreFailed, format_args!("`{}` is no path of a file", path.display())))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = parent.canonicalize().or_fail(Code::StoreFailed, parent.display())?;
    files::create_private_dir(&parent)?;
    Ok(parent.join(name))
}

/// Keeps other processes away. Not a lock on the database file itself: closing a second handle of that would drop SQLite's own.
fn lock(path: &Path) -> Result<File, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
    let lock = lock.or_fail(Code::StoreFailed, Path::new(&name).display())?;
    lock.try_lock().or_fail(Code::StoreFailed, format_args!("another process uses {}", path.display()))?;
    Ok(lock)
}

fn create_private(path: &Path) -> Result<(), Failure> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        // SQLite makes the file's content durable; that the file is there, its maker must.
        Ok(_) => return path.parent().map_or(Ok(()), files::sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).or_fail(Code::StoreFailed, path.display()),
    }
    let meta = path.symlink_metadata().or_fail(Code::StoreFailed, path.display())?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        let why = format_args!("{} is not a file that only its owner may read", path.display());
        return Err(Failure::new(Code::FilePermissions, why));
    }
    Ok(())
}

fn connect(path: &Path, busy: Duration) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).or_fail(Code::StoreFailed, path.display())?;
    connection.busy_timeout(busy).or_fail(Code::StoreFailed, path.display())?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
