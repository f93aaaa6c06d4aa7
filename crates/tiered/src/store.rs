//! The one wrapper around `object_store`: retries, deadlines, checksums, fault points, and a probe that says what the store honours.

use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::Env;
use thiserror::Error;

/// Where the bucket is.
#[derive(Clone, Debug, Default)]
pub struct StoreConfig {
    /// `file:///DIR`, `s3://bucket/prefix`, `gs://…`, `az://…` or `memory://`.
    pub url: String,
    /// Endpoint for S3-compatible stores.
    pub s3_endpoint: Option<String>,
}

/// An operation on the bucket failed for good, or within its deadline.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No such object.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// A create found another object under its key.
    #[error("object {0} already exists")]
    AlreadyExists(String),
    /// 401 or 403.
    #[error("access to {key} denied: {reason}")]
    Denied {
        /// The key.
        key: String,
        /// The store's words.
        reason: String,
    },
    /// Outage, throttling, time-out: try again later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The bytes are not what they should be (I36).
    #[error("object {key} is corrupt: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The address can't be used.
    #[error("object store address {url}: {reason}")]
    BadAddress {
        /// As configured.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// A bucket under one cluster's prefix. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    _private: Arc<()>,
}

impl RemoteStore {
    /// Opens the address. Makes no request.
    pub fn open(config: &StoreConfig, env: Env) -> Result<Self, StoreError> {
        let _ = (config, env);
        todo!()
    }

    /// Claims the prefix for `cluster_id` (I33): writes or checks the marker object. `Unavailable` when the store can't be reached:
    /// try again in the background; uploads wait until it is done.
    pub async fn claim(&self, cluster_id: &str) -> Result<(), StoreError> {
        let _ = cluster_id;
        todo!()
    }

    /// Creates an object; never overwrites (I23). `chunks` are written in order.
    pub async fn put_new(&self, key: &str, chunks: Vec<Bytes>, checksum: u64) -> Result<(), StoreError> {
        let _ = (key, chunks, checksum);
        todo!()
    }

    /// Bytes `[from, to)` of an object.
    pub async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Bytes, StoreError> {
        let _ = (key, from, to);
        todo!()
    }
}
