//! Requests of every API that name something once, at length, and then ask for very many small things of it: what the handlers hold for them, answers
//! included, must stay in proportion to the bytes that came (I42). A name copied for each of them would not.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest};
use kafka_protocol::protocol::{Encodable, Request};
use siltstone_coordinator::FetchOffsetsRequest;

use super::skeletons::skeleton;
use super::tests::{Sizes, make_sized};
use crate::answer::Answer;
use crate::api_table::{self, APIS, Row};
use crate::budget::MemoryBudget;
use crate::connection::InboundFrame;
use crate::dispatch::{Dispatch, Handlers, Incoming, Work};
use crate::heap_meter::peak_bytes_of;
use crate::limits::Limits;
use crate::metrics::ServerMetrics;
use crate::rig::Rig;
use crate::session::Session;
use crate::topic_lookup::{text, topic_name};

/// Small things in each request.
const COUNT: u32 = 4_000;
/// Longest name, bytes.
const LONG: u32 = 16_000;
/// The bound on the heap of a request and its answer: so many times its bytes (an index of four is a struct in the request, in the coordinator and in
/// the answer), and this, for the words of an error that name an ordinary topic. What repeats that much more often has `AnswerRoom`.
const HEAP_PER_BYTE: usize = 64;
const HEAP_FREE: usize = 4 * 1024 * 1024;

/// One of everything around, with long names; at `depth` very many, all short; nothing in those.
struct Repeats {
    depth: u32,
    /// Length of names at each depth above.
    names: [u32; 4],
    /// The partition, or -1 for a different one each time.
    partition: i32,
    next: i32,
}

impl Sizes for Repeats {
    fn text_len(&mut self, depth: u32) -> u32 {
        if depth < self.depth { self.names[depth as usize] } else { 1 }
    }

    fn count(&mut self, depth: u32) -> u32 {
        match (depth + 1).cmp(&self.depth) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => COUNT,
            std::cmp::Ordering::Greater => 0,
        }
    }

    fn number(&mut self) -> i32 {
        self.next += 1;
        if self.partition < 0 { self.next } else { self.partition }
    }
}

async fn answer(handlers: &Arc<Handlers>, row: Row, version: i16, body: &[u8]) -> Result<(), String> {
    let incoming = Incoming {
        row,
        version,
        correlation_id: 1,
        client_id: None,
        session: Session::anonymous(([127, 0, 0, 1], 1).into()),
        frame: InboundFrame { allocation_bytes: body.len(), bytes: BytesMut::from(body) },
        body_start: 0,
    };
    let mut charge = MemoryBudget::new(usize::MAX).charge();
    match Arc::clone(handlers).dispatch(incoming, &mut charge)? {
        Work::Waiting(work) | Work::Reading(work) | Work::Running(work) => match work.await {
            Answer::Close(reason) => Err(reason),
            Answer::Nothing | Answer::Frame(_) => Ok(()),
        },
        Work::Appending(_) | Work::Done(_) => Err("not expected here".to_owned()),
    }
}

/// A name as the maker of requests writes it.
fn name(len: u32) -> String {
    (0..len).map(|index| char::from(b'a' + (index % 26) as u8)).collect()
}

/// A broker with a topic of one partition, and its coordinators at work.
async fn broker() -> (Rig, Arc<Handlers>) {
    let rig = Rig::new().await;
    for (topic, partitions) in [(name(249), 1), ("__consumer_offsets".to_owned(), 50), ("__transaction_state".to_owned(), 50)] {
        rig.create_topic(&topic, partitions).await;
    }
    let asked = || FetchOffsetsRequest { group_id: name(LONG), member_id: None, member_epoch: -1, partitions: None, require_stable: false };
    while rig.services.groups.fetch_offsets(asked()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let limits = Limits::default();
    let handlers = Handlers::new(Arc::clone(&rig.services), &limits, &Arc::new(ServerMetrics::new(limits.queued_request_bytes_max)));
    (rig, handlers)
}

#[tokio::test]
async fn what_handlers_hold_is_in_proportion_to_the_request() {
    let (_rig, handlers) = broker().await;
    let (mut answered, mut excesses) = (0, Vec::new());
    for api in APIS.iter().filter(|api| skeleton(api.key).is_some()) {
        let row = api_table::find(api.key).expect("is served");
        let skeleton = skeleton(api.key).expect("has a skeleton");
        let mut versions = vec![api.min_version, api.max_version - 1, api.max_version];
        versions.retain(|version| *version >= api.min_version);
        versions.dedup();
        for version in versions {
            for (depth, names, partition) in
                [(1, [LONG; 4], -1), (2, [LONG; 4], -1), (3, [LONG; 4], -1), (2, [LONG, 249, 249, 249], 0), (3, [LONG, 249, 249, 249], 0)]
            {
                let body = make_sized(skeleton, version, &mut Repeats { depth, names, partition, next: 0 });
                let work = tokio::time::timeout(Duration::from_secs(10), answer(&handlers, row, version, &body));
                let (peak, outcome) = peak_bytes_of(work).await;
                let outcome = outcome.unwrap_or_else(|_| panic!("{} v{version} waits", api.name));
                answered += usize::from(outcome.is_ok());
                if peak > HEAP_PER_BYTE * body.len() + HEAP_FREE {
                    excesses.push(format!("{} v{version}, depth {depth}: {peak} bytes of heap for {}", api.name, body.len()));
                }
            }
        }
    }
    assert!(excesses.is_empty(), "{excesses:#?}");
    assert!(answered > 100, "only {answered} were answered");
}

/// Each record of a commit names the group again.
#[tokio::test]
async fn a_commit_of_one_offset_very_often_does_not_repeat_the_group_as_often() {
    let (rig, handlers) = broker().await;
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5).with_committed_metadata(Some(text("")));
    for count in [10, COUNT] {
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(&name(249)));
        let topic = topic.with_partitions(vec![partition.clone(); count as usize]);
        let request = OffsetCommitRequest::default().with_group_id(GroupId(text(name(LONG)))).with_topics(vec![topic]);
        let mut body = BytesMut::new();
        request.encode(&mut body, 8).expect("encodes");
        let row = api_table::find(OffsetCommitRequest::KEY).expect("is served");
        let (peak, outcome) = peak_bytes_of(answer(&handlers, row, 8, &body)).await;
        outcome.expect("is answered");
        assert!(peak <= HEAP_PER_BYTE * body.len() + HEAP_FREE, "{peak} bytes of heap for {}", body.len());
    }
    let fetch = FetchOffsetsRequest { group_id: name(LONG), member_id: None, member_epoch: -1, partitions: None, require_stable: false };
    let committed = rig.services.groups.fetch_offsets(fetch).await.expect("is known");
    assert_eq!(committed.iter().map(|(_, committed)| committed.offset).collect::<Vec<_>>(), [5], "what is small enough is committed");
}
