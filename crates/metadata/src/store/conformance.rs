//! The contract of [`super::MetadataStore`] as tests, run on every provider.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use siltstone_common::Env;
use siltstone_common::fs::sim::{SimFault, SimFs};
use siltstone_common::fs::{FileSystem, OpenMode};

use super::*;

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(name: &str, value: &str) -> Write {
    Write::put(key(name), key(value))
}

async fn must(store: &dyn MetadataStore, when: Vec<Precondition>, then: Vec<Write>) -> u64 {
    match store.txn(Txn { when, then }).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict => panic!("conflict"),
    }
}

async fn names(store: &dyn MetadataStore, range: Range) -> (Vec<String>, bool) {
    let page = store.range(range).await.unwrap();
    (page.rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect(), page.more)
}

/// Waits for a condition, at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition did not come true");
}

/// All of it.
pub(crate) async fn suite(store: Arc<dyn MetadataStore>) {
    rows_and_revisions(&*store).await;
    preconditions(&*store).await;
    ranges(&*store).await;
    limits(&*store).await;
    watches(&*store).await;
    leases(&*store).await;
    concurrent_counters(store).await;
}

async fn rows_and_revisions(store: &dyn MetadataStore) {
    assert_eq!(store.get(b"a").await.unwrap(), None);
    let first = must(store, vec![], vec![put("a", "1"), put("b", "2")]).await;
    let row = store.get(b"a").await.unwrap().unwrap();
    assert_eq!((&row.key[..], &row.value[..], row.revision), (&b"a"[..], &b"1"[..], first));
    let second = must(store, vec![], vec![put("a", ""), Write::Delete(key("none"))]).await;
    assert!(second > first);
    let found = store.get_many(vec![key("b"), key("none"), key("a")]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().revision, first, "untouched rows keep their revision");
    assert_eq!(found[1], None);
    assert_eq!((found[2].as_ref().unwrap().value.len(), found[2].as_ref().unwrap().revision), (0, second));
    let third = must(store, vec![], vec![Write::Delete(key("a")), Write::Delete(key("b"))]).await;
    assert_eq!(store.get(b"a").await.unwrap(), None);
    assert_eq!(must(store, vec![], vec![]).await, third, "a transaction without writes has no revision of its own");
}

async fn preconditions(store: &dyn MetadataStore) {
    let absent = || vec![Precondition::Revision(key("p"), 0)];
    let first = must(store, absent(), vec![put("p", "1")]).await;
    let refused = store.txn(Txn { when: absent(), then: vec![put("p", "2"), put("q", "2")] }).await.unwrap();
    assert_eq!(refused, TxnOutcome::Conflict);
    assert_eq!(store.get(b"q").await.unwrap(), None, "nothing of a refused transaction happens");
    let both = vec![Precondition::Revision(key("p"), first), Precondition::Exists(key("q"))];
    assert_eq!(store.txn(Txn { when: both, then: vec![put("p", "3")] }).await.unwrap(), TxnOutcome::Conflict);
    let second = must(store, vec![Precondition::Revision(key("p"), first)], vec![put("p", "4")]).await;
    must(store, vec![Precondition::Exists(key("p"))], vec![Write::Delete(key("p"))]).await;
    let stale = Txn { when: vec![Precondition::Revision(key("p"), second)], then: vec![put("p", "5")] };
    assert_eq!(store.txn(stale).await.unwrap(), TxnOutcome::Conflict);
    let anew = must(store, absent(), vec![put("p", "6")]).await;
    assert!(anew > second, "a row made anew has a higher revision than ever");
    must(store, vec![], vec![Write::Delete(key("p"))]).await;
}

async fn ranges(store: &dyn MetadataStore) {
    must(store, vec![], ["r/1", "r/2", "r/3", "r/4", "r0", "r"].iter().map(|name| put(name, name)).collect()).await;
    let range = |limit, reverse| Range { limit, reverse, ..Range::prefix(b"r/") };
    assert_eq!(names(store, range(10, false)).await, (vec!["r/1".into(), "r/2".into(), "r/3".into(), "r/4".into()], false));
    assert_eq!(names(store, range(3, true)).await, (vec!["r/4".into(), "r/3".into(), "r/2".into()], true));
    assert!(!names(store, range(4, false)).await.1, "a page that just fits is the last");
    let empty = Range { from: key("r/3"), to: key("r/3"), limit: 10, reverse: false };
    assert_eq!(names(store, empty).await, (vec![], false));
    let backwards = Range { from: key("r/3"), to: key("r/1"), limit: 10, reverse: false };
    assert_eq!(names(store, backwards).await, (vec![], false));
    assert_eq!(&prefix_end(b"a\xff")[..], b"b");
    must(store, vec![], ["r/1", "r/2", "r/3", "r/4", "r0", "r"].iter().map(|name| Write::Delete(key(name))).collect()).await;
}

async fn limits(store: &dyn MetadataStore) {
    let many = |count: usize| (0..count).map(|index| put(&format!("l/{index:03}"), "x")).collect::<Vec<_>>();
    let before = store.range(Range::prefix(b"l/")).await.unwrap().revision;
    let refused = [
        Txn { when: vec![Precondition::Exists(key("l"))], then: many(TXN_OPS_MAX) },
        Txn { when: vec![], then: vec![Write::put(vec![b'k'; KEY_BYTES_MAX + 1], "x")] },
        Txn { when: vec![], then: vec![Write::put("", "x")] },
        Txn { when: vec![], then: vec![Write::put("l/big", vec![0; TXN_BYTES_MAX])] },
        Txn { when: vec![], then: vec![put("l/1", "a"), put("l/1", "b")] },
    ];
    for txn in refused {
        assert!(matches!(store.txn(txn).await, Err(StoreError::TooLarge(_))));
    }
    let page = store.range(Range::prefix(b"l/")).await.unwrap();
    assert_eq!((page.rows.len(), page.revision), (0, before));
    must(store, vec![], many(TXN_OPS_MAX)).await;
    must(store, vec![], vec![Write::put(vec![b'k'; KEY_BYTES_MAX], vec![7; TXN_BYTES_MAX - KEY_BYTES_MAX])]).await;
    must(store, vec![], (0..TXN_OPS_MAX).map(|index| Write::Delete(key(&format!("l/{index:03}")))).collect()).await;
    must(store, vec![], vec![Write::Delete(vec![b'k'; KEY_BYTES_MAX].into())]).await;
}

async fn watches(store: &dyn MetadataStore) {
    let start = must(store, vec![], vec![put("w/0", "0")]).await;
    let mut early = store.watch(start).await.unwrap();
    let mut revisions = Vec::new();
    for index in 1..=5 {
        revisions.push(must(store, vec![], vec![put("w/0", &index.to_string()), put(&format!("w/{index}"), "x")]).await);
    }
    revisions.push(must(store, vec![], vec![Write::Delete(key("w/0"))]).await);
    let mut late = store.watch(revisions[1]).await.unwrap();
    assert_eq!(collect(&mut early, 6).await.iter().map(|event| event.revision).collect::<Vec<_>>(), revisions);
    let seen = collect(&mut late, 4).await;
    assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), revisions[2..]);
    assert_eq!(*seen[3].rows, vec![(key("w/0"), None)]);
    assert_eq!(*seen[0].rows, vec![(key("w/0"), Some(key("3"))), (key("w/3"), Some(key("x")))]);
    assert!(tokio::time::timeout(Duration::from_millis(1), late.next()).await.is_err(), "nothing comes twice");
    let refused = Txn { when: vec![Precondition::Exists(key("w/none"))], then: vec![put("w/9", "x")] };
    assert_eq!(store.txn(refused).await.unwrap(), TxnOutcome::Conflict);
    let next = must(store, vec![], vec![put("w/8", "x")]).await;
    assert_eq!(collect(&mut late, 1).await[0].revision, next, "a refused transaction is no event");
    for batch in 0..40 {
        must(store, vec![], vec![Write::put(format!("w/fill{batch}"), vec![0; 400_000])]).await;
    }
    assert!(matches!(store.watch(start).await, Err(StoreError::Compacted(_))), "history is bounded");
    assert!(matches!(late.next().await, Err(StoreError::Compacted(_))), "and a watcher that lags behind learns of it");
    for batch in 0..40 {
        must(store, vec![], vec![Write::Delete(key(&format!("w/fill{batch}")))]).await;
    }
}

async fn collect(watch: &mut StoreWatch, count: usize) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(watch.next().await.unwrap());
    }
    assert_eq!(events.len(), count);
    events
}

async fn leases(store: &dyn MetadataStore) {
    let under = |name: &str, lease| Write::Put { key: key(name), value: key("x"), lease: Some(lease) };
    let long = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    must(store, vec![], vec![under("s/long", long), under("s/kept", long), put("s/free", "x")]).await;
    must(store, vec![], vec![put("s/kept", "without a lease now")]).await;
    let short = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    let held = must(store, vec![], vec![under("s/short", short)]).await;
    let mut watch = store.watch(held).await.unwrap();
    eventually(|| async { store.get(b"s/short").await.unwrap().is_none() }).await;
    assert_eq!(*collect(&mut watch, 1).await[0].rows, vec![(key("s/short"), None)], "the end of a lease is a transaction");
    assert!(matches!(store.keep_alive(short).await, Err(StoreError::LeaseOver)));
    let late = Txn { when: vec![], then: vec![under("s/short", short)] };
    assert!(matches!(store.txn(late).await, Err(StoreError::LeaseOver)));
    store.keep_alive(long).await.unwrap();
    store.revoke(long).await.unwrap();
    assert_eq!(names(store, Range::prefix(b"s/")).await.0, ["s/free", "s/kept"]);
    must(store, vec![], vec![Write::Delete(key("s/free")), Write::Delete(key("s/kept"))]).await;
}

async fn concurrent_counters(store: Arc<dyn MetadataStore>) {
    const TASKS: usize = 8;
    const STEPS: usize = 20;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.push(async move {
            let mut done = 0;
            while done < STEPS {
                let row = store.get(b"counter").await.unwrap();
                let count: usize = row.as_ref().map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap());
                let when = vec![Precondition::Revision(key("counter"), row.map_or(0, |row| row.revision))];
                let txn = Txn { when, then: vec![put("counter", &(count + 1).to_string())] };
                done += usize::from(matches!(store.txn(txn).await.unwrap(), TxnOutcome::Committed(_)));
            }
        });
    }
    futures::future::join_all(tasks).await;
    assert_eq!(store.get(b"counter").await.unwrap().unwrap().value, key(&(TASKS * STEPS).to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    suite(Arc::new(MemoryStore::new(Env::system()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    suite(Arc::new(RedbStore::open(dir.path(), Env::system()).await.unwrap())).await;
}

#[tokio::test]
async fn redb_keeps_rows_and_revisions_and_ends_leases_when_it_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = || async { RedbStore::open(dir.path(), Env::system()).await };
    let store = open().await.unwrap();
    assert!(matches!(open().await, Err(StoreError::Open(_))), "a second process is refused");
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let kept = must(&store, vec![], vec![put("kept", "1")]).await;
    let held = must(&store, vec![], vec![Write::Put { key: key("held"), value: key("x"), lease: Some(lease) }]).await;
    drop(store);
    eventually(|| async { open().await.is_ok() }).await;
    let store = open().await.unwrap();
    assert_eq!(store.get(b"kept").await.unwrap().unwrap().revision, kept);
    assert_eq!(store.get(b"held").await.unwrap(), None);
    assert!(must(&store, vec![], vec![put("kept", "2")]).await > held, "revisions rise for ever");
    assert!(matches!(store.watch(kept).await, Err(StoreError::Compacted(_))));
}

/// F27, I36: whichever byte is hit, the store refuses to open, or has every row as it was.
#[tokio::test]
async fn redb_with_a_flipped_bit_is_refused_or_whole() {
    const FLIPS: u64 = 120;
    let (fs, dir) = (Arc::new(SimFs::new()), Path::new("/metadata"));
    let store = RedbStore::open(dir, Env::simulated(1, fs.clone())).await.unwrap();
    for chunk in 0..8 {
        must(&store, vec![], (0..40).map(|at| put(&format!("row {chunk} {at}"), &"value".repeat(10))).collect()).await;
    }
    let rows = store.range(Range::prefix(b"row")).await.unwrap().rows;
    assert_eq!(rows.len(), 320);
    drop(store);
    let path = dir.join("metadata.redb");
    let len = fs.open(&path, OpenMode::Read).unwrap().len().unwrap();
    let mut refused = 0;
    for step in 0..FLIPS {
        let damaged = Arc::new(fs.kill());
        let position = len * step / FLIPS + step % 7;
        damaged.flip_bit(&path, position, (step % 8) as u8).unwrap();
        let opened = tokio::spawn(RedbStore::open(dir, Env::simulated(1, damaged))).await;
        match opened {
            // Where redb returns an error it panics in a debug build.
            Err(failed) => assert!(failed.is_panic() && cfg!(debug_assertions), "{position}: {failed}"),
            Ok(Err(StoreError::Open(why))) => {
                refused += 1;
                assert!(why.contains("metadata.redb"), "{position}: {why}");
            }
            Ok(opened) => assert!(opened.unwrap().range(Range::prefix(b"row")).await.unwrap().rows == rows, "{position}"),
        }
    }
    assert!(refused > 10, "{refused}");
}

/// F21, F23, I40: what the disk refused for a while works again without a restart, and nothing is half done.
#[tokio::test]
async fn redb_goes_on_once_there_is_room_and_the_disk_reads_again() {
    let (fs, dir) = (Arc::new(SimFs::new()), Path::new("/metadata"));
    let store = RedbStore::open(dir, Env::simulated(1, fs.clone())).await.unwrap();
    let all_bytes = || fs.dump().into_iter().filter_map(|(_, bytes)| Some(bytes?.len() as u64)).sum();
    let big = |number: usize| Txn { when: vec![], then: vec![put(&format!("big {number}"), &"x".repeat(400_000))] };
    let mut count = 0;
    for round in 1..4 {
        let revision = must(&store, vec![], vec![put("row", &round.to_string())]).await;
        fs.set_capacity(Some(all_bytes()));
        while store.txn(big(count)).await.is_ok() {
            count += 1;
            assert!(count < 100, "the disk is never full");
        }
        assert!(matches!(store.txn(big(count)).await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.get(b"row").await.unwrap().unwrap().revision, revision, "reads go on");
        fs.set_capacity(None);
    }
    fs.inject(SimFault::Read, "metadata.redb", 1);
    must(&store, vec![], vec![put("row", "read")]).await;
    assert_eq!(names(&store, Range::prefix(b"big")).await.0.len(), count);
    fs.inject(SimFault::Sync, "metadata.redb", 1);
    for _ in 0..2 {
        let then = vec![put("row", "lost")];
        assert!(store.txn(Txn { when: vec![], then }).await.is_err(), "a failed sync is believed (I38)");
    }
}
