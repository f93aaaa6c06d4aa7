//! The server's side: one route per call.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use siltstone_common::{TopicId, TopicIdPartition};

use super::{
    Administer, AllocateProducerIds, AlterConfigs, AlterIsr, AtQuery, BODY_BYTES_MAX, CLUSTER_HEADER, CreatePartitions, Done, Garbage,
    Heartbeat, HeartbeatTaken, ImageSnapshot, IsrAltered, ListQuery, ProducerIds, REVISION_HEADER, RaiseLogStart, Registered, WatchQuery,
};
use crate::api::{MetadataApi, MetadataError};
use crate::segments::SegmentRow;
use crate::service::MetadataService;

/// Longest time that a watch waits.
const WATCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// All routes of the service, from `/v1` on.
pub fn router(service: Arc<MetadataService>) -> Router {
    Router::new()
        .route("/v1/image", get(image))
        .route("/v1/watch", get(watch))
        .route("/v1/brokers", post(register_broker))
        .route("/v1/brokers/{id}/heartbeat", post(heartbeat))
        .route("/v1/topics", post(create_topic))
        .route("/v1/topics/{topic}", delete(delete_topic))
        .route("/v1/topics/{topic}/partitions", post(create_partitions))
        .route("/v1/topics/{topic}/partitions/{partition}/isr", post(alter_isr))
        .route("/v1/configs", post(alter_configs))
        .route("/v1/admin", post(administer))
        .route("/v1/acls", post(create_acls))
        .route("/v1/acls/delete", post(delete_acls))
        .route("/v1/producer-ids", post(allocate_producer_ids))
        .route("/v1/segments/intent", post(segment_intent))
        .route("/v1/segments/commit", post(segment_commit))
        .route("/v1/segments/{topic}/{partition}", get(list_segments))
        .route("/v1/segments/{topic}/{partition}/at", get(find_segment))
        .route("/v1/segments/{topic}/{partition}/extent", get(remote_extent))
        .route("/v1/segments/{topic}/{partition}/log-start", post(raise_log_start))
        .route("/v1/garbage", post(garbage))
        .route("/v1/garbage/forget", post(forget))
        .fallback(|| async { failed(&MetadataError::InvalidRequest("no such path: see /v1/image".into()), StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async {
            failed(&MetadataError::InvalidRequest("that path has another method".into()), StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(service.clone(), check_cluster))
        .with_state(service)
}

/// A request that names another cluster than this one goes no further, nor one that a web page made: those bear an origin, and can
/// send neither JSON nor the cluster's id without being asked first, which every change must have.
async fn check_cluster(State(service): Service, request: Request, next: Next) -> Response {
    let here = &service.image().cluster_id;
    let refused = |status, reason: &str| failed(&MetadataError::InvalidRequest(reason.to_owned()), status);
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return refused(StatusCode::FORBIDDEN, "requests of web pages are not served");
    }
    if request.method() != Method::GET {
        let json = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.split(';').next() == Some("application/json"));
        if !headers.get(header::CONTENT_TYPE).is_some_and(json) {
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a change needs the header content-type: application/json");
        }
        if !headers.contains_key(CLUSTER_HEADER) {
            return refused(
                StatusCode::FORBIDDEN,
                &format!("a change needs the header {CLUSTER_HEADER}, with the id that GET /v1/image gives"),
            );
        }
    }
    match headers.get(CLUSTER_HEADER) {
        Some(wanted) if wanted.as_bytes() != here.as_bytes() => {
            let wanted = String::from_utf8_lossy(wanted.as_bytes());
            Refusal(MetadataError::WrongCluster(format!("this metadata service is of cluster {here}, not of {wanted}"))).into_response()
        }
        _ => next.run(request).await,
    }
}

type Service = State<Arc<MetadataService>>;
type Body = Result<Bytes, BytesRejection>;
type Partition = Result<Path<(TopicId, i32)>, PathRejection>;
type Reply = Result<Response, Refusal>;

/// A request that is not answered as asked.
struct Refusal(MetadataError);

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        failed(&self.0, status(&self.0))
    }
}

fn failed(error: &MetadataError, status: StatusCode) -> Response {
    (status, Json(error)).into_response()
}

fn status(error: &MetadataError) -> StatusCode {
    match error {
        MetadataError::UnknownTopic(_)
        | MetadataError::UnknownPartition(_)
        | MetadataError::UnknownTopicId(_)
        | MetadataError::UnknownBroker(_) => StatusCode::NOT_FOUND,
        MetadataError::InvalidTopic(_)
        | MetadataError::InvalidPartitions(_)
        | MetadataError::InvalidReplicationFactor(_)
        | MetadataError::InvalidReplicaAssignment(_)
        | MetadataError::InvalidConfig(_)
        | MetadataError::InvalidFeature(_)
        | MetadataError::PolicyViolation(_)
        | MetadataError::InvalidRequest(_) => StatusCode::BAD_REQUEST,
        MetadataError::TopicExists(_)
        | MetadataError::DuplicateBroker
        | MetadataError::StaleBrokerEpoch
        | MetadataError::FencedLeaderEpoch
        | MetadataError::Conflict(_)
        | MetadataError::ElectionNotNeeded
        | MetadataError::PreferredLeaderNotAvailable
        | MetadataError::EligibleLeadersNotAvailable
        | MetadataError::NoReassignment
        | MetadataError::NotContiguous { .. } => StatusCode::CONFLICT,
        MetadataError::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        MetadataError::WrongCluster(_) => StatusCode::FORBIDDEN,
        MetadataError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn invalid(reason: impl std::fmt::Display) -> Refusal {
    Refusal(MetadataError::InvalidRequest(reason.to_string()))
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    serde_json::from_slice(&body.map_err(|error| invalid(error.body_text()))?).map_err(invalid)
}

fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Refusal> {
    path.map(|Path(path)| path).map_err(|error| invalid(error.body_text()))
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(query)| query).map_err(|error| invalid(error.body_text()))
}

fn partition(from: Partition) -> Result<TopicIdPartition, Refusal> {
    path(from).map(|(topic, partition)| TopicIdPartition::new(topic, partition))
}

/// An answer with the revision of the image at least as new as the call.
fn done<T: Serialize>(service: &MetadataService, answer: &T) -> Reply {
    let revision = HeaderValue::from(service.image().revision);
    Ok(([(HeaderName::from_static(REVISION_HEADER), revision)], Json(answer)).into_response())
}

async fn image(State(service): Service) -> Reply {
    done(&service, &ImageSnapshot::from(&*service.image()))
}

async fn watch(State(service): Service, asked: Result<Query<WatchQuery>, QueryRejection>) -> Reply {
    let WatchQuery { after, wait_ms } = query(asked)?;
    let mut images = service.watch();
    let timeout = service.env().clock.sleep(Duration::from_millis(wait_ms).min(WATCH_WAIT_MAX));
    tokio::pin!(timeout);
    loop {
        images.mark_unchanged();
        match service.deltas().after(after) {
            None => {
                let error = MetadataError::Conflict(format!("steps after revision {after} are not kept: read /v1/image"));
                return Ok(failed(&error, StatusCode::GONE));
            }
            Some(deltas) if !deltas.is_empty() => return done(&service, &deltas),
            Some(none) => {
                tokio::select! {
                    changed = images.changed() => if changed.is_err() { return done(&service, &none) },
                    () = &mut timeout => return done(&service, &none),
                    () = service.env().tasks.stopped() => return done(&service, &none),
                }
            }
        }
    }
}

async fn register_broker(State(service): Service, body: Body) -> Reply {
    let epoch = service.register_broker(parse(body)?).await?;
    done(&service, &Registered { epoch })
}

async fn heartbeat(State(service): Service, id: Result<Path<i32>, PathRejection>, body: Body) -> Reply {
    let Heartbeat { epoch, stopping } = parse(body)?;
    let lasts = service.heartbeat(path(id)?, epoch, stopping).await?;
    done(&service, &HeartbeatTaken { session_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX) })
}

async fn create_topic(State(service): Service, body: Body) -> Reply {
    let topic = service.create_topic(parse(body)?).await?;
    done(&service, &topic)
}

async fn delete_topic(State(service): Service, topic: Result<Path<TopicId>, PathRejection>) -> Reply {
    service.delete_topic(path(topic)?).await?;
    done(&service, &Done {})
}

async fn create_partitions(State(service): Service, topic: Result<Path<TopicId>, PathRejection>, body: Body) -> Reply {
    let CreatePartitions { count, assignments, validate_only } = parse(body)?;
    service.create_partitions(path(topic)?, count, assignments, validate_only).await?;
    done(&service, &Done {})
}

async fn alter_isr(State(service): Service, id: Partition, body: Body) -> Reply {
    let AlterIsr { leader_epoch, partition_epoch, isr } = parse(body)?;
    let partition_epoch = service.alter_isr(partition(id)?, leader_epoch, partition_epoch, isr).await?;
    done(&service, &IsrAltered { partition_epoch })
}

async fn alter_configs(State(service): Service, body: Body) -> Reply {
    let AlterConfigs { resource, ops, validate_only } = parse(body)?;
    service.alter_configs(resource, ops, validate_only).await?;
    done(&service, &Done {})
}

async fn administer(State(service): Service, body: Body) -> Reply {
    let Administer { change, validate_only } = parse(body)?;
    service.administer(change, validate_only).await?;
    done(&service, &Done {})
}

async fn create_acls(State(service): Service, body: Body) -> Reply {
    let made = service.create_acls(parse(body)?).await?;
    done(&service, &made.into_iter().map(Result::err).collect::<Vec<_>>())
}

async fn delete_acls(State(service): Service, body: Body) -> Reply {
    done(&service, &service.delete_acls(parse(body)?).await?)
}

async fn allocate_producer_ids(State(service): Service, body: Body) -> Reply {
    let AllocateProducerIds { broker, epoch } = parse(body)?;
    let (first, count) = service.allocate_producer_ids(broker, epoch).await?;
    done(&service, &ProducerIds { first, count })
}

async fn segment_intent(State(service): Service, body: Body) -> Reply {
    service.segment_intent(parse(body)?).await?;
    done(&service, &Done {})
}

async fn segment_commit(State(service): Service, body: Body) -> Reply {
    service.segment_commit(parse(body)?).await?;
    done(&service, &Done {})
}

async fn list_segments(State(service): Service, id: Partition, asked: Result<Query<ListQuery>, QueryRejection>) -> Reply {
    let ListQuery { from, limit } = query(asked)?;
    done(&service, &service.list_segments(partition(id)?, from, limit).await?)
}

async fn find_segment(State(service): Service, id: Partition, asked: Result<Query<AtQuery>, QueryRejection>) -> Reply {
    let id = partition(id)?;
    let found: Option<SegmentRow> = match query(asked)? {
        AtQuery { offset: Some(offset), timestamp_ms: None } => service.find_segment(id, offset).await?,
        AtQuery { offset: None, timestamp_ms: Some(timestamp_ms) } => service.find_segment_by_time(id, timestamp_ms).await?,
        _ => return Err(invalid("ask with ?offset= or with ?timestamp_ms=")),
    };
    done(&service, &found)
}

async fn remote_extent(State(service): Service, id: Partition) -> Reply {
    done(&service, &service.remote_extent(partition(id)?).await?)
}

async fn raise_log_start(State(service): Service, id: Partition, body: Body) -> Reply {
    let RaiseLogStart { leader_epoch, offset } = parse(body)?;
    service.raise_log_start(partition(id)?, leader_epoch, offset).await?;
    done(&service, &Done {})
}

async fn garbage(State(service): Service, body: Body) -> Reply {
    let Garbage { grace_ms, limit } = parse(body)?;
    done(&service, &service.garbage(grace_ms, limit).await?)
}

async fn forget(State(service): Service, body: Body) -> Reply {
    service.forget(parse(body)?).await?;
    done(&service, &Done {})
}
