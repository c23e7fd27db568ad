//! The tables, their version, and the way from each version to the next. Refuses to know what the rows are for.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Trouble, checksum};
use crate::base::code::{Code, Failure};
use crate::control::store::Revision;

/// Marks the file as ours (`Uprs`).
const APPLICATION: i32 = i32::from_be_bytes(*b"Uprs");

/// Step `n` brings a file of version `n` to version `n + 1`. Steps are never changed, only added.
type Migration = fn(&Transaction<'_>) -> Result<(), Trouble>;

const MIGRATIONS: &[Migration] = &[records, checksums, client_tokens, disabled];

/// The version that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Checks that the file is ours, sound and not newer, migrates it, and sets the connection up. Yields the latest revision.
pub(super) fn prepare(connection: &mut Connection) -> Result<Revision, Failure> {
    let version = version(connection)?;
    check(connection)?;
    set_up(connection).map_err(Trouble::from)?;
    if version < VERSION {
        migrate(connection, version)?;
    }
    super::verify(connection)?;
    let revision: i64 = connection.query_row("SELECT revision FROM clock", [], |row| row.get(0)).map_err(Trouble::from)?;
    Ok(Revision(revision.unsigned_abs()))
}

fn version(connection: &Connection) -> Result<usize, Failure> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).map_err(Trouble::from);
    let version = number("PRAGMA user_version")?;
    let ours = number("PRAGMA application_id")? == APPLICATION;
    let empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    match usize::try_from(version) {
        Ok(0) if empty => Ok(0),
        Ok(version @ 1..) if ours && version <= VERSION => Ok(version),
        Ok(1..) if ours => {
            let why = format_args!("its schema is of version {version}, and this program knows up to {VERSION}");
            Err(Failure::new(Code::StoreNewer, why))
        }
        _ => Err(Failure::new(Code::StoreFailed, "it is a database of something else")),
    }
}

/// Reads every page: what is damaged is found now and not in the middle of the work.
fn check(connection: &Connection) -> Result<(), Failure> {
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(Trouble::from)?;
    if verdict == "ok" { Ok(()) } else { Err(Failure::new(Code::StoreFailed, format_args!("it is damaged: {verdict}"))) }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    // In WAL mode NORMAL would lose the last commits in a power cut, after they were acknowledged.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)
}

fn migrate(connection: &mut Connection, from: usize) -> Result<(), Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[from..] {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", VERSION.to_string())?;
    Ok(transaction.commit()?)
}

/// Version 1: records with revisions.
fn records(transaction: &Transaction<'_>) -> Result<(), Trouble> {
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    Ok(transaction.execute_batch(
        "CREATE TABLE clock (revision INTEGER NOT NULL) STRICT;
         INSERT INTO clock VALUES (0);
         CREATE TABLE record (
             kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, id)
         ) STRICT, WITHOUT ROWID;",
    )?)
}

/// Version 2: each record carries a checksum.
fn checksums(transaction: &Transaction<'_>) -> Result<(), Trouble> {
    transaction.execute_batch("ALTER TABLE record ADD COLUMN sum BLOB NOT NULL DEFAULT x''")?;
    let mut rows = transaction.prepare("SELECT kind, id, revision, value FROM record")?;
    let rows = rows.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, Vec<u8>>(3)?))
    })?;
    for (kind, id, revision, value) in rows.collect::<Result<Vec<_>, _>>()? {
        let sum = checksum(&kind, &id, revision, &value);
        transaction.execute("UPDATE record SET sum = ?3 WHERE kind = ?1 AND id = ?2", (kind, id, sum))?;
    }
    Ok(())
}

/// Version 3: there may be records of client tokens, a kind that programs of version 2 take for damage.
fn client_tokens(_: &Transaction<'_>) -> Result<(), Trouble> {
    Ok(())
}

/// Version 4: there may be records of who is disabled, as in version 3.
fn disabled(_: &Transaction<'_>) -> Result<(), Trouble> {
    Ok(())
}
