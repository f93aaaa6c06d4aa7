//! The remote tier: uploader, object format, remote reader, chunk cache, retention, garbage collection, fsck.

pub mod fsck;
pub mod gc;
mod index_objects;
pub mod object;
pub mod remote_reader;
pub mod retention;
pub mod store;
pub mod uploader;

pub use gc::{GarbageCollector, GarbageConfig};
pub use remote_reader::{RemoteRead, RemoteReadError, RemoteReadMetrics, RemoteReader, RemoteReaderConfig, RemoteTail};
pub use store::{RemoteStore, StoreConfig, StoreError};
pub use uploader::{UploadError, UploadMetrics, Uploader, UploaderConfig};
