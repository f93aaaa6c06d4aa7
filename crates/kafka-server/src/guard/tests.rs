//! Requests are made at random from the skeletons; the codec must read and write exactly those bytes, and the guard must admit them.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use proptest::prelude::*;

use super::skeletons::SKELETONS;
use super::walker::{Field, Kind, Skeleton, UNKNOWN_TAGS_MAX};
use super::*;

/// The codec's view of one request type.
pub(super) struct Codec {
    pub key: i16,
    pub versions: std::ops::RangeInclusive<i16>,
    header_version: fn(i16) -> i16,
    round_trip: fn(&Bytes, i16) -> Result<(usize, BytesMut), String>,
    pub decode: fn(&Bytes, i16) -> Result<(), String>,
}

macro_rules! codecs {
    ($($request:ident),* $(,)?) => {
        vec![$({
            fn round_trip(bytes: &Bytes, version: i16) -> Result<(usize, BytesMut), String> {
                let mut rest = bytes.clone();
                let request = wire::$request::decode(&mut rest, version).map_err(|error| error.to_string())?;
                let mut again = BytesMut::new();
                request.encode(&mut again, version).map_err(|error| error.to_string())?;
                Ok((rest.len(), again))
            }
            fn decode(bytes: &Bytes, version: i16) -> Result<(), String> {
                wire::$request::decode(&mut bytes.clone(), version).map(drop).map_err(|error| error.to_string())
            }
            let versions = <wire::$request as kafka_protocol::protocol::Message>::VERSIONS;
            Codec {
                key: <wire::$request as Request>::KEY,
                versions: versions.min..=versions.max,
                header_version: <wire::$request as HeaderVersion>::header_version,
                round_trip,
                decode,
            }
        }),*]
    };
}

pub(super) fn codecs() -> Vec<Codec> {
    codecs![
        FetchRequest,
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetFetchRequest,
        FindCoordinatorRequest,
        JoinGroupRequest,
        HeartbeatRequest,
        LeaveGroupRequest,
        SyncGroupRequest,
        DescribeGroupsRequest,
        ListGroupsRequest,
        ApiVersionsRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        DeleteRecordsRequest,
        InitProducerIdRequest,
        OffsetForLeaderEpochRequest,
        AddPartitionsToTxnRequest,
        AddOffsetsToTxnRequest,
        EndTxnRequest,
        WriteTxnMarkersRequest,
        TxnOffsetCommitRequest,
        DescribeProducersRequest,
        DescribeTransactionsRequest,
        ListTransactionsRequest,
        DescribeAclsRequest,
        CreateAclsRequest,
        DeleteAclsRequest,
        DescribeConfigsRequest,
        AlterConfigsRequest,
        DescribeLogDirsRequest,
        CreatePartitionsRequest,
        DeleteGroupsRequest,
        IncrementalAlterConfigsRequest,
        OffsetDeleteRequest,
        DescribeClusterRequest,
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribeRequest,
        ListConfigResourcesRequest,
        DescribeTopicPartitionsRequest,
        AlterReplicaLogDirsRequest,
        ElectLeadersRequest,
        AlterPartitionReassignmentsRequest,
        ListPartitionReassignmentsRequest,
        DescribeClientQuotasRequest,
        AlterClientQuotasRequest,
        DescribeQuorumRequest,
        UpdateFeaturesRequest,
        UnregisterBrokerRequest,
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribeRequest,
        GetTelemetrySubscriptionsRequest,
        PushTelemetryRequest,
    ]
}

/// The sizes of what a [`Maker`] writes, within so many arrays.
pub(super) trait Sizes {
    fn text_len(&mut self, depth: u32) -> u32;
    fn count(&mut self, depth: u32) -> u32;
    /// One is true, and no field's default.
    fn number(&mut self) -> i32 {
        1
    }
}

/// Everything short, and few of each.
struct Small(u64);

impl Small {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % bound
    }
}

impl Sizes for Small {
    fn text_len(&mut self, _depth: u32) -> u32 {
        1 + self.below(150)
    }

    fn count(&mut self, _depth: u32) -> u32 {
        self.below(4)
    }
}

/// Writes a value of every field that a version has.
struct Maker<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    depth: u32,
    sizes: &'a mut dyn Sizes,
}

impl Maker<'_> {
    fn len(&mut self, len: u32, plain_width: usize) {
        if self.flexible {
            self.varint(len + 1);
        } else if plain_width == 2 {
            self.out.extend((len as i16).to_be_bytes());
        } else {
            self.out.extend((len as i32).to_be_bytes());
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn has(&self, field: &Field) -> bool {
        (field.first..=field.last).contains(&self.version)
    }

    fn fields(&mut self, fields: &'static [Field]) {
        for field in fields {
            if field.tag.is_none() && self.has(field) {
                self.kind(&field.kind);
            }
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<&Field> = fields.iter().filter(|field| field.tag.is_some() && self.has(field)).collect();
        tagged.sort_by_key(|field| field.tag);
        self.varint(tagged.len() as u32);
        for field in tagged {
            self.varint(field.tag.unwrap_or_default());
            let before = std::mem::take(&mut self.out);
            self.kind(&field.kind);
            let value = std::mem::replace(&mut self.out, before);
            self.varint(value.len() as u32);
            self.out.extend(value);
        }
    }

    fn kind(&mut self, kind: &'static Kind) {
        match kind {
            Kind::Fixed(4) => self.out.extend(self.sizes.number().to_be_bytes()),
            Kind::Fixed(len) => self.out.extend((1..=*len).map(|byte| u8::from(byte == *len))),
            Kind::Str | Kind::Bytes => {
                let len = self.sizes.text_len(self.depth);
                self.len(len, if matches!(kind, Kind::Str) { 2 } else { 4 });
                self.out.extend((0..len).map(|index| b'a' + (index % 26) as u8));
            }
            Kind::List(element) => {
                let count = self.sizes.count(self.depth);
                self.len(count, 4);
                self.depth += 1;
                (0..count).for_each(|_| self.kind(element));
                self.depth -= 1;
            }
            Kind::Array(fields) => {
                let count = self.sizes.count(self.depth);
                self.len(count, 4);
                self.depth += 1;
                (0..count).for_each(|_| self.fields(fields));
                self.depth -= 1;
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => {
                self.out.push(1);
                self.fields(fields);
            }
        }
    }
}

/// A request body of the skeleton in `version`.
pub(super) fn make(skeleton: &'static Skeleton, version: i16, seed: u64) -> Vec<u8> {
    make_sized(skeleton, version, &mut Small(seed | 1))
}

/// A request body of the skeleton in `version`, of these sizes.
pub(super) fn make_sized(skeleton: &'static Skeleton, version: i16, sizes: &mut dyn Sizes) -> Vec<u8> {
    let flexible = version >= skeleton.flexible_from;
    let mut maker = Maker { out: Vec::new(), version, flexible, depth: 0, sizes };
    maker.fields(skeleton.fields);
    maker.out
}

#[test]
fn every_served_api_but_produce_has_a_skeleton_and_a_codec_here() {
    let codecs = codecs();
    for api in crate::api_table::APIS.iter().filter(|api| api.name != "Produce") {
        assert!(skeleton(api.key).is_some(), "{} has no skeleton", api.name);
        let codec = codecs.iter().find(|codec| codec.key == api.key).unwrap_or_else(|| panic!("{} is not tested", api.name));
        // Requests of these versions have the form of the codec's newest.
        let own =
            if matches!(api.name, "ListOffsets" | "OffsetCommit" | "OffsetFetch" | "WriteTxnMarkers" | "DescribeLogDirs") { 1 } else { 0 };
        let served = api.min_version..=api.max_version - own;
        assert!(codec.versions.contains(served.start()) && codec.versions.contains(served.end()), "{}: {served:?}", api.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_skeletons_are_what_the_codec_reads_and_writes(seed: u64) {
        for codec in codecs() {
            let skeleton = skeleton(codec.key).expect("has a skeleton");
            for version in codec.versions.clone() {
                let bytes = Bytes::from(make(skeleton, version, seed ^ ((version as u64) << 32)));
                prop_assert!(admit(&bytes, 0, codec.key, version).is_ok(), "key {} v{version}: {:?}", codec.key, admit(&bytes, 0, codec.key, version));
                let round_trip = (codec.round_trip)(&bytes, version);
                prop_assert!(round_trip.is_ok(), "key {} v{version}: {:?}", codec.key, round_trip);
                let (left, again) = round_trip.expect("checked");
                prop_assert_eq!(left, 0, "key {} v{}: the codec leaves bytes", codec.key, version);
                prop_assert_eq!(&again[..], &bytes[..], "key {} v{}", codec.key, version);
                prop_assert_eq!((codec.header_version)(version) >= 2, version >= skeleton.flexible_from);
            }
        }
    }

    #[test]
    fn every_prefix_of_a_request_is_refused(seed: u64) {
        for skeleton in SKELETONS {
            let Some(codec) = codecs().into_iter().find(|codec| codec.key == skeleton.key) else { continue };
            let version = *codec.versions.end();
            let bytes = make(skeleton, version, seed);
            for cut in (0..bytes.len()).step_by(7) {
                prop_assert!(admit(&bytes[..cut], 0, skeleton.key, version).is_err());
            }
        }
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused() {
    // LeaveGroup v3: group "", then i32::MAX members.
    let body = [0, 0, 0x7f, 0xff, 0xff, 0xff];
    assert!(matches!(admit(&body, 0, 13, 3), Err(Malformed::ArrayTooLong { .. })));
}

#[test]
fn negative_lengths_other_than_null_are_refused() {
    assert!(matches!(admit(&[0xff, 0xfe], 0, 13, 0), Err(Malformed::BadLength(-2))));
}

#[test]
fn unknown_tags_are_skipped_up_to_a_number() {
    let tags = |count: usize| {
        let mut head = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff];
        head.push(count as u8);
        (0..count).for_each(|tag| head.extend([tag as u8, 1, 0]));
        head
    };
    let few = tags(UNKNOWN_TAGS_MAX);
    assert_eq!(request_head(&few, 2).map(|head| head.body_start), Ok(few.len()));
    assert_eq!(request_head(&tags(UNKNOWN_TAGS_MAX + 1), 2), Err(Malformed::TooManyTags));
}

#[test]
fn elements_that_need_far_more_memory_than_bytes_are_refused() {
    // Metadata v0 with names of no letter: two bytes each.
    let count = 20_000u32;
    let mut body = count.to_be_bytes().to_vec();
    body.resize(4 + 2 * count as usize, 0);
    assert!(matches!(admit(&body, 0, 3, 0), Err(Malformed::TooMuchMemory { .. })));
}

#[test]
fn a_varint_of_more_than_five_bytes_is_refused() {
    assert_eq!(Walker::new(&[0xff; 8], 0, 0, true).unsigned_varint(), Err(Malformed::BadVarint));
}

#[test]
fn short_frames_have_no_head() {
    for len in 0..FIXED_HEAD_BYTES {
        assert_eq!(request_head(&vec![0; len], 1), Err(Malformed::Truncated));
    }
}

/// As many as Kafka's tools ask for in one request; and where the answer would be out of proportion (I42).
#[test]
fn a_question_may_be_large_but_not_ask_for_any_number_of_things() {
    use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    use kafka_protocol::messages::{FindCoordinatorRequest, OffsetFetchRequest, TopicName};
    use kafka_protocol::protocol::StrBytes;

    fn admitted<R: Encodable + Request>(request: &R, version: i16) -> (usize, Result<usize, Malformed>) {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        (body.len(), admit(&body, 0, R::KEY, version))
    }
    let name = |index: i32| StrBytes::from_string(format!("a-topic-with-a-name-of-the-usual-length-{index}"));
    let topic = |index: i32| OffsetFetchRequestTopics::default().with_name(TopicName(name(index))).with_partition_indexes((0..2).collect());
    let group = OffsetFetchRequestGroup::default().with_topics(Some((0..50_000).map(topic).collect()));
    let (size, answer) = admitted(&OffsetFetchRequest::default().with_groups(vec![group]), 9);
    assert!(size > 2 << 20 && answer.as_ref().is_ok_and(|estimate| *estimate < 4 * size), "{size}: {answer:?}");

    let keys = |count: i32| FindCoordinatorRequest::default().with_coordinator_keys((0..count).map(name).collect());
    assert!(admitted(&keys(100_000), 4).1.is_ok());
    assert_eq!(admitted(&keys(600_000), 4).1, Err(Malformed::TooManyParts(600_000)));
}
