//! redb's database over a file of the file-system port, opened again after an error that leaves no byte in doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend};
use siltstone_common::fs::{File, is_full};

use super::{CACHE_BYTES, META, REVISION};

/// The database; its file is locked by the owner.
#[derive(Debug)]
pub(super) struct FileDatabase {
    opened: RwLock<Opened>,
    file: Arc<dyn File>,
    /// What was written may not be what the disk has: see [`Backend`].
    in_doubt: Arc<AtomicBool>,
}

/// The database, and how often it has been opened again; none if that failed.
#[derive(Debug)]
struct Opened {
    db: Option<Database>,
    again: u64,
}

impl FileDatabase {
    /// Opens the file, or begins it if it is empty. Until `whole` is set nothing is synced: the caller does that.
    pub(super) fn open(file: Arc<dyn File>, whole: Arc<AtomicBool>) -> Result<Self, DatabaseError> {
        let in_doubt = Arc::new(AtomicBool::new(false));
        let backend = Backend { file: file.clone(), whole, in_doubt: in_doubt.clone() };
        let opened = RwLock::new(Opened { db: Some(database(backend).and_then(verified)?), again: 0 });
        Ok(Self { opened, file, in_doubt })
    }

    /// Works with the database; opens it again after an I/O error, so that the next one who asks may fare better. `revision` is the one that it
    /// must have then.
    pub(super) fn with<T>(
        &self,
        revision: impl FnOnce() -> u64,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let (result, again) = {
            let opened = self.opened.read();
            (opened.db.as_ref().map_or(Err(redb::Error::PreviousIo), work), opened.again)
        };
        if matches!(&result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) && !self.in_doubt.load(Ordering::SeqCst) {
            self.open_again(again, revision);
        }
        result
    }

    fn open_again(&self, again: u64, expected: impl FnOnce() -> u64) {
        let mut opened = self.opened.write();
        if opened.again != again {
            return;
        }
        // Closed first: two would write to one file.
        *opened = Opened { db: None, again: again + 1 };
        let backend = Backend { file: self.file.clone(), whole: Arc::new(AtomicBool::new(true)), in_doubt: self.in_doubt.clone() };
        let reopened = database(backend).map_err(redb::Error::from).and_then(|db| Ok((revision_of(&db)?, db)));
        match reopened {
            Ok((revision, db)) if revision == expected() => {
                opened.db = Some(db);
                tracing::warn!(revision, "the metadata store was opened again after an i/o error");
            }
            Ok((revision, _)) => {
                // Somebody was told that it failed.
                self.in_doubt.store(true, Ordering::SeqCst);
                tracing::error!(revision, "a change of the metadata that failed was made nevertheless: restart this process");
            }
            Err(error) => tracing::error!(%error, "the metadata store can't be opened again"),
        }
    }
}

fn database(backend: Backend) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)
}

/// The store's revision.
pub(super) fn revision_of(db: &Database) -> Result<u64, redb::Error> {
    Ok(db.begin_read()?.open_table(META)?.get(REVISION)?.map_or(0, |revision| revision.value()))
}

/// The database, once every page has been checked: redb itself takes them unread after a clean stop, and with its quick repair after a crash (I36).
fn verified(mut db: Database) -> Result<Database, DatabaseError> {
    if !db.check_integrity()? {
        tracing::warn!("the metadata store's record of free space was damaged and is made anew; its rows are whole");
    }
    Ok(db)
}

/// redb's view of a file behind the file-system port.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn File>,
    /// False while the file is being made under another name: one sync of the whole then stands for all.
    whole: Arc<AtomicBool>,
    /// Set by a failed sync, or a write that failed for another reason than want of room: what the disk has is not known (I38).
    in_doubt: Arc<AtomicBool>,
}

impl Backend {
    fn judged(&self, result: std::io::Result<()>, is_sync: bool) -> std::io::Result<()> {
        if let Err(error) = &result
            && (is_sync || !is_full(error))
        {
            self.in_doubt.store(true, Ordering::SeqCst);
        }
        result
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.judged(self.file.set_len(len), false)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        if self.whole.load(Ordering::SeqCst) { self.judged(self.file.sync_data(), true) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.judged(self.file.write_all_at(data, offset), false)
    }
}
