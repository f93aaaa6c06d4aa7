use super::*;

async fn memory() -> RemoteStore {
    RemoteStore::open(&StoreConfig { url: "memory://".to_owned(), s3_endpoint: None }, Env::system()).unwrap()
}

#[tokio::test]
async fn addresses_that_cannot_be_used_say_how_to_write_them() {
    for (url, part) in [
        ("bucket", "use file:///DIR"),
        ("file://relative/dir", "three slashes"),
        ("s3://", "name a bucket"),
        ("ftp://bucket", "unknown scheme"),
        ("s3://bucket/a//b", "empty path segment"),
    ] {
        let error = RemoteStore::open(&StoreConfig { url: url.to_owned(), s3_endpoint: None }, Env::system()).unwrap_err();
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
    let config = StoreConfig { url: "s3://bucket".to_owned(), s3_endpoint: Some("http://example.org:9000".to_owned()) };
    let error = RemoteStore::open(&config, Env::system()).unwrap_err();
    assert!(error.to_string().contains("AWS_ALLOW_HTTP"), "{error}");
}

#[tokio::test]
async fn a_prefix_belongs_to_one_cluster() {
    let store = memory().await;
    store.claim("one").await.unwrap();
    store.claim("one").await.unwrap();
    let error = store.claim("two").await.unwrap_err();
    assert!(matches!(&error, StoreError::BadAddress { reason, .. } if reason.contains("belongs to cluster 'one'")), "{error}");
}

#[tokio::test]
async fn the_same_content_written_again_is_success_and_another_is_not() {
    let store = memory().await;
    let (a, b) = (Bytes::from_static(b"aaaa"), Bytes::from_static(b"bbbb"));
    let crc = |bytes: &[u8]| crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes);
    store.put_new("k", vec![a.clone()], crc(&a)).await.unwrap();
    store.put_new("k", vec![a.slice(..2), a.slice(2..)], crc(&a)).await.unwrap();
    assert_eq!(store.put_new("k", vec![b.clone()], crc(&b)).await, Err(StoreError::AlreadyExists("k".to_owned())));
    assert_eq!(store.get_range("k", 0, 4).await.unwrap(), a);
}

#[tokio::test]
async fn a_range_past_the_end_is_corruption_and_not_short_data() {
    let store = memory().await;
    store.put_new("k", vec![Bytes::from_static(b"0123456789")], 0).await.unwrap();
    assert_eq!(store.get_range("k", 2, 5).await.unwrap(), "234");
    assert!(matches!(store.get_range("k", 5, 11).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.get_range("missing", 0, 1).await, Err(StoreError::NotFound("missing".to_owned())));
}

#[tokio::test]
async fn the_probe_tells_what_memory_honours_and_leaves_nothing() {
    let store = memory().await;
    let traits = store.probe().await.unwrap();
    assert_eq!(traits, StoreTraits { conditional_create: true, read_after_write: true, list_after_write: true });
    assert!(store.list("").next().await.is_none());
}
