//! The client against the server on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use siltstone_common::{Env, TopicIdPartition};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::*;
use crate::acls::{AclBinding, AclBindingFilter, AclOperation, AclPermissionType, PatternFilter, PatternType, ResourceType};
use crate::api::{CreateTopic, MetadataApi, MetadataError, RegisterBroker};
use crate::segments::{SegmentRow, SegmentState};
use crate::service::{MetadataService, MetadataServiceConfig};
use crate::store::conformance::eventually;
use crate::store::{MemoryStore, MetadataStore, Write};

struct Server {
    service: Arc<MetadataService>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// A server in a runtime of its own, as another process would be.
    async fn start(store: &MemoryStore, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = store.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let service = MetadataService::open(Arc::new(store), MetadataServiceConfig::default(), Env::system()).await.unwrap();
            let listener = TcpListener::bind(address).await.unwrap();
            let _ = sender.send((service.clone(), listener.local_addr().unwrap()));
            axum::serve(listener, router(service)).await.unwrap();
        });
        let (service, address) = receiver.await.unwrap();
        Self { service, address, runtime: Some(runtime) }
    }

    /// Stops it, connections and all, as a killed process would.
    fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A server at an address that another one has just left.
async fn restart(store: &MemoryStore, address: SocketAddr) -> Server {
    eventually(|| async { TcpListener::bind(address).await.is_ok() }).await;
    Server::start(store, address).await
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn connect(address: SocketAddr) -> HttpMetadata {
    HttpMetadata::connect(HttpMetadataConfig::new(vec![format!("http://{address}")]), Env::system()).await.unwrap()
}

fn asked(name: &str) -> CreateTopic {
    CreateTopic { name: name.into(), partitions: 2, replication_factor: -1, ..CreateTopic::default() }
}

async fn join(api: &impl MetadataApi) -> i64 {
    let broker =
        RegisterBroker { id: 1, host: "h".into(), port: 9092, rack: Some("r".into()), clean_shutdown: true, directory: uuid::Uuid::nil() };
    let epoch = api.register_broker(broker).await.unwrap();
    api.heartbeat(1, epoch, false).await.unwrap();
    epoch
}

#[tokio::test]
async fn every_call_works_over_http_and_shows_in_the_image_when_it_returns() {
    let server = Server::start(&MemoryStore::new(Env::system()), anywhere()).await;
    let client = connect(server.address).await;
    let epoch = join(&client).await;
    assert!(!client.image().brokers[&1].fenced);
    let topic = client.create_topic(asked("t")).await.unwrap();
    assert_eq!(client.image().topic("t"), Some(&topic));
    client.create_partitions(topic.id, 3, vec![vec![1]], false).await.unwrap();
    assert_eq!(client.image().topic("t").unwrap().partitions.len(), 3);
    let set = ConfigOp::Set("retention.ms".into(), "5".into());
    client.alter_configs(ConfigResource::Topic("t".into()), vec![set], false).await.unwrap();
    assert_eq!(client.image().topic("t").unwrap().configs, BTreeMap::from([("retention.ms".into(), "5".into())]));
    acls(&client, server.address).await;
    let id = TopicIdPartition::new(topic.id, 0);
    let alter = client.alter_isr(id, 0, 0, vec![1, 2]).await;
    assert!(matches!(alter, Err(MetadataError::InvalidRequest(_))), "{alter:?}");
    assert_eq!(client.alter_isr(id, 0, 0, vec![1]).await, Ok(0));
    assert_eq!(client.allocate_producer_ids(1, epoch).await, Ok((0, 1000)));
    segments(&client, id).await;
    client.delete_topic(topic.id).await.unwrap();
    assert_eq!(client.image().topic("t"), None);
    assert_eq!(client.delete_topic(topic.id).await, Err(MetadataError::UnknownTopicId(topic.id)));
    client.heartbeat(1, epoch, true).await.unwrap();
    assert!(client.image().brokers[&1].fenced);
    let (here, there) = (client.image(), server.service.image());
    assert_eq!((here.revision, &here.brokers, &here.topics), (there.revision, &there.brokers, &there.topics));
}

async fn acls(client: &HttpMetadata, address: SocketAddr) {
    let acl = |principal: &str| AclBinding {
        resource_type: ResourceType::Topic,
        resource_name: "t".into(),
        pattern_type: PatternType::Prefixed,
        principal: principal.into(),
        host: "*".into(),
        operation: AclOperation::IdempotentWrite,
        permission_type: AclPermissionType::Deny,
    };
    let made = client.create_acls(vec![acl("User:a"), acl("nobody"), acl("User:b")]).await.unwrap();
    assert!(matches!(made[..], [Ok(()), Err(MetadataError::InvalidRequest(_)), Ok(())]), "{made:?}");
    assert_eq!(client.image().acls.iter().collect::<Vec<_>>(), [acl("User:a"), acl("User:b")]);
    let filter = AclBindingFilter {
        resource_type: None,
        resource_name: None,
        pattern: PatternFilter::Exactly(PatternType::Prefixed),
        principal: Some("User:a".into()),
        host: None,
        operation: None,
        permission_type: None,
    };
    assert_eq!(client.delete_acls(vec![filter.clone(), filter]).await, Ok(vec![vec![acl("User:a")], vec![acl("User:a")]]));
    assert_eq!(client.image().acls.iter().collect::<Vec<_>>(), [acl("User:b")]);
    let anew = connect(address).await.image();
    assert_eq!(anew.acls, client.image().acls, "the whole image has them too");
}

async fn segments(client: &HttpMetadata, id: TopicIdPartition) {
    let row = |base_offset: i64| SegmentRow {
        id,
        base_offset,
        last_offset: base_offset + 9,
        max_timestamp_ms: base_offset,
        leader_epoch: 0,
        attempt: uuid::Uuid::from_u128(7),
        object_key: "k".into(),
        object_bytes: 2,
        data_bytes: 1,
        checksum: u64::MAX,
        has_aborts: true,
        generation: 0,
        appended_ms: -1,
        state: SegmentState::Intent { deadline_ms: i64::MAX },
    };
    let early = client.segment_commit(row(0)).await;
    assert!(matches!(early, Err(MetadataError::Conflict(_))), "no commit without an intent: {early:?}");
    client.segment_intent(row(0)).await.unwrap();
    client.segment_commit(row(0)).await.unwrap();
    let gap = client.segment_commit(row(20)).await;
    assert_eq!(gap, Err(MetadataError::NotContiguous { base_offset: 20, expected: 10 }));
    let committed = SegmentRow { state: SegmentState::Committed, ..row(0) };
    assert_eq!(client.find_segment(id, 5).await, Ok(Some(committed.clone())));
    assert_eq!(client.find_segment_by_time(id, 1).await, Ok(None));
    assert_eq!(client.list_segments(id, 0, 10).await, Ok(vec![committed]));
    assert_eq!(client.remote_extent(id).await.unwrap().remote_end, 10);
    client.raise_log_start(id, 0, 10).await.unwrap();
    let gone = client.garbage(0, 10).await.unwrap();
    assert_eq!(gone.len(), 1);
    client.forget(gone).await.unwrap();
    assert_eq!(client.garbage(0, 10).await, Ok(vec![]));
}

#[tokio::test]
async fn a_client_follows_changes_of_others_and_lists_anew_after_a_gap() {
    let store = MemoryStore::new(Env::system());
    let server = Server::start(&store, anywhere()).await;
    let address = server.address;
    let client = connect(address).await;
    join(&*server.service).await;
    server.service.create_topic(asked("first")).await.unwrap();
    eventually(|| async { client.image().topic("first").is_some() }).await;
    let before = client.image().revision;
    server.kill();
    // While the client hears nothing, the store moves on under another server.
    let elsewhere = Server::start(&store, anywhere()).await;
    elsewhere.service.create_topic(asked("second")).await.unwrap();
    let deleted = elsewhere.service.image().topic("first").unwrap().id;
    elsewhere.service.delete_topic(deleted).await.unwrap();
    elsewhere.kill();
    let _back = restart(&store, address).await;
    let asked = format!("http://{address}/v1/watch?after={before}");
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(asked).send().await.unwrap();
    assert_eq!(answer.status(), 410, "there is a gap");
    eventually(|| async { client.image().topic("second").is_some() && client.image().topic("first").is_none() }).await;
    assert!(client.image().revision > before, "forward only (I46)");
}

#[tokio::test]
async fn a_client_never_follows_another_cluster_or_an_older_image() {
    let server = Server::start(&MemoryStore::new(Env::system()), anywhere()).await;
    let address = server.address;
    join(&*server.service).await;
    let client = connect(address).await;
    let known = client.image();
    server.kill();
    let other = restart(&MemoryStore::new(Env::system()), address).await;
    assert_ne!(other.service.image().cluster_id, known.cluster_id);
    for round in 0..20 {
        other
            .service
            .register_broker(RegisterBroker { id: 7, host: "h".into(), port: 1, clean_shutdown: true, ..RegisterBroker::default() })
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(client.image().brokers, known.brokers, "after {round} rounds");
    }
}

#[tokio::test]
async fn bad_requests_get_a_reason_and_a_fitting_status() {
    let store = MemoryStore::new(Env::system());
    let server = Server::start(&store, anywhere()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", server.address);
    let cluster = server.service.image().cluster_id.clone();
    let change = |path: &str| http.post(url(path)).header("content-type", "application/json").header(CLUSTER_HEADER, &cluster);
    let post = |path: &str, body: &str| change(path).body(body.to_owned()).send();
    let topic = "00000000-0000-0000-0000-000000000001";
    for (path, body, status) in [
        ("/v1/topics", "{", 400),
        ("/v1/topics", "{\"name\":5}", 400),
        ("/v1/configs", "{\"resource\":{\"topic\":\"t\"},\"ops\":[],\"extra\":1}", 400),
        ("/v1/configs", "{\"resource\":{\"topic\":\"t\"},\"ops\":[]}", 404),
        ("/v1/brokers/1/heartbeat", "{\"epoch\":1}", 404),
        ("/v1/brokers/x/heartbeat", "{\"epoch\":1}", 400),
        ("/v1/nowhere", "{}", 404),
        ("/v1/image", "{}", 405),
    ] {
        let response = post(path, body).await.unwrap();
        assert_eq!(response.status(), status, "{path} {body}");
        let error: MetadataError = response.json().await.unwrap();
        assert!(!error.to_string().is_empty());
    }
    let get = |path: String| http.get(url(&path)).send();
    assert_eq!(get(format!("/v1/segments/{topic}/0/at")).await.unwrap().status(), 400);
    assert_eq!(get(format!("/v1/segments/{topic}/0/extent")).await.unwrap().status(), 404);
    assert_eq!(get("/v1/watch?after=999999".into()).await.unwrap().status(), 410, "a revision yet to come");
    let huge = change("/v1/topics").body(vec![b' '; BODY_BYTES_MAX + 1]).send().await.unwrap();
    assert_eq!(huge.status(), 400);
    let revision = server.service.image().revision;
    store.txn(crate::store::Txn { when: vec![], then: vec![Write::put("other", "x")] }).await.unwrap();
    let quiet = get(format!("/v1/watch?after={revision}&wait_ms=1")).await.unwrap();
    assert_eq!(quiet.text().await.unwrap(), "[]");
}

/// What a page in a browser on the same machine can send without being asked first.
#[tokio::test]
async fn a_change_needs_what_no_web_page_can_send() {
    let server = Server::start(&MemoryStore::new(Env::system()), anywhere()).await;
    let cluster = server.service.image().cluster_id.clone();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/configs", server.address);
    let body = "{\"resource\":{\"broker\":\"\"},\"ops\":[{\"set\":[\"message.max.bytes\",\"5\"]}],\"validate_only\":false}";
    let json = [("content-type", "application/json")];
    let (cluster, origin) = ([(CLUSTER_HEADER, cluster.as_str())], [("origin", "http://evil.example")]);
    for (headers, status) in [
        (vec![], 415),
        (vec![cluster[0], ("content-type", "text/plain")], 415),
        (vec![json[0]], 403),
        (vec![json[0], cluster[0], origin[0]], 403),
        (vec![json[0], cluster[0]], 200),
    ] {
        let request = headers.iter().fold(http.post(&url), |request, (name, value)| request.header(*name, *value));
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{headers:?}");
        let changed = server.service.image().broker_configs.get("").is_some_and(|configs| configs.contains_key("message.max.bytes"));
        assert_eq!(changed, status == 200, "{headers:?}");
    }
    let read = http.get(format!("http://{}/v1/image", server.address)).header("origin", "http://evil.example").send();
    assert_eq!(read.await.unwrap().status(), 403);
}

#[tokio::test]
async fn an_unreachable_service_is_an_error_in_time() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config =
        HttpMetadataConfig { call_timeout: Duration::from_millis(200), ..HttpMetadataConfig::new(vec![format!("http://{address}")]) };
    let error = HttpMetadata::connect(config, Env::system()).await.unwrap_err();
    assert!(error.retryable(), "{error}");
}
