//! The one place that knows `object_store`: addresses, and its errors and calls in the terms of [`Bucket`].

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ClientOptions, GetOptions, GetRange, MultipartId, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::fs::{File, FileLock, OpenMode};

use super::bucket::{Bucket, BucketError, ObjectInfo, PartUpload};
use super::{StoreConfig, StoreError};

/// Above every deadline of our own, so that it never decides.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest error text that is passed on.
const ERROR_CHARS_MAX: usize = 300;

/// How objects too large for one PUT are written.
#[derive(Clone)]
enum Parts {
    /// By the store's multipart API.
    Store(Arc<dyn MultipartStore>),
    /// Into a staging file, renamed when complete.
    Directory(Arc<Staging>),
}

/// An `object_store` below a prefix.
#[derive(Clone)]
struct Driver {
    store: Arc<dyn ObjectStore>,
    parts: Parts,
    prefix: Path,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.store, self.prefix)
    }
}

/// Opens the address of `config`. Makes no request; creates the directory of a `file://` address.
pub(super) fn open(config: &StoreConfig, env: &Env) -> Result<Arc<dyn Bucket>, StoreError> {
    let bad = |reason: String| StoreError::BadAddress { url: config.url.clone(), reason };
    let Some((scheme, rest)) = config.url.split_once("://") else {
        return Err(bad("use file:///DIR, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://".to_owned()));
    };
    if config.s3_endpoint.is_some() && scheme != "s3" {
        return Err(bad("an S3 endpoint goes with an s3:// address only".to_owned()));
    }
    if matches!(scheme, "file" | "memory") {
        let driver = if scheme == "file" { open_directory(rest, env) } else { Ok(open_memory()) };
        return Ok(Arc::new(driver.map_err(bad)?));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(bad(format!("name a bucket: {scheme}://bucket/prefix")));
    }
    let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| bad(error.to_string()))?;
    let (store, parts) = match scheme {
        "s3" => open_s3(bucket, config.s3_endpoint.as_deref()),
        "gs" => open_gcs(bucket),
        "az" => open_azure(bucket),
        _ => Err(format!("unknown scheme '{scheme}': use file, s3, gs, az or memory")),
    }
    .map_err(bad)?;
    Ok(Arc::new(Driver { store, parts: Parts::Store(parts), prefix }))
}

type Opened = (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>);

fn open_memory() -> Driver {
    let store = Arc::new(InMemory::new());
    Driver { store: Arc::clone(&store) as Arc<dyn ObjectStore>, parts: Parts::Store(store), prefix: Path::default() }
}

fn open_directory(path: &str, env: &Env) -> Result<Driver, String> {
    if !path.starts_with('/') {
        return Err("a directory needs three slashes and an absolute path: file:///var/lib/bucket".to_owned());
    }
    let directory = PathBuf::from(path);
    env.fs.create_dir_all(&directory).map_err(|error| format!("can't create the directory: {error}"))?;
    let store = LocalFileSystem::new_with_prefix(&directory).map_err(|error| error.to_string())?.with_fsync(true);
    let staging = Staging::open(directory, env.clone()).map_err(|error| format!("can't stage large objects there: {error}"))?;
    Ok(Driver { store: Arc::new(store), parts: Parts::Directory(Arc::new(staging)), prefix: Path::default() })
}

fn client_options() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
}

/// Retries are ours ([`super::RemoteStore`]): the store's own would hide time-outs and last for minutes.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

/// True if plain HTTP to this endpoint stays on this machine.
fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://");
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}

fn open_s3(bucket: &str, endpoint: Option<&str>) -> Result<Opened, String> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(no_retries());
    let endpoint = endpoint
        .map(str::to_owned)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let plain = endpoint.as_deref().is_some_and(|endpoint| !endpoint.starts_with("https://"));
    let local = endpoint.as_deref().is_some_and(is_loopback);
    let allowed = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).is_some_and(|value| value == "true");
    if plain && !local && !allowed {
        return Err("plain http is for endpoints on this machine; set AWS_ALLOW_HTTP=true to allow it elsewhere".to_owned());
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    // SHA-256 over every byte costs more than the whole produce path; TLS (or loopback) and the CRC keep the bytes whole.
    let store = builder
        .with_client_options(client_options().with_allow_http(plain))
        .with_unsigned_payload(!plain || local)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .build()
        .map_err(|error| error.to_string())?;
    let store = Arc::new(store);
    Ok((Arc::clone(&store) as Arc<dyn ObjectStore>, store))
}

fn open_gcs(bucket: &str) -> Result<Opened, String> {
    let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    let store = builder.with_retry(no_retries()).with_client_options(client_options()).build().map_err(|error| error.to_string())?;
    let store = Arc::new(store);
    Ok((Arc::clone(&store) as Arc<dyn ObjectStore>, store))
}

fn open_azure(container: &str) -> Result<Opened, String> {
    let builder = MicrosoftAzureBuilder::from_env().with_container_name(container);
    let store = builder.with_retry(no_retries()).with_client_options(client_options()).build().map_err(|error| error.to_string())?;
    let store = Arc::new(store);
    Ok((Arc::clone(&store) as Arc<dyn ObjectStore>, store))
}

fn translate(error: object_store::Error) -> BucketError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => BucketError::NotFound,
        // The driver answers so to S3's 409 (two creates at once), too.
        Error::AlreadyExists { .. } | Error::Precondition { .. } => BucketError::AlreadyExists,
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => BucketError::Denied(brief(&source.to_string())),
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } => {
            BucketError::Unsupported(brief(&error.to_string()))
        }
        // Throttling, time-outs and resets all come as Generic, without their status: worth another try.
        other => BucketError::Transient(brief(&other.to_string())),
    }
}

/// What a person needs of a store's error text: S3 answers with pages of XML, of which code and message are of use.
fn brief(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
    };
    let whole = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
    };
    let line = whole.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= ERROR_CHARS_MAX { line } else { line.chars().take(ERROR_CHARS_MAX).chain("…".chars()).collect() }
}

impl Driver {
    fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }

    fn key(prefix: &Path, path: &Path) -> String {
        path.prefix_match(prefix).map(|parts| parts.collect::<Path>().to_string()).unwrap_or_default()
    }
}

#[async_trait]
impl Bucket for Driver {
    async fn create(&self, key: &str, chunks: &[Bytes]) -> Result<(), BucketError> {
        let payload = chunks.iter().cloned().collect::<PutPayload>();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(&self.path(key), payload, options).await.map(drop).map_err(translate)
    }

    async fn begin_parts(&self, key: &str) -> Result<Box<dyn PartUpload>, BucketError> {
        let path = self.path(key);
        match &self.parts {
            Parts::Store(store) => {
                let id = store.create_multipart(&path).await.map_err(translate)?;
                Ok(Box::new(StoreParts { store: Arc::clone(store), path, id, parts: Mutex::default() }))
            }
            Parts::Directory(staging) => {
                let target = staging.bucket.join(path.as_ref());
                Ok(Box::new(FileParts::begin(target, Arc::clone(staging)).await.map_err(transient)?))
            }
        }
    }

    async fn get(&self, key: &str, from: u64, to: u64) -> Result<(Bytes, u64), BucketError> {
        let options = GetOptions { range: Some(GetRange::Bounded(from..to)), ..GetOptions::default() };
        let path = self.path(key);
        let result = match self.store.get_opts(&path, options).await {
            Ok(result) => result,
            // A range behind the object's end is an error of its own kind with every store: how long the object is tells it from others.
            Err(error) if error.to_string().to_ascii_lowercase().contains("range") => match self.store.head(&path).await {
                Ok(meta) if meta.size <= from => return Ok((Bytes::new(), meta.size)),
                _ => return Err(translate(error)),
            },
            Err(error) => return Err(translate(error)),
        };
        let size = result.meta.size;
        Ok((result.bytes().await.map_err(translate)?, size))
    }

    async fn head(&self, key: &str) -> Result<u64, BucketError> {
        Ok(self.store.head(&self.path(key)).await.map_err(translate)?.size)
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(translate(error)),
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let below = self.path(prefix);
        let stream = match after {
            Some(after) => self.store.list_with_offset(Some(&below), &self.path(after)),
            None => self.store.list(Some(&below)),
        };
        let root = self.prefix.clone();
        stream
            .map(move |item| {
                let meta = item.map_err(translate)?;
                Ok(ObjectInfo {
                    key: Self::key(&root, &meta.location),
                    size_bytes: meta.size,
                    modified_ms: meta.last_modified.timestamp_millis(),
                })
            })
            .boxed()
    }

    fn lists_in_order(&self) -> bool {
        matches!(self.parts, Parts::Store(_))
    }
}

/// A multipart upload in a store.
struct StoreParts {
    store: Arc<dyn MultipartStore>,
    path: Path,
    id: MultipartId,
    parts: Mutex<BTreeMap<usize, PartId>>,
}

#[async_trait]
impl PartUpload for StoreParts {
    async fn put(&self, index: usize, _offset: u64, part: &[Bytes]) -> Result<(), BucketError> {
        let payload = part.iter().cloned().collect::<PutPayload>();
        let id = self.store.put_part(&self.path, &self.id, index, payload).await.map_err(translate)?;
        self.parts.lock().insert(index, id);
        Ok(())
    }

    async fn complete(&self) -> Result<(), BucketError> {
        let parts = self.parts.lock().values().cloned().collect();
        self.store.complete_multipart(&self.path, &self.id, parts).await.map(drop).map_err(translate)
    }

    async fn abort(&self) {
        if let Err(error) = self.store.abort_multipart(&self.path, &self.id).await {
            tracing::debug!(path = %self.path, %error, "could not abort a multipart upload");
        }
    }
}

fn transient(error: std::io::Error) -> BucketError {
    BucketError::Transient(error.to_string())
}

/// Where this process writes large objects of a `file://` bucket until they are whole: a directory of its own below `.staging`, locked while the
/// process lives. What processes that are gone left behind is removed when the next one opens the bucket.
struct Staging {
    env: Env,
    bucket: PathBuf,
    directory: PathBuf,
    _lock: Box<dyn FileLock>,
}

/// The `#number` endings here keep files out of `object_store`'s listings.
const STAGING_LOCK: &str = "lock#0";

impl Staging {
    fn open(bucket: PathBuf, env: Env) -> std::io::Result<Self> {
        let all = bucket.join(".staging");
        env.fs.create_dir_all(&all)?;
        for entry in env.fs.read_dir(&all)?.into_iter().filter(|entry| entry.is_dir) {
            let left = all.join(&entry.name);
            if env.fs.lock(&left.join(STAGING_LOCK)).is_ok() {
                tracing::debug!(directory = %left.display(), "removing unfinished objects of a process that is gone");
                let _ = env.fs.remove_dir_all(&left);
            }
        }
        let directory = all.join(env.entropy.uuid().as_simple().to_string());
        // Between these two steps another process may take the directory for left behind: then once more.
        let attempt = || env.fs.create_dir_all(&directory).and_then(|()| env.fs.lock(&directory.join(STAGING_LOCK)));
        let lock = attempt().or_else(|_| attempt())?;
        Ok(Self { env, bucket, directory, _lock: lock })
    }
}

/// A large object of a `file://` bucket: a staging file, written at positions, synced, renamed, and its directory synced (I39).
struct FileParts {
    env: Env,
    file: Arc<dyn File>,
    staging: PathBuf,
    target: PathBuf,
}

impl FileParts {
    async fn begin(target: PathBuf, staging: Arc<Staging>) -> std::io::Result<Self> {
        let env = staging.env.clone();
        let staging = staging.directory.join(format!("part#{}", env.entropy.next_u64()));
        let (fs, path) = (Arc::clone(&env.fs), staging.clone());
        let parent = target.parent().map(std::path::Path::to_owned);
        let file = run(&env, move || {
            parent.map_or(Ok(()), |parent| fs.create_dir_all(&parent))?;
            fs.open(&path, OpenMode::CreateNew)
        })
        .await?;
        Ok(Self { env, file, staging, target })
    }
}

/// Runs blocking file work; an error if it could not run.
async fn run<T: Send + 'static>(env: &Env, work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    env.tasks.blocking(work).await.unwrap_or_else(|| Err(std::io::Error::other("the file operation did not finish")))
}

#[async_trait]
impl PartUpload for FileParts {
    async fn put(&self, _index: usize, offset: u64, part: &[Bytes]) -> Result<(), BucketError> {
        let (file, part) = (Arc::clone(&self.file), part.to_vec());
        // Nobody reads the object soon: the page cache has better uses.
        let write = move || {
            let mut slices: Vec<_> = part.iter().map(|bytes| IoSlice::new(bytes)).collect();
            file.write_all_uncached_at(&mut slices, offset)
        };
        run(&self.env, write).await.map_err(transient)
    }

    async fn complete(&self) -> Result<(), BucketError> {
        let (fs, file) = (Arc::clone(&self.env.fs), Arc::clone(&self.file));
        let (staging, target) = (self.staging.clone(), self.target.clone());
        let publish = move || {
            file.sync_all()?;
            fs.rename(&staging, &target)?;
            // The new directories above must survive as well.
            for directory in target.ancestors().skip(1).take(5) {
                fs.sync_dir(directory)?;
            }
            Ok(())
        };
        run(&self.env, publish).await.map_err(transient)
    }

    async fn abort(&self) {
        let (fs, staging) = (Arc::clone(&self.env.fs), self.staging.clone());
        if let Err(error) = run(&self.env, move || fs.remove_file(&staging)).await {
            tracing::debug!(staging = %self.staging.display(), %error, "could not remove a staging file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_are_one_short_line() {
        let xml = "Error performing PUT in 2ms - 403 Forbidden: <?xml?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>Check\n your key.</Message><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(brief(xml), "SignatureDoesNotMatch: Check your key.");
        assert_eq!(brief("connection\n  refused"), "connection refused");
        assert_eq!(brief(&"ä".repeat(1000)).chars().count(), ERROR_CHARS_MAX + 1);
    }
}
