//! What the file promises: durable answers, conflicts, one process at a time, old and new schemas, damage found.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn key(id: &str) -> Key {
    Key::new(Kind::Tenant, id)
}

fn put(id: &str, expect: Expect, value: &str) -> Write {
    Write { key: key(id), expect, value: Some(value.into()) }
}

fn conflict(id: &str) -> CommitError {
    CommitError::Conflict(key(id))
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("store.sqlite")
    }

    fn open(&self) -> Sqlite {
        Sqlite::open_waiting(&self.file(), Duration::ZERO).unwrap()
    }

    fn refused(&self) -> Failure {
        Sqlite::open_waiting(&self.file(), Duration::ZERO).err().expect("it must not open")
    }

    fn raw(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}

async fn value(store: &Sqlite, id: &str) -> Option<String> {
    store.get(key(id)).await.unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

#[tokio::test]
async fn records_are_there_after_reopening() {
    let dir = Dir::new();
    let store = dir.open();
    let first = store.commit(vec![put("a", Expect::Absent, "1"), put("b", Expect::Absent, "2")]).await.unwrap();
    let second = store.commit(vec![put("c", Expect::Anything, "3")]).await.unwrap();
    assert!(second > first);
    drop(store);

    let store = dir.open();
    let entries = store.list(Kind::Tenant).await.unwrap();
    let seen: Vec<_> = entries.iter().map(|entry| (entry.id.as_str(), entry.revision, entry.value.as_slice())).collect();
    assert_eq!(seen, [("a", first, &b"1"[..]), ("b", first, b"2"), ("c", second, b"3")]);
    assert!(store.list(Kind::Agent).await.unwrap().is_empty(), "kinds are apart");
    assert_eq!(*store.watch(Kind::Tenant).borrow(), second);
    assert!(store.commit(vec![put("d", Expect::Absent, "4")]).await.unwrap() > second, "revisions go on");
}

#[tokio::test]
async fn an_answered_commit_survives_a_crash() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "kept")]).await.unwrap();
    // What lies on the disk at this moment is what a killed process leaves: no checkpoint, nothing closed.
    let left = Dir::new();
    for name in ["store.sqlite", "store.sqlite-wal"] {
        std::fs::copy(dir.0.path().join(name), left.0.path().join(name)).unwrap();
    }
    assert_eq!(value(&left.open(), "a").await.as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_torn_commit_leaves_all_before_it() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    let whole = std::fs::metadata(dir.0.path().join("store.sqlite-wal")).unwrap().len();
    store.commit(vec![put("b", Expect::Absent, &"2".repeat(9000)), put("c", Expect::Absent, "3")]).await.unwrap();
    let wal = std::fs::read(dir.0.path().join("store.sqlite-wal")).unwrap();
    for cut in [whole + 1, whole + 4096, u64::try_from(wal.len()).unwrap() - 1] {
        let left = Dir::new();
        std::fs::copy(dir.file(), left.file()).unwrap();
        std::fs::write(left.0.path().join("store.sqlite-wal"), &wal[..usize::try_from(cut).unwrap()]).unwrap();
        let left_store = left.open();
        assert_eq!(value(&left_store, "a").await.as_deref(), Some("1"));
        assert_eq!((value(&left_store, "b").await, value(&left_store, "c").await), (None, None), "all or nothing");
    }
}

#[tokio::test]
async fn a_batch_is_made_whole_or_not_at_all() {
    let dir = Dir::new();
    let store = dir.open();
    let at = store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    let batch = vec![put("b", Expect::Absent, "2"), put("a", Expect::Absent, "3")];
    assert_eq!(store.commit(batch).await.unwrap_err(), conflict("a"));
    assert_eq!(value(&store, "b").await, None);

    assert_eq!(store.commit(vec![put("none", Expect::At(at), "1")]).await.unwrap_err(), conflict("none"));
    let later = store.commit(vec![put("a", Expect::At(at), "2")]).await.unwrap();
    assert_eq!(store.commit(vec![put("a", Expect::At(at), "3")]).await.unwrap_err(), conflict("a"));
    assert_eq!(value(&store, "a").await.as_deref(), Some("2"));

    store.commit(vec![Write { key: key("a"), expect: Expect::At(later), value: None }]).await.unwrap();
    assert_eq!(value(&store, "a").await, None);
    let again = store.commit(vec![put("a", Expect::Absent, "4")]).await.unwrap();
    assert!(again > later, "a record made again is told apart from the one deleted");
}

#[tokio::test]
async fn of_two_racing_writers_one_wins() {
    let dir = Dir::new();
    let store = dir.open();
    let mut at = store.commit(vec![put("a", Expect::Absent, "0")]).await.unwrap();
    for _ in 0..50 {
        let (one, two) = tokio::join!(
            store.commit(vec![put("a", Expect::At(at), "one")]),
            store.commit(vec![put("a", Expect::At(at), "two")])
        );
        let (winner, revision, loser) = match (one, two) {
            (Ok(revision), Err(error)) => ("one", revision, error),
            (Err(error), Ok(revision)) => ("two", revision, error),
            other => panic!("one must win: {other:?}"),
        };
        assert_eq!(loser, conflict("a"));
        assert_eq!(value(&store, "a").await.as_deref(), Some(winner));
        at = revision;
    }
}

#[tokio::test]
async fn a_watch_shows_changes_of_its_kind_alone() {
    let dir = Dir::new();
    let store = dir.open();
    let mut tenants = store.watch(Kind::Tenant);
    let agents = store.watch(Kind::Agent);
    let at = store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    tenants.changed().await.unwrap();
    assert_eq!(*tenants.borrow_and_update(), at);
    store.commit(vec![put("a", Expect::Absent, "2")]).await.unwrap_err();
    assert!(!tenants.has_changed().unwrap() && !agents.has_changed().unwrap());
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = Dir::new();
    drop(dir.open());
    dir.raw().pragma_update(None, "user_version", i32::try_from(schema::VERSION).unwrap() + 1).unwrap();
    let before = std::fs::read(dir.file()).unwrap();
    let failure = dir.refused();
    assert_eq!(failure.code, Code::StoreNewer);
    assert!(failure.detail.contains("version 5") && failure.detail.contains("up to 4"), "{failure}");
    assert_eq!(std::fs::read(dir.file()).unwrap(), before);
}

#[test]
fn a_database_of_something_else_is_refused_and_left_alone() {
    let dir = Dir::new();
    create_private(&dir.file()).unwrap();
    dir.raw().execute_batch("CREATE TABLE customer (name TEXT); INSERT INTO customer VALUES ('x')").unwrap();
    let before = std::fs::read(dir.file()).unwrap();
    assert_eq!(dir.refused().code, Code::StoreFailed);
    dir.raw().pragma_update(None, "user_version", 1).unwrap();
    assert!(dir.refused().detail.contains("something else"));
    dir.raw().pragma_update(None, "user_version", 0).unwrap();
    assert_eq!(std::fs::read(dir.file()).unwrap().len(), before.len());
    assert_eq!(dir.raw().query_row("SELECT name FROM customer", [], |row| row.get::<_, String>(0)).unwrap(), "x");
}

#[tokio::test]
async fn a_file_of_version_1_is_migrated() {
    let dir = Dir::new();
    create_private(&dir.file()).unwrap();
    dir.raw()
        .execute_batch(&format!(
            "PRAGMA application_id = {}; PRAGMA user_version = 1;
             CREATE TABLE clock (revision INTEGER NOT NULL) STRICT; INSERT INTO clock VALUES (7);
             CREATE TABLE record (
                 kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, id)
             ) STRICT, WITHOUT ROWID;
             INSERT INTO record VALUES ('tenant', 'acme', 7, CAST('{{}}' AS BLOB)), ('group', 'acme/dc1', 6, x'00');",
            i32::from_be_bytes(*b"Uprs")
        ))
        .unwrap();
    let store = dir.open();
    let entry = store.get(key("acme")).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.value.as_slice()), (Revision(7), &b"{}"[..]));
    assert_eq!(store.list(Kind::Group).await.unwrap()[0].value, [0]);
    assert_eq!(store.commit(vec![put("acme", Expect::At(Revision(7)), "[]")]).await.unwrap(), Revision(8));
    drop(store);
    assert_eq!(dir.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap(), 4);
    assert_eq!(value(&dir.open(), "acme").await.as_deref(), Some("[]"));
}

#[tokio::test]
async fn a_file_of_version_2_is_taken_as_it_is_and_then_takes_client_tokens() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    drop(store);
    dir.raw().pragma_update(None, "user_version", 2).unwrap();
    let store = dir.open();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    let token = Write { key: Key::new(Kind::ClientToken, "ci"), expect: Expect::Absent, value: Some(b"{}".to_vec()) };
    store.commit(vec![token]).await.unwrap();
    drop(store);
    assert_eq!(dir.open().list(Kind::ClientToken).await.unwrap().len(), 1);
    let version = dir.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap();
    assert_eq!(version, 4, "an older program says `store_newer` from now on");
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let dir = Dir::new();
    create_private(&dir.file()).unwrap();
    let version_1_without_its_table = format!(
        "PRAGMA application_id = {}; PRAGMA user_version = 1; CREATE TABLE clock (revision INTEGER NOT NULL) STRICT;",
        i32::from_be_bytes(*b"Uprs")
    );
    dir.raw().execute_batch(&version_1_without_its_table).unwrap();
    let failure = dir.refused();
    assert_eq!(failure.code, Code::StoreFailed);
    assert!(failure.detail.contains("no such table"), "it says what SQLite said: {failure}");
    assert_eq!(dir.raw().query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap(), 1);
}

#[tokio::test]
async fn f36_damage_is_an_error_and_never_a_wrong_answer() {
    let dir = Dir::new();
    let store = dir.open();
    for n in 0..200 {
        store.commit(vec![put(&format!("t{n}"), Expect::Absent, &"x".repeat(200))]).await.unwrap();
    }
    drop(store);
    let good = std::fs::read(dir.file()).unwrap();
    for at in (0..good.len()).step_by(211) {
        let mut bad = good.clone();
        let end = bad.len().min(at + 8);
        bad[at..end].fill(0x75);
        std::fs::write(dir.file(), &bad).unwrap();
        match Sqlite::open(&dir.file()) {
            Err(failure) => assert_eq!(failure.code, Code::StoreFailed, "{failure}"),
            Ok(store) => match store.list(Kind::Tenant).await {
                Err(failure) => assert_eq!(failure.code, Code::StoreFailed, "{failure}"),
                Ok(entries) => {
                    assert_eq!(entries.len(), 200, "noise at {at}");
                    assert!(entries.iter().all(|entry| entry.value == "x".repeat(200).as_bytes()), "noise at {at}");
                }
            },
        }
    }
    std::fs::write(dir.file(), "not a database at all, but long enough to look like something that might be one".repeat(50))
        .unwrap();
    assert!(dir.refused().detail.contains("not a database"));
    std::fs::write(dir.file(), &good[..good.len() / 2]).unwrap();
    assert_eq!(dir.refused().code, Code::StoreFailed);
}

#[tokio::test]
async fn f36_one_damaged_record_fails_alone() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "1"), put("b", Expect::Absent, "2")]).await.unwrap();
    dir.raw().execute("UPDATE record SET value = x'33' WHERE id = 'a'", []).unwrap();
    let failure = store.get(key("a")).await.unwrap_err();
    assert_eq!(failure.code, Code::StoreFailed);
    assert!(failure.detail.contains("`tenant a` is damaged"), "{failure}");
    assert_eq!(value(&store, "b").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_database_held_by_somebody_else_is_an_error_that_passes() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    let other = dir.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let Err(CommitError::Failed(failure)) = store.commit(vec![put("b", Expect::Absent, "2")]).await else {
        panic!("it was committed past somebody's lock")
    };
    assert_eq!(failure.code, Code::StoreFailed);
    assert!(failure.detail.contains("locked"), "it says what SQLite said: {failure}");
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"), "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(vec![put("b", Expect::Absent, "2")]).await.unwrap();
}

#[test]
fn a_second_process_is_refused_until_the_first_has_ended() {
    let dir = Dir::new();
    let first = dir.open();
    let failure = dir.refused();
    assert_eq!(failure.code, Code::StoreFailed);
    assert!(failure.detail.contains("another process"), "{failure}");
    drop(first);
    drop(dir.open());
}

#[tokio::test]
async fn e11_the_files_are_private() {
    let dir = Dir::new();
    let store = dir.open();
    store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    for file in std::fs::read_dir(dir.0.path()).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{}", file.path().display());
    }
    drop(store);
    std::fs::set_permissions(dir.file(), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(dir.refused().code, Code::FilePermissions);
}

#[test]
fn e11_a_symbolic_link_in_place_of_the_file_is_refused() {
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    drop(elsewhere.open());
    std::os::unix::fs::symlink(elsewhere.file(), dir.file()).unwrap();
    assert_eq!(dir.refused().code, Code::FilePermissions);
    std::fs::remove_file(dir.file()).unwrap();
    std::os::unix::fs::symlink(elsewhere.0.path().join("absent"), dir.file()).unwrap();
    assert_eq!(dir.refused().code, Code::FilePermissions);
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_and_harms_no_other() {
    let dir = Dir::new();
    let store = dir.open();
    let large = "x".repeat(limits::MAX_RECORD + 1);
    let (large, small) =
        tokio::join!(store.commit(vec![put("a", Expect::Absent, &large)]), store.commit(vec![put("b", Expect::Absent, "1")]));
    assert!(matches!(large, Err(CommitError::Failed(failure)) if failure.detail.contains("too large")));
    small.unwrap();
}
