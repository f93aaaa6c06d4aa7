use kafka_protocol::messages as wire;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Message, Request};
use siltstone_log::LogSlice;
use siltstone_metadata::quotas::{CLIENT_ID, QuotaValue, USER};

use super::*;
use crate::answer::{Answer, encode_answer};

fn image(quotas: &[(&[(&str, Option<&str>)], &str, f64)]) -> MetadataImage {
    let mut image = MetadataImage::default();
    for (parts, name, value) in quotas {
        let entry = image.quotas.entry(QuotaEntity::of(parts.iter().copied())).or_default();
        entry.insert((*name).to_owned(), QuotaValue(*value));
    }
    image
}

fn quotas() -> ClientQuotas {
    ClientQuotas::new(&BTreeMap::new())
}

fn produced(client_id: &str, request_bytes: usize) -> Taken<'_> {
    Taken { key: PRODUCE_KEY, client_id: Some(client_id), request_bytes, response_bytes: 0, busy: Duration::ZERO }
}

#[test]
fn the_most_special_quota_holds() {
    let name = PRODUCER_BYTE_RATE;
    let all: [(&[(&str, Option<&str>)], f64); 8] = [
        (&[(USER, Some("u")), (CLIENT_ID, Some("c"))], 1.0),
        (&[(USER, Some("u")), (CLIENT_ID, None)], 2.0),
        (&[(USER, Some("u"))], 3.0),
        (&[(USER, None), (CLIENT_ID, Some("c"))], 4.0),
        (&[(USER, None), (CLIENT_ID, None)], 5.0),
        (&[(USER, None)], 6.0),
        (&[(CLIENT_ID, Some("c"))], 7.0),
        (&[(CLIENT_ID, None)], 8.0),
    ];
    for first in 0..all.len() {
        let set: Vec<_> = all[first..].iter().map(|(parts, value)| (*parts, name, *value)).collect();
        let found = precedence::limit(&image(&set).quotas, name, "u", "c").map(|(_, value)| value);
        assert_eq!(found, Some(all[first].1));
    }
    assert_eq!(precedence::limit(&image(&[]).quotas, name, "u", "c"), None);
}

#[test]
fn a_producer_over_its_rate_is_held_back_until_it_is_not() {
    let (quotas, image) = (quotas(), image(&[(&[(CLIENT_ID, Some("slow"))], PRODUCER_BYTE_RATE, 1_000.0)]));
    // Ten seconds' worth fit into a window that has just begun.
    assert_eq!(quotas.throttle(&image, &produced("slow", 10_000), 0), Duration::ZERO);
    // Twice the rate over ten seconds: ten seconds of silence.
    assert_eq!(quotas.throttle(&image, &produced("slow", 10_000), 0), Duration::from_secs(10));
    assert_eq!(quotas.throttle(&image, &produced("other", 1 << 30), 0), Duration::ZERO);
    // Once the window has passed, nothing of it counts.
    assert_eq!(quotas.throttle(&image, &produced("slow", 1_000), 11_000), Duration::ZERO);
}

#[test]
fn a_fetch_takes_no_more_than_a_window_gives_and_is_held_back_for_no_longer() {
    let (quotas, image) = (quotas(), image(&[(&[(CLIENT_ID, Some("slow"))], CONSUMER_BYTE_RATE, 1_000.0)]));
    assert_eq!(quotas.fetch_bytes_max(&image, Some("other")), usize::MAX);
    let most = quotas.fetch_bytes_max(&image, Some("slow"));
    assert_eq!(most, 10_000);
    let fetched = Taken { key: FETCH_KEY, client_id: Some("slow"), request_bytes: 0, response_bytes: most, busy: Duration::ZERO };
    assert_eq!(quotas.throttle(&image, &fetched, 0), Duration::ZERO);
    assert!(quotas.throttle(&image, &fetched, 0) <= Duration::from_secs(10));
}

#[test]
fn the_time_of_requests_is_bounded_by_a_sample() {
    let (quotas, image) = (quotas(), image(&[(&[(USER, None)], REQUEST_PERCENTAGE, 1.0)]));
    assert!(ClientQuotas::measures_time(&image));
    let taken = Taken { key: 3, client_id: None, request_bytes: 1, response_bytes: 1, busy: Duration::from_secs(5) };
    assert_eq!(quotas.throttle(&image, &taken, 0), Duration::from_secs(1));
}

#[test]
fn changes_of_topics_are_refused_once_the_bucket_is_overdrawn() {
    let (quotas, image) = (quotas(), image(&[(&[(CLIENT_ID, None)], CONTROLLER_MUTATION_RATE, 1.0)]));
    let mutate = |changes, strict, now_ms| quotas.mutate(&image, Some("c"), changes, strict, now_ms);
    // Eleven tokens at first; the first change may overdraw.
    assert_eq!(mutate(21, true, 0), Ok(Duration::ZERO));
    assert_eq!(mutate(1, true, 0), Err(Duration::from_secs(10)));
    assert_eq!(mutate(1, true, 9_000), Err(Duration::from_secs(1)));
    assert_eq!(mutate(1, true, 10_000), Ok(Duration::ZERO));
    // Old clients are never refused, but held back.
    assert_eq!(mutate(2, false, 10_000), Ok(Duration::from_secs(3)));
}

#[test]
fn connections_from_an_address_come_at_its_rate() {
    let (quotas, image) =
        (quotas(), image(&[(&[(IP, None)], CONNECTION_CREATION_RATE, 1.0), (&[(IP, Some("10.0.0.9"))], CONNECTION_CREATION_RATE, 1000.0)]));
    let early = |ip: &str, now_ms| quotas.connection(&image, ip, now_ms) > Duration::ZERO;
    assert!((0..10).all(|_| !early("10.0.0.1", 0)));
    assert!(early("10.0.0.1", 0));
    assert!(!early("10.0.0.9", 0) && !early("10.0.0.2", 0));
    assert!(!early("10.0.0.1", 11_000));
}

#[test]
fn clients_beyond_the_limit_of_windows_share_one() {
    let (quotas, image) = (quotas(), image(&[(&[(CLIENT_ID, None)], PRODUCER_BYTE_RATE, 1.0)]));
    for index in 0..SENSORS_MAX {
        assert_eq!(quotas.throttle(&image, &produced(&format!("c{index}"), 1), 0), Duration::ZERO);
    }
    assert_eq!(quotas.throttle(&image, &produced("new 1", 10), 0), Duration::ZERO);
    assert!(quotas.throttle(&image, &produced("new 2", 10), 0) > Duration::ZERO);
    assert!(quotas.rates.lock().len() <= SENSORS_MAX + 1);
}

macro_rules! field_is_found {
    ($($request:ident from $since:literal),* $(,)?) => {$(
        type Response = <wire::$request as Request>::Response;
        for version in <Response as Message>::VERSIONS.min..=<Response as Message>::VERSIONS.max {
            let Answer::Frame(mut pieces) = encode_answer(7, version, &Response::default()) else { panic!("encodes") };
            let header = Response::header_version(version);
            write_throttle(<wire::$request as Request>::KEY, version, header, &mut pieces, 1234);
            let told = read_throttle(<wire::$request as Request>::KEY, version, header, &pieces);
            let LogSlice::Memory(frame) = &pieces[0] else { panic!("in memory") };
            let body = frame.slice(8 + usize::from(header >= 1)..);
            let decoded = Response::decode(&mut body.clone(), version).expect("decodes").throttle_time_ms;
            let wanted = if version >= $since { 1234 } else { 0 };
            assert_eq!((decoded, told), (wanted, wanted as u32), "{} v{version}", stringify!($request));
        }
    )*};
}

#[test]
fn the_field_is_where_the_codec_reads_it() {
    {
        field_is_found!(ProduceRequest from 1);
    }
    {
        field_is_found!(FetchRequest from 1);
    }
    {
        field_is_found!(ListOffsetsRequest from 2);
    }
    {
        field_is_found!(MetadataRequest from 3);
    }
    {
        field_is_found!(OffsetCommitRequest from 3);
    }
    {
        field_is_found!(OffsetFetchRequest from 3);
    }
    {
        field_is_found!(FindCoordinatorRequest from 1);
    }
    {
        field_is_found!(JoinGroupRequest from 2);
    }
    {
        field_is_found!(HeartbeatRequest from 1);
    }
    {
        field_is_found!(LeaveGroupRequest from 1);
    }
    {
        field_is_found!(SyncGroupRequest from 1);
    }
    {
        field_is_found!(DescribeGroupsRequest from 1);
    }
    {
        field_is_found!(ListGroupsRequest from 1);
    }
    {
        field_is_found!(CreateTopicsRequest from 2);
    }
    {
        field_is_found!(DeleteTopicsRequest from 1);
    }
    {
        field_is_found!(DeleteRecordsRequest from 0);
    }
    {
        field_is_found!(InitProducerIdRequest from 0);
    }
    {
        field_is_found!(OffsetForLeaderEpochRequest from 2);
    }
    {
        field_is_found!(AddPartitionsToTxnRequest from 0);
    }
    {
        field_is_found!(AddOffsetsToTxnRequest from 0);
    }
    {
        field_is_found!(EndTxnRequest from 0);
    }
    {
        field_is_found!(TxnOffsetCommitRequest from 0);
    }
    {
        field_is_found!(DescribeConfigsRequest from 0);
    }
    {
        field_is_found!(AlterConfigsRequest from 0);
    }
    {
        field_is_found!(AlterReplicaLogDirsRequest from 0);
    }
    {
        field_is_found!(DescribeLogDirsRequest from 0);
    }
    {
        field_is_found!(CreatePartitionsRequest from 0);
    }
    {
        field_is_found!(DeleteGroupsRequest from 0);
    }
    {
        field_is_found!(ElectLeadersRequest from 0);
    }
    {
        field_is_found!(IncrementalAlterConfigsRequest from 0);
    }
    {
        field_is_found!(AlterPartitionReassignmentsRequest from 0);
    }
    {
        field_is_found!(ListPartitionReassignmentsRequest from 0);
    }
    {
        field_is_found!(OffsetDeleteRequest from 0);
    }
    {
        field_is_found!(DescribeClientQuotasRequest from 0);
    }
    {
        field_is_found!(AlterClientQuotasRequest from 0);
    }
    {
        field_is_found!(UpdateFeaturesRequest from 0);
    }
    {
        field_is_found!(DescribeClusterRequest from 0);
    }
    {
        field_is_found!(UnregisterBrokerRequest from 0);
    }
    {
        field_is_found!(ConsumerGroupHeartbeatRequest from 0);
    }
    {
        field_is_found!(ConsumerGroupDescribeRequest from 0);
    }
    {
        field_is_found!(ListConfigResourcesRequest from 0);
    }
    {
        field_is_found!(GetTelemetrySubscriptionsRequest from 0);
    }
    {
        field_is_found!(PushTelemetryRequest from 0);
    }
}
