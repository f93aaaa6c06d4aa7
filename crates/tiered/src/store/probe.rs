//! What is done once at start-up: claim the prefix for this cluster, and find out what the store honours.

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{BucketError, RemoteStore, StoreError};

/// The object that says whose prefix it is.
pub(super) const MARKER: &str = "siltstone-cluster.json";
const MARKER_VERSION: u32 = 1;
const MARKER_BYTES_MAX: u64 = 64 << 10;

/// Content of the marker object. Later versions may add fields; they must keep these two.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    cluster_id: String,
}

/// What a probe found the store to honour.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StoreTraits {
    /// A create of an existing object is refused. If not, unique keys and the metadata service are the only fences (they suffice).
    pub conditional_create: bool,
    /// An object is readable by ranges right after its write.
    pub read_after_write: bool,
    /// An object is in a listing right after its write.
    pub list_after_write: bool,
}

fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

impl RemoteStore {
    /// Claims the prefix for `cluster_id` (I33): writes or checks the marker object.
    ///
    /// # Errors
    /// `BadAddress` if the prefix belongs to another cluster. `Unavailable` or `Denied` when the store can't be asked: try again in the
    /// background; uploads wait until it is done.
    pub async fn claim(&self, cluster_id: &str) -> Result<(), StoreError> {
        let marker = Marker { version: MARKER_VERSION, cluster_id: cluster_id.to_owned() };
        let text = serde_json::to_vec(&marker).map(Bytes::from).map_err(|error| self.bad_marker(&error.to_string()))?;
        match self.read_marker().await {
            Ok(found) => return self.check_marker(&found, cluster_id),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        match self.put_new(MARKER, vec![text.clone()], checksum(&text)).await {
            Ok(()) | Err(StoreError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        // Read back: a store that ignores the condition lets the last writer win, and then all must see the same one.
        let found = self.read_marker().await?;
        self.check_marker(&found, cluster_id)
    }

    /// Checks that the prefix is one of `cluster_id`, and writes nothing.
    ///
    /// # Errors
    /// `BadAddress` if it is another cluster's or nobody's, and what the store answers.
    pub async fn check_owner(&self, cluster_id: &str) -> Result<(), StoreError> {
        match self.read_marker().await {
            Ok(found) => self.check_marker(&found, cluster_id),
            Err(StoreError::NotFound(_)) => Err(StoreError::BadAddress {
                url: self.address().to_owned(),
                reason: format!("there is no {MARKER}, so no broker has used it: give the address that `serve` was given"),
            }),
            Err(error) => Err(error),
        }
    }

    async fn read_marker(&self) -> Result<Marker, StoreError> {
        let size = self.head(MARKER).await?;
        if size > MARKER_BYTES_MAX {
            return Err(self.bad_marker("it is too large"));
        }
        let text = self.get_range(MARKER, 0, size).await?;
        serde_json::from_slice(&text).map_err(|error| self.bad_marker(&error.to_string()))
    }

    fn check_marker(&self, found: &Marker, cluster_id: &str) -> Result<(), StoreError> {
        if found.cluster_id == cluster_id {
            return Ok(());
        }
        let reason = format!(
            "belongs to cluster '{}', this is cluster '{cluster_id}': use another prefix, or start with the metadata of that cluster",
            found.cluster_id
        );
        Err(StoreError::BadAddress { url: self.address().to_owned(), reason })
    }

    fn bad_marker(&self, reason: &str) -> StoreError {
        StoreError::Corrupt { key: MARKER.to_owned(), reason: format!("not a cluster marker: {reason}") }
    }

    /// Finds out what the store honours, with an object of its own that it deletes again, and logs one line about it.
    ///
    /// # Errors
    /// `Unavailable` or `Denied` when the store can't be asked.
    pub async fn probe(&self) -> Result<StoreTraits, StoreError> {
        let key = format!("probe/{}", self.inner.env.entropy.uuid().as_simple());
        let (first, second) = (Bytes::from_static(b"siltstone probe 1"), Bytes::from_static(b"siltstone probe 2"));
        let size = first.len() as u64;
        self.put_new(&key, vec![first.clone()], checksum(&first)).await?;
        let conditional_create = match self.inner.bucket.create(&key, std::slice::from_ref(&second)).await {
            Err(BucketError::AlreadyExists) => true,
            Ok(()) => false,
            Err(error) => return Err(StoreError::Unavailable(error.to_string())),
        };
        let kept = if conditional_create { &first } else { &second };
        let read_after_write = self.get_range(&key, 4, size).await? == kept[4..];
        let mut listing = self.list("probe");
        let mut list_after_write = false;
        while let Some(item) = listing.next().await {
            list_after_write |= item?.key == key;
        }
        self.delete(&key).await?;
        let traits = StoreTraits { conditional_create, read_after_write, list_after_write };
        tracing::info!(address = self.address(), conditional_create, read_after_write, list_after_write, "object store probed");
        if !read_after_write {
            tracing::error!(address = self.address(), "the object store does not return what was just written: data there is not safe");
        }
        Ok(traits)
    }
}
