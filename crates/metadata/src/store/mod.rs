//! The store port: an ordered map of bytes with revisions, under the metadata service. Nothing in it is shaped like Kafka.
//!
//! # Contract
//! One conformance suite holds every provider to it.
//! - Keys are 1 to [`KEY_BYTES_MAX`] bytes, compared as unsigned bytes. A transaction has at most [`TXN_OPS_MAX`] preconditions
//!   and writes together, names each written key once, and its keys and values sum to at most [`TXN_BYTES_MAX`].
//!   What exceeds a limit is refused with [`StoreError::TooLarge`] and changes nothing.
//! - **Linearizable**: a read that starts after a transaction returned sees it. Transactions are atomic and totally ordered.
//! - **Durable**: a transaction returns [`TxnOutcome::Committed`] only once it survives a crash of the machine (I47).
//!   After an error the outcome is unknown: it may or may not have happened, and the caller must read.
//! - **Revisions**: each transaction that writes raises the store's revision by at least one, for ever, restarts included;
//!   each row carries the revision of its last write. A row written anew after its deletion gets a higher revision than it ever had.
//! - **Ranges** are paged and each page is one point in time; two pages may not be. To read a whole range
//!   consistently: read all pages, then apply the watch from the first page's revision (puts and deletions are whole rows, so
//!   applying one twice does no harm).
//! - **Watch** gives every transaction after a revision exactly once, in order, each as a whole; or
//!   [`StoreError::Compacted`] at the start or in the stream when the provider no longer has some of it: the watcher then lists again.
//! - **Leases**: rows written under a lease are deleted, as by a transaction, when it is revoked or not kept alive for its time to live;
//!   and at the latest when the provider that emulates leases in its process opens again.
//! - **Cancellation**: dropping the future of a call leaves its outcome unknown and nothing half done.

#[cfg(test)]
pub(crate) mod conformance;
mod events;
mod lease;
pub mod memory;
pub mod redb;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

pub use events::StoreWatch;
pub use memory::MemoryStore;
pub use redb::RedbStore;

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Most preconditions and writes of one transaction together.
pub const TXN_OPS_MAX: usize = 100;
/// Most bytes of keys and values of one transaction.
pub const TXN_BYTES_MAX: usize = 1_000_000;
/// Most rows of one page.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// A call to the store failed. See the module for what holds after one.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Over a limit of the contract: a defect of the caller.
    #[error("transaction or key over the store's limits: {0}")]
    TooLarge(String),
    /// The watch asks for history that is gone: list again.
    #[error("history up to revision {0} is gone")]
    Compacted(u64),
    /// No such lease, or it is over.
    #[error("lease is over")]
    LeaseOver,
    /// The store can't be reached or its disk fails.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Another process has the store open, or it is not a store of this kind.
    #[error("{0}")]
    Open(String),
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Revision of its last write.
    pub revision: u64,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First key.
    pub from: Bytes,
    /// Past the last key.
    pub to: Bytes,
    /// Most rows; capped at [`PAGE_ROWS_MAX`].
    pub limit: usize,
    /// From the end backwards.
    pub reverse: bool,
}

impl Range {
    /// The first page of all keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { from: Bytes::copy_from_slice(prefix), to: prefix_end(prefix), limit: PAGE_ROWS_MAX, reverse: false }
    }
}

/// The first key after all that begin with `prefix`. For a prefix of 0xff only there is none: then a key longer than any.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    vec![0xff; KEY_BYTES_MAX + 1].into()
}

/// One page of a range.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// The store's revision when it was read.
    pub revision: u64,
    /// True if the limit cut it off.
    pub more: bool,
}

/// What must hold for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The row's last write has this revision; 0: there is no such row.
    Revision(Bytes, u64),
    /// The row exists.
    Exists(Bytes),
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Makes or replaces a row.
    Put {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// Goes when this lease is over.
        lease: Option<LeaseId>,
    },
    /// Deletes a row; nothing happens if there is none.
    Delete(Bytes),
}

impl Write {
    /// Makes or replaces a row without a lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }

    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// All writes if all preconditions hold, else nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub when: Vec<Precondition>,
    /// What happens then.
    pub then: Vec<Write>,
}

impl Txn {
    /// Checks the limits of the contract.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let ops = self.when.len() + self.then.len();
        if ops > TXN_OPS_MAX {
            return Err(StoreError::TooLarge(format!("{ops} operations")));
        }
        let conditions = self.when.iter().map(|condition| match condition {
            Precondition::Revision(key, _) | Precondition::Exists(key) => key,
        });
        let bytes = conditions.clone().map(Bytes::len).sum::<usize>() + self.then.iter().map(Write::size_bytes).sum::<usize>();
        if bytes > TXN_BYTES_MAX {
            return Err(StoreError::TooLarge(format!("{bytes} bytes")));
        }
        if let Some(key) = conditions.chain(self.then.iter().map(Write::key)).find(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(StoreError::TooLarge(format!("a key of {} bytes", key.len())));
        }
        let mut keys: Vec<_> = self.then.iter().map(Write::key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(StoreError::TooLarge("a key is written twice".into()));
        }
        Ok(())
    }
}

/// How a transaction ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It happened, at this revision (the store's, unchanged, if it wrote nothing).
    Committed(u64),
    /// A precondition did not hold: nothing happened.
    Conflict,
}

/// A transaction as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEvent {
    /// Its revision.
    pub revision: u64,
    /// Its rows: the new value, or `None` if deleted.
    pub rows: Arc<Vec<(Bytes, Option<Bytes>)>>,
}

/// Names a lease.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// See the module.
#[async_trait]
pub trait MetadataStore: Send + Sync + Debug {
    /// One row, or nothing.
    async fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError>;
    /// Some rows, read at one point in time: `None` for those that aren't there. At most [`TXN_OPS_MAX`].
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Row>>, StoreError>;
    /// One page of rows.
    async fn range(&self, range: Range) -> Result<Page, StoreError>;
    /// A transaction.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;
    /// All transactions after `revision`.
    async fn watch(&self, revision: u64) -> Result<StoreWatch, StoreError>;
    /// A new lease that lives for `ttl` unless kept alive.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;
    /// Starts the lease's time to live over.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// Ends a lease now; its rows are gone when this returns.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}
