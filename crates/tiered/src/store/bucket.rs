//! The port to an object store: bytes under keys, nothing of Kafka.
//!
//! Contract (the conformance suite in `tests/bucket_conformance.rs` runs it against every provider): each call is one attempt
//! without retries; it may be dropped at any await, after which its effect is unknown. Keys are relative to the provider's
//! prefix and consist of `[A-Za-z0-9/._-]` only (I45). An object is visible as a whole or not at all, and for every reader at once.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

/// Why one attempt failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BucketError {
    /// No object under the key (or, for a write, no bucket).
    #[error("not found")]
    NotFound,
    /// A create found an object under its key, or raced with another create.
    #[error("already exists")]
    AlreadyExists,
    /// 401 or 403.
    #[error("access denied: {0}")]
    Denied(String),
    /// Anything that may pass: outage, throttling, reset connections, cut bodies.
    #[error("{0}")]
    Transient(String),
    /// The store can't do this at all.
    #[error("not supported by the store: {0}")]
    Unsupported(String),
}

/// One object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key, relative to the provider's prefix.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Wall time of its last write by the store's clock, ms.
    pub modified_ms: i64,
}

/// An object store under one prefix.
#[async_trait]
pub trait Bucket: Send + Sync + Debug {
    /// Creates an object from `chunks` in order, only if there is none under the key, as far as the store honours the condition.
    async fn create(&self, key: &str, chunks: &[Bytes]) -> Result<(), BucketError>;
    /// Begins an object that is written in parts; replaces an object of the same key when completed.
    async fn begin_parts(&self, key: &str) -> Result<Box<dyn PartUpload>, BucketError>;
    /// Bytes `[from, to)` of an object, cut at its end, and the object's size.
    async fn get(&self, key: &str, from: u64, to: u64) -> Result<(Bytes, u64), BucketError>;
    /// Size of an object in bytes.
    async fn head(&self, key: &str) -> Result<u64, BucketError>;
    /// Deletes an object; no error if there is none.
    async fn delete(&self, key: &str) -> Result<(), BucketError>;
    /// Objects whose key starts with the directory `prefix` ("" for all), above `after` if given, page by page.
    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<ObjectInfo, BucketError>>;
    /// True if listings come in key order, so that a broken one can go on after the last key.
    fn lists_in_order(&self) -> bool;
}

/// An object being written in parts. Dropping it without [`PartUpload::abort`] may leave parts for the store's own lifecycle rules.
#[async_trait]
pub trait PartUpload: Send + Sync {
    /// Writes part `index` (from 0), whose first byte is byte `offset` of the object. Parts may come in any order and again after an error;
    /// all but the last have the same size.
    async fn put(&self, index: usize, offset: u64, part: &[Bytes]) -> Result<(), BucketError>;
    /// Makes the object visible. May be called again after a transient error; an object that an earlier call made visible is no error
    /// if the store can tell, else `NotFound`.
    async fn complete(&self) -> Result<(), BucketError>;
    /// Gives up and frees what was stored, as far as possible.
    async fn abort(&self);
}
