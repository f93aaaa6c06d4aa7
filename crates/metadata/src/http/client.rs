//! The client's side: a [`MetadataApi`] whose service is another process.
//!
//! Overview: one task follows the image by long polls of `/v1/watch`; calls go out on a connection pool and return when the followed image
//! shows what they changed. Calls that may be sent twice are tried again until their deadline; the others only when they surely did not arrive.
//!
//! Invariants: the image only moves forward, and after a gap it is listed anew before anyone sees a later one (I46); a server of another cluster is
//! never followed. Cancellation: a dropped call may or may not have happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use siltstone_common::retry::Backoff;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use tokio::sync::watch;

use super::{
    Administer, AllocateProducerIds, AlterConfigs, AlterIsr, CLUSTER_HEADER, CreatePartitions, Done, Garbage, Heartbeat, HeartbeatTaken,
    ImageSnapshot, IsrAltered, ProducerIds, REVISION_HEADER, RaiseLogStart, Registered,
};
use crate::acls::{AclBinding, AclBindingFilter};
use crate::api::{AdminChange, ConfigOp, ConfigResource, CreateTopic, MetadataApi, MetadataError, RegisterBroker};
use crate::follower::ImageDelta;
use crate::image::{MetadataImage, TopicImage};
use crate::segments::{RemoteExtent, SegmentRow};

/// Rows in one request of `forget`, which keeps it below the body limit.
const FORGET_ROWS_MAX: usize = 1000;
/// How long a watch waits at the server.
const WATCH_WAIT: Duration = Duration::from_secs(20);

/// Where the service is, and how long to try.
#[derive(Clone, Debug)]
pub struct HttpMetadataConfig {
    /// Base addresses, `http://host:port`; the next one is tried when one can't be reached.
    pub addresses: Vec<String>,
    /// Time for one request.
    pub request_timeout: Duration,
    /// Time for a call with all its attempts, and for the first image.
    pub call_timeout: Duration,
}

impl HttpMetadataConfig {
    /// The usual times.
    pub fn new(addresses: Vec<String>) -> Self {
        Self { addresses, request_timeout: Duration::from_secs(5), call_timeout: Duration::from_secs(15) }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetadata {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: reqwest::Client,
    config: HttpMetadataConfig,
    env: Env,
    /// Counts up; the address in use is this modulo their number.
    address: AtomicUsize,
    image: watch::Sender<Arc<MetadataImage>>,
}

/// Why a request has no answer.
enum Failure {
    /// The service said no.
    Refused(MetadataError),
    /// It surely was not carried out.
    NotSent(String),
    /// It may or may not have been carried out.
    Unknown(String),
    /// The steps asked for are not kept any more.
    Gone,
}

impl HttpMetadata {
    /// Reads the first image and follows it from then on. [`MetadataError::Unavailable`] if the service can't be reached in time.
    pub async fn connect(config: HttpMetadataConfig, env: Env) -> Result<Self, MetadataError> {
        if config.addresses.is_empty() {
            return Err(MetadataError::InvalidRequest("no address of a metadata service is given".into()));
        }
        let client = reqwest::Client::builder().no_proxy().connect_timeout(config.request_timeout).build();
        let client = client.map_err(|error| MetadataError::Unavailable(error.to_string()))?;
        let image = watch::Sender::new(Arc::new(MetadataImage::default()));
        let inner = Arc::new(Inner { client, config, env, address: AtomicUsize::new(0), image });
        inner.image.send_replace(Arc::new(inner.list().await?));
        let (follower, tasks) = (Arc::downgrade(&inner), inner.env.tasks.clone());
        tasks.clone().spawn("metadata-client-follower", async move {
            let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
            while let Some(inner) = follower.upgrade() {
                tokio::select! {
                    () = inner.follow_once(&mut backoff) => {}
                    () = tasks.stopped() => return,
                }
            }
        });
        Ok(Self { inner })
    }
}

impl Inner {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let index = self.address.load(Ordering::Relaxed) % self.config.addresses.len();
        let base = self.config.addresses[index].trim_end_matches('/');
        let request = self.client.request(method, format!("{base}{path}"));
        let image = self.image.borrow();
        if image.cluster_id.is_empty() { request } else { request.header(CLUSTER_HEADER, &image.cluster_id) }
    }

    async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Response, Failure> {
        let response = request.timeout(timeout).send().await.map_err(|error| {
            self.address.fetch_add(1, Ordering::Relaxed);
            let text = describe(&error);
            if error.is_connect() || error.is_builder() { Failure::NotSent(text) } else { Failure::Unknown(text) }
        })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::GONE => Err(Failure::Gone),
            status => {
                let body = response.bytes().await.unwrap_or_default();
                let error = serde_json::from_slice::<MetadataError>(&body);
                let error = error.unwrap_or_else(|_| MetadataError::Unavailable(format!("it answered {status}")));
                if error.retryable() {
                    self.address.fetch_add(1, Ordering::Relaxed);
                    return Err(Failure::Unknown(error.to_string()));
                }
                Err(Failure::Refused(error))
            }
        }
    }

    /// A call that changes the cluster: returns when the image shows it.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        repeatable: bool,
    ) -> Result<T, MetadataError> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let deadline = self.env.clock.monotonic().saturating_add(self.config.call_timeout);
        loop {
            let request = self.request(method.clone(), path).json(body);
            let reason = match self.send(request, self.config.request_timeout).await {
                Ok(response) => {
                    let revision = revision(&response);
                    let answer = response.json().await.map_err(|error| MetadataError::Unavailable(describe(&error)))?;
                    self.reached(revision).await?;
                    return Ok(answer);
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Gone) => return Err(MetadataError::Unavailable("it answered 410".into())),
                Err(Failure::Unknown(reason)) if !repeatable => return Err(MetadataError::Unavailable(reason)),
                Err(Failure::NotSent(reason) | Failure::Unknown(reason)) => reason,
            };
            let delay = backoff.next_delay(&*self.env.entropy);
            if self.env.clock.monotonic().saturating_add(delay) >= deadline {
                return Err(MetadataError::Unavailable(reason));
            }
            self.env.clock.sleep(delay).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, MetadataError> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let deadline = self.env.clock.monotonic().saturating_add(self.config.call_timeout);
        loop {
            let reason = match self.send(self.request(Method::GET, path), self.config.request_timeout).await {
                Ok(response) => match response.json().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => describe(&error),
                },
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Gone) => "it answered 410".into(),
                Err(Failure::NotSent(reason) | Failure::Unknown(reason)) => reason,
            };
            let delay = backoff.next_delay(&*self.env.entropy);
            if self.env.clock.monotonic().saturating_add(delay) >= deadline {
                return Err(MetadataError::Unavailable(reason));
            }
            self.env.clock.sleep(delay).await;
        }
    }

    async fn list(&self) -> Result<MetadataImage, MetadataError> {
        self.get::<ImageSnapshot>("/v1/image").await.map(MetadataImage::from)
    }

    async fn reached(&self, revision: u64) -> Result<(), MetadataError> {
        let mut images = self.image.subscribe();
        tokio::select! {
            reached = images.wait_for(|image| image.revision >= revision) => {
                reached.map(|_| ()).map_err(|_| MetadataError::Unavailable("the client is stopping".into()))
            }
            () = self.env.clock.sleep(self.config.call_timeout) => {
                Err(MetadataError::Unavailable(format!("the change was made, but revision {revision} of the image does not arrive")))
            }
        }
    }

    /// One long poll.
    async fn follow_once(&self, backoff: &mut Backoff) {
        let after = self.image.borrow().revision;
        let request = self.request(Method::GET, &format!("/v1/watch?after={after}&wait_ms={}", WATCH_WAIT.as_millis()));
        let reason = match self.send(request, WATCH_WAIT + self.config.request_timeout).await {
            Ok(response) => match response.json::<Vec<ImageDelta>>().await {
                Ok(deltas) => {
                    backoff.reset();
                    self.step(&deltas);
                    return;
                }
                Err(error) => describe(&error),
            },
            Err(Failure::Gone) => match self.relist().await {
                Ok(()) => {
                    backoff.reset();
                    return;
                }
                Err(error) => error.to_string(),
            },
            Err(Failure::Refused(error)) => error.to_string(),
            Err(Failure::NotSent(reason) | Failure::Unknown(reason)) => reason,
        };
        tracing::warn!(reason, revision = after, "can't follow the metadata service; trying again");
        self.env.clock.sleep(backoff.next_delay(&*self.env.entropy)).await;
    }

    fn step(&self, deltas: &[ImageDelta]) {
        if deltas.is_empty() {
            return;
        }
        let mut image = MetadataImage::clone(&self.image.borrow());
        for delta in deltas.iter().filter(|delta| delta.revision > image.revision).collect::<Vec<_>>() {
            delta.changes.iter().for_each(|change| image.apply(change));
            image.revision = delta.revision;
        }
        self.image.send_replace(Arc::new(image));
    }

    /// After a gap (I46).
    async fn relist(&self) -> Result<(), MetadataError> {
        let image = self.list().await?;
        let known = self.image.borrow().clone();
        if image.cluster_id != known.cluster_id {
            let text = format!("the metadata service is of cluster {}, not of {}", image.cluster_id, known.cluster_id);
            return Err(MetadataError::WrongCluster(text));
        }
        if image.revision < known.revision {
            let text = format!("it is at revision {}, behind the known {}", image.revision, known.revision);
            return Err(MetadataError::Unavailable(text));
        }
        tracing::info!(from = known.revision, to = image.revision, "listed the metadata image anew after a gap");
        self.image.send_replace(Arc::new(image));
        Ok(())
    }
}

fn revision(response: &Response) -> u64 {
    let header = response.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok());
    header.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The error with its causes.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn of(id: TopicIdPartition) -> String {
    format!("/v1/segments/{}/{}", id.topic_id, id.partition)
}

#[async_trait]
impl MetadataApi for HttpMetadata {
    fn image(&self) -> Arc<MetadataImage> {
        self.inner.image.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.inner.image.subscribe()
    }

    async fn register_broker(&self, broker: RegisterBroker) -> Result<i64, MetadataError> {
        // Twice is no harm: only the last epoch counts.
        self.inner.call::<Registered>(Method::POST, "/v1/brokers", &broker, true).await.map(|registered| registered.epoch)
    }

    async fn heartbeat(&self, broker: i32, epoch: i64, stopping: bool) -> Result<Duration, MetadataError> {
        let path = format!("/v1/brokers/{broker}/heartbeat");
        let taken = self.inner.call::<HeartbeatTaken>(Method::POST, &path, &Heartbeat { epoch, stopping }, true).await?;
        Ok(Duration::from_millis(taken.session_ms))
    }

    async fn create_topic(&self, topic: CreateTopic) -> Result<Arc<TopicImage>, MetadataError> {
        self.inner.call(Method::POST, "/v1/topics", &topic, false).await
    }

    async fn delete_topic(&self, topic: TopicId) -> Result<(), MetadataError> {
        self.inner.call::<Done>(Method::DELETE, &format!("/v1/topics/{topic}"), &(), false).await.map(|_| ())
    }

    async fn create_partitions(
        &self,
        topic: TopicId,
        count: i32,
        assignments: Vec<Vec<i32>>,
        validate_only: bool,
    ) -> Result<(), MetadataError> {
        let body = CreatePartitions { count, assignments, validate_only };
        self.inner.call::<Done>(Method::POST, &format!("/v1/topics/{topic}/partitions"), &body, false).await.map(|_| ())
    }

    async fn alter_configs(&self, resource: ConfigResource, ops: Vec<ConfigOp>, validate_only: bool) -> Result<(), MetadataError> {
        let body = AlterConfigs { resource, ops, validate_only };
        self.inner.call::<Done>(Method::POST, "/v1/configs", &body, true).await.map(|_| ())
    }

    async fn administer(&self, change: AdminChange, validate_only: bool) -> Result<(), MetadataError> {
        let body = Administer { change, validate_only };
        self.inner.call::<Done>(Method::POST, "/v1/admin", &body, false).await.map(|_| ())
    }

    async fn create_acls(&self, acls: Vec<AclBinding>) -> Result<Vec<Result<(), MetadataError>>, MetadataError> {
        let made: Vec<Option<MetadataError>> = self.inner.call(Method::POST, "/v1/acls", &acls, true).await?;
        Ok(made.into_iter().map(|error| error.map_or(Ok(()), Err)).collect())
    }

    async fn delete_acls(&self, filters: Vec<AclBindingFilter>) -> Result<Vec<Vec<AclBinding>>, MetadataError> {
        self.inner.call(Method::POST, "/v1/acls/delete", &filters, false).await
    }

    async fn alter_isr(&self, id: TopicIdPartition, leader_epoch: i32, partition_epoch: i32, isr: Vec<i32>) -> Result<i32, MetadataError> {
        let path = format!("/v1/topics/{}/partitions/{}/isr", id.topic_id, id.partition);
        let body = AlterIsr { leader_epoch, partition_epoch, isr };
        self.inner.call::<IsrAltered>(Method::POST, &path, &body, false).await.map(|altered| altered.partition_epoch)
    }

    async fn allocate_producer_ids(&self, broker: i32, epoch: i64) -> Result<(i64, i64), MetadataError> {
        // A block whose answer is lost is lost with it: there are enough.
        let body = AllocateProducerIds { broker, epoch };
        self.inner.call::<ProducerIds>(Method::POST, "/v1/producer-ids", &body, true).await.map(|ids| (ids.first, ids.count))
    }

    async fn segment_intent(&self, row: SegmentRow) -> Result<(), MetadataError> {
        self.inner.call::<Done>(Method::POST, "/v1/segments/intent", &row, true).await.map(|_| ())
    }

    async fn segment_commit(&self, row: SegmentRow) -> Result<(), MetadataError> {
        self.inner.call::<Done>(Method::POST, "/v1/segments/commit", &row, true).await.map(|_| ())
    }

    async fn find_segment(&self, id: TopicIdPartition, offset: i64) -> Result<Option<SegmentRow>, MetadataError> {
        self.inner.get(&format!("{}/at?offset={offset}", of(id))).await
    }

    async fn find_segment_by_time(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError> {
        self.inner.get(&format!("{}/at?timestamp_ms={timestamp_ms}", of(id))).await
    }

    async fn list_segments(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        self.inner.get(&format!("{}?from={from}&limit={limit}", of(id))).await
    }

    async fn remote_extent(&self, id: TopicIdPartition) -> Result<RemoteExtent, MetadataError> {
        self.inner.get(&format!("{}/extent", of(id))).await
    }

    async fn raise_log_start(&self, id: TopicIdPartition, leader_epoch: i32, offset: i64) -> Result<(), MetadataError> {
        let body = RaiseLogStart { leader_epoch, offset };
        self.inner.call::<Done>(Method::POST, &format!("{}/log-start", of(id)), &body, true).await.map(|_| ())
    }

    async fn garbage(&self, grace_ms: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        self.inner.call(Method::POST, "/v1/garbage", &Garbage { grace_ms, limit }, true).await
    }

    async fn forget(&self, rows: Vec<SegmentRow>) -> Result<(), MetadataError> {
        for part in rows.chunks(FORGET_ROWS_MAX) {
            self.inner.call::<Done>(Method::POST, "/v1/garbage/forget", &part, true).await?;
        }
        Ok(())
    }
}
