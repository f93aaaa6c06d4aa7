//! What a client gets that may not do what it asks for: every API once, from an address to which no ACL allows anything; and what one gets that
//! may do a part of it.

use super::acls::{ALL, AUTHORIZER, CLUSTER, GROUP, LITERAL, TOPIC, TRANSACTIONAL_ID, allow, create};
use super::requests::{self, fetch, list_offsets, produce, text};
use crate::batch::Batch;
use crate::{Conn, Scenario, Session};
use anyhow::Result;
use kafka_protocol::messages as m;
use kafka_protocol::messages::{BrokerId, GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::Request;
use std::fmt::Debug;
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: "acl-denied", settings: DENIED, run: denied }, Scenario { name: "acl-partly", settings: PARTLY, run: partly }];

/// Each has a broker of its own, as its ACLs are for all topics.
const DENIED: &[(&str, &str)] = &[AUTHORIZER[0], AUTHORIZER[1], ("super.users", "User:denied")];
const PARTLY: &[(&str, &str)] = &[AUTHORIZER[0], AUTHORIZER[1], ("super.users", "User:partly")];

/// Where the client comes from that may do nothing unless an ACL says so. All others may do all.
const STRANGER: [u8; 4] = [127, 0, 0, 2];

/// Everything for those at 127.0.0.1, and so nothing for others.
fn close(c: &mut Conn) -> Result<()> {
    let everything = [(TOPIC, "*"), (GROUP, "*"), (CLUSTER, "kafka-cluster"), (TRANSACTIONAL_ID, "*")];
    create(c, everything.map(|(kind, name)| allow((kind, name, LITERAL), "127.0.0.1", ALL)).to_vec())
}

/// The lowest and the highest version that both brokers and the codec know.
fn ask<R: Request>(s: &mut Session, c: &mut Conn, what: &str, versions: (i16, i16), request: impl Fn(i16) -> R) -> Result<()>
where
    R::Response: Debug + Default,
{
    let (low, high) = versions;
    s.ask(c, &format!("{what} v{low}"), low, &request(low))?;
    if high > low {
        s.ask(c, &format!("{what} v{high}"), high, &request(high))?;
    }
    Ok(())
}

fn denied(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    close(&mut c)?;
    let id = s.create_topic(&mut c, "t", 1, &[])?;
    let mut stranger = s.connect_from(STRANGER)?;
    data(s, &mut stranger, id)?;
    groups(s, &mut stranger)?;
    transactions(s, &mut stranger)?;
    topics(s, &mut stranger, id)?;
    cluster(s, &mut stranger)?;
    settings(s, &mut stranger)
}

fn data(s: &mut Session, c: &mut Conn, id: Uuid) -> Result<()> {
    let (t, none) = (s.topic("t"), s.topic("none"));
    let by = |version: i16, ids_from: i16| if version >= ids_from { requests::Topic::Id(id) } else { requests::Topic::Name(t.clone()) };
    let batch = Batch::of(1, s.start_ms);
    ask(s, c, "produce", (3, 13), |version| produce(&by(version, 13), &[(0, &batch)]))?;
    s.ask(c, "produce to an unknown topic", 12, &produce(&requests::Topic::Name(none.clone()), &[(0, &batch)]))?;
    s.ask(c, "produce to an unknown id", 13, &produce(&requests::Topic::Id(Uuid::from_u128(5)), &[(0, &batch)]))?;
    let transactional = batch.clone().from_producer(7, 0, 0).with(|batch| batch.attributes = 0x10);
    let request = produce(&by(12, 13), &[(0, &transactional)]).with_transactional_id(Some(TransactionalId(s.own("x"))));
    s.ask(c, "produce transactionally", 12, &request)?;
    ask(s, c, "fetch", (4, 17), |version| fetch(&by(version, 13), &[(0, 0, 1000)]))?;
    s.ask(c, "fetch an unknown topic", 12, &fetch(&requests::Topic::Name(none.clone()), &[(0, 0, 1000)]))?;
    s.ask(c, "fetch an unknown id", 13, &fetch(&requests::Topic::Id(Uuid::from_u128(5)), &[(0, 0, 1000)]))?;
    s.ask(c, "fetch as a broker", 12, &fetch(&by(12, 13), &[(0, 0, 1000)]).with_replica_id(BrokerId(1)))?;
    ask(s, c, "list offsets", (1, 10), |_| list_offsets(t.clone(), &[(0, -1), (9, -2)]))?;
    s.ask(c, "list offsets of an unknown topic", 7, &list_offsets(none.clone(), &[(0, -1)]))?;
    ask(s, c, "offset for leader epoch", (2, 4), |_| {
        use m::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
        let topic = OffsetForLeaderTopic::default().with_topic(t.clone()).with_partitions(vec![OffsetForLeaderPartition::default()]);
        m::OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
    })?;
    ask(s, c, "delete records", (0, 2), |_| {
        use m::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let topic = |name: &TopicName| {
            DeleteRecordsTopic::default().with_name(name.clone()).with_partitions(vec![DeleteRecordsPartition::default()])
        };
        m::DeleteRecordsRequest::default().with_topics(vec![topic(&t), topic(&none)]).with_timeout_ms(1000)
    })?;
    ask(s, c, "describe producers", (0, 0), |_| {
        use m::describe_producers_request::TopicRequest;
        let topic = |name: &TopicName| TopicRequest::default().with_name(name.clone()).with_partition_indexes(vec![0]);
        m::DescribeProducersRequest::default().with_topics(vec![topic(&t), topic(&none)])
    })
}

fn groups(s: &mut Session, c: &mut Conn) -> Result<()> {
    let (g, t) = (s.group("g"), s.topic("t"));
    ask(s, c, "find coordinator", (0, 6), |version| match version {
        ..=3 => m::FindCoordinatorRequest::default().with_key(g.0.clone()),
        _ => m::FindCoordinatorRequest::default().with_coordinator_keys(vec![g.0.clone(), text("other")]),
    })?;
    let of_transaction = m::FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text("x")]);
    s.ask(c, "find coordinator of a transactional id", 4, &of_transaction)?;
    ask(s, c, "join group", (0, 9), |_| {
        use m::join_group_request::JoinGroupRequestProtocol;
        let protocols = vec![JoinGroupRequestProtocol::default().with_name(text("range"))];
        let request = m::JoinGroupRequest::default().with_group_id(g.clone()).with_session_timeout_ms(10_000);
        request.with_rebalance_timeout_ms(10_000).with_protocol_type(text("consumer")).with_protocols(protocols)
    })?;
    ask(s, c, "sync group", (0, 5), |_| {
        m::SyncGroupRequest::default().with_group_id(g.clone()).with_protocol_type(None).with_protocol_name(None)
    })?;
    ask(s, c, "heartbeat", (0, 4), |_| m::HeartbeatRequest::default().with_group_id(g.clone()))?;
    ask(s, c, "leave group", (0, 5), |version| {
        use m::leave_group_request::MemberIdentity;
        let members = if version >= 3 { vec![MemberIdentity::default().with_member_id(text("m"))] } else { Vec::new() };
        m::LeaveGroupRequest::default().with_group_id(g.clone()).with_members(members)
    })?;
    ask(s, c, "describe groups", (0, 6), |version| {
        m::DescribeGroupsRequest::default().with_groups(vec![g.clone()]).with_include_authorized_operations(version >= 3)
    })?;
    ask(s, c, "list groups", (0, 5), |_| m::ListGroupsRequest::default())?;
    ask(s, c, "delete groups", (0, 2), |_| m::DeleteGroupsRequest::default().with_groups_names(vec![g.clone(), s_group("other")]))?;
    ask(s, c, "offset commit", (2, 9), |_| {
        use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let topic = OffsetCommitRequestTopic::default().with_name(t.clone()).with_partitions(vec![OffsetCommitRequestPartition::default()]);
        m::OffsetCommitRequest::default().with_group_id(g.clone()).with_generation_id_or_member_epoch(-1).with_topics(vec![topic])
    })?;
    for version in [1, 2, 7, 8, 9] {
        s.ask(c, &format!("offset fetch v{version}"), version, &offset_fetch(version, &g, Some(&[&t])))?;
    }
    s.ask(c, "offset fetch of all topics", 7, &offset_fetch(7, &g, None))?;
    ask(s, c, "offset delete", (0, 0), |_| {
        use m::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
        let topic = OffsetDeleteRequestTopic::default().with_name(t.clone()).with_partitions(vec![OffsetDeleteRequestPartition::default()]);
        m::OffsetDeleteRequest::default().with_group_id(g.clone()).with_topics(vec![topic])
    })?;
    ask(s, c, "consumer group heartbeat", (0, 1), |_| {
        let request = m::ConsumerGroupHeartbeatRequest::default().with_group_id(g.clone()).with_member_id(text("m"));
        request.with_rebalance_timeout_ms(10_000).with_subscribed_topic_names(Some(vec![t.clone()])).with_topic_partitions(Some(vec![]))
    })?;
    ask(s, c, "consumer group describe", (0, 1), |_| {
        m::ConsumerGroupDescribeRequest::default().with_group_ids(vec![g.clone()]).with_include_authorized_operations(true)
    })
}

fn s_group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn offset_fetch(version: i16, group: &GroupId, topics: Option<&[&TopicName]>) -> m::OffsetFetchRequest {
    use m::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    if version >= 8 {
        let topic = |name: &&TopicName| OffsetFetchRequestTopics::default().with_name((*name).clone()).with_partition_indexes(vec![0]);
        let topics = topics.map(|topics| topics.iter().map(topic).collect());
        let group = OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_topics(topics);
        return m::OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topic = |name: &&TopicName| OffsetFetchRequestTopic::default().with_name((*name).clone()).with_partition_indexes(vec![0]);
    m::OffsetFetchRequest::default().with_group_id(group.clone()).with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
}

fn transactions(s: &mut Session, c: &mut Conn) -> Result<()> {
    let (x, g, t) = (TransactionalId(s.own("x")), s.group("g"), s.topic("t"));
    ask(s, c, "init producer id", (0, 5), |_| init(None))?;
    ask(s, c, "init producer id, transactional", (0, 5), |_| init(Some(&x)))?;
    ask(s, c, "add partitions to txn", (0, 3), |_| add_partitions(&x, &[&t]))?;
    use m::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
    let topic = AddPartitionsToTxnTopic::default().with_name(t.clone()).with_partitions(vec![0]);
    let batched = AddPartitionsToTxnTransaction::default().with_transactional_id(x.clone()).with_topics(vec![topic]);
    ask(s, c, "add partitions to txn, as a broker", (4, 5), |_| {
        m::AddPartitionsToTxnRequest::default().with_transactions(vec![batched.clone()])
    })?;
    ask(s, c, "add offsets to txn", (0, 4), |_| {
        m::AddOffsetsToTxnRequest::default().with_transactional_id(x.clone()).with_group_id(g.clone())
    })?;
    ask(s, c, "end txn", (0, 5), |_| m::EndTxnRequest::default().with_transactional_id(x.clone()))?;
    ask(s, c, "write txn markers", (1, 1), |_| {
        use m::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
        let topic = WritableTxnMarkerTopic::default().with_name(t.clone()).with_partition_indexes(vec![0]);
        m::WriteTxnMarkersRequest::default().with_markers(vec![WritableTxnMarker::default().with_topics(vec![topic])])
    })?;
    ask(s, c, "txn offset commit", (0, 5), |_| {
        use m::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
        let topic =
            TxnOffsetCommitRequestTopic::default().with_name(t.clone()).with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
        m::TxnOffsetCommitRequest::default().with_transactional_id(x.clone()).with_group_id(g.clone()).with_topics(vec![topic])
    })?;
    ask(s, c, "describe transactions", (0, 0), |_| m::DescribeTransactionsRequest::default().with_transactional_ids(vec![x.clone()]))?;
    ask(s, c, "list transactions", (0, 1), |_| m::ListTransactionsRequest::default())
}

fn init(id: Option<&TransactionalId>) -> m::InitProducerIdRequest {
    let request = m::InitProducerIdRequest::default().with_transactional_id(id.cloned()).with_transaction_timeout_ms(10_000);
    request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
}

fn add_partitions(id: &TransactionalId, topics: &[&TopicName]) -> m::AddPartitionsToTxnRequest {
    use m::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
    let topic = |name: &&TopicName| AddPartitionsToTxnTopic::default().with_name((*name).clone()).with_partitions(vec![0]);
    m::AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_topics(topics.iter().map(topic).collect())
}

fn metadata(topics: Option<&[&TopicName]>) -> m::MetadataRequest {
    use m::metadata_request::MetadataRequestTopic;
    let topic = |name: &&TopicName| MetadataRequestTopic::default().with_name(Some((*name).clone()));
    m::MetadataRequest::default().with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
}

fn create_topics(names: &[&TopicName]) -> m::CreateTopicsRequest {
    use m::create_topics_request::CreatableTopic;
    let topic = |name: &&TopicName| CreatableTopic::default().with_name((*name).clone()).with_num_partitions(1).with_replication_factor(1);
    m::CreateTopicsRequest::default().with_topics(names.iter().map(topic).collect()).with_timeout_ms(10_000)
}

fn delete_topics(names: &[&TopicName]) -> m::DeleteTopicsRequest {
    m::DeleteTopicsRequest::default().with_topic_names(names.iter().map(|name| (*name).clone()).collect()).with_timeout_ms(10_000)
}

fn delete_state(name: Option<&TopicName>, id: Uuid) -> m::delete_topics_request::DeleteTopicState {
    m::delete_topics_request::DeleteTopicState::default().with_name(name.cloned()).with_topic_id(id)
}

fn topics(s: &mut Session, c: &mut Conn, id: Uuid) -> Result<()> {
    let (t, none, new) = (s.topic("t"), s.topic("none"), s.topic("new"));
    ask(s, c, "metadata", (0, 13), |_| metadata(Some(&[&t, &none])))?;
    ask(s, c, "metadata of all", (1, 12), |_| metadata(None))?;
    let operations = metadata(Some(&[&t])).with_include_topic_authorized_operations(true).with_include_cluster_authorized_operations(true);
    s.ask(c, "metadata with operations", 10, &operations)?;
    let by_id = |id: Uuid| m::metadata_request::MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let ids = m::MetadataRequest::default().with_topics(Some(vec![by_id(id), by_id(Uuid::from_u128(5))]));
    s.ask(c, "metadata by id", 12, &ids)?;
    ask(s, c, "create topics", (2, 7), |_| create_topics(&[&new, &t]))?;
    ask(s, c, "delete topics", (1, 5), |_| delete_topics(&[&t, &none]))?;
    let by_id = vec![delete_state(None, id), delete_state(None, Uuid::from_u128(5)), delete_state(Some(&none), Uuid::nil())];
    s.ask(c, "delete topics by id", 6, &m::DeleteTopicsRequest::default().with_topics(by_id).with_timeout_ms(10_000))?;
    let both = vec![delete_state(None, id), delete_state(Some(&t), Uuid::nil())];
    s.ask(c, "delete a topic by id and by name", 6, &m::DeleteTopicsRequest::default().with_topics(both).with_timeout_ms(10_000))?;
    ask(s, c, "create partitions", (0, 3), |_| {
        use m::create_partitions_request::CreatePartitionsTopic;
        let topic = |name: &TopicName| CreatePartitionsTopic::default().with_name(name.clone()).with_count(3).with_assignments(None);
        m::CreatePartitionsRequest::default().with_topics(vec![topic(&t), topic(&none)]).with_timeout_ms(10_000)
    })?;
    ask(s, c, "describe topic partitions", (0, 0), |_| {
        use m::describe_topic_partitions_request::TopicRequest;
        let topic = |name: &TopicName| TopicRequest::default().with_name(name.clone());
        m::DescribeTopicPartitionsRequest::default().with_topics(vec![topic(&t), topic(&none)]).with_response_partition_limit(10)
    })?;
    let all = m::DescribeTopicPartitionsRequest::default().with_response_partition_limit(10);
    s.ask(c, "describe topic partitions of all", 0, &all)?;
    ask(s, c, "elect leaders", (0, 2), |_| {
        use m::elect_leaders_request::TopicPartitions;
        let topic = TopicPartitions::default().with_topic(t.clone()).with_partitions(vec![0]);
        m::ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])).with_timeout_ms(10_000)
    })?;
    s.ask(c, "elect all leaders", 2, &m::ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(10_000))?;
    ask(s, c, "alter partition reassignments", (0, 0), |_| {
        use m::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(0)]));
        let topic = ReassignableTopic::default().with_name(t.clone()).with_partitions(vec![partition]);
        m::AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
    })?;
    ask(s, c, "list partition reassignments", (0, 0), |_| {
        m::ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(10_000)
    })
}

fn cluster(s: &mut Session, c: &mut Conn) -> Result<()> {
    let t = s.topic("t");
    ask(s, c, "describe cluster", (0, 2), |_| m::DescribeClusterRequest::default().with_include_cluster_authorized_operations(true))?;
    ask(s, c, "describe quorum", (0, 2), |_| {
        use m::describe_quorum_request::{PartitionData, TopicData};
        let topic = TopicData::default()
            .with_topic_name(requests::topic_name("__cluster_metadata"))
            .with_partitions(vec![PartitionData::default()]);
        m::DescribeQuorumRequest::default().with_topics(vec![topic])
    })?;
    ask(s, c, "update features", (0, 1), |_| m::UpdateFeaturesRequest::default().with_timeout_ms(10_000))?;
    ask(s, c, "unregister broker", (0, 0), |_| m::UnregisterBrokerRequest::default().with_broker_id(BrokerId(77)))?;
    ask(s, c, "describe log dirs", (1, 4), |_| m::DescribeLogDirsRequest::default().with_topics(None))?;
    ask(s, c, "alter replica log dirs", (1, 2), |_| {
        use m::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
        let topic = AlterReplicaLogDirTopic::default().with_name(t.clone()).with_partitions(vec![0]);
        let dir = AlterReplicaLogDir::default().with_path(text("/nowhere")).with_topics(vec![topic]);
        m::AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
    })?;
    ask(s, c, "describe acls", (1, 3), |_| {
        let any =
            m::DescribeAclsRequest::default().with_resource_type_filter(1).with_resource_name_filter(None).with_pattern_type_filter(1);
        any.with_principal_filter(None).with_host_filter(None).with_operation(1).with_permission_type(1)
    })?;
    ask(s, c, "create acls", (1, 3), |_| {
        let acl = allow((TOPIC, "t", LITERAL), "*", ALL);
        m::CreateAclsRequest::default().with_creations(vec![acl.clone(), acl.with_resource_type(99)])
    })?;
    ask(s, c, "delete acls", (1, 3), |_| {
        use m::delete_acls_request::DeleteAclsFilter;
        let any = DeleteAclsFilter::default().with_resource_type_filter(1).with_resource_name_filter(None).with_pattern_type_filter(1);
        let any = any.with_principal_filter(None).with_host_filter(None).with_operation(1).with_permission_type(1);
        m::DeleteAclsRequest::default().with_filters(vec![any.clone(), any])
    })
}

/// The same change to each of the resources, in the types of one API.
macro_rules! altered {
    ($api:ident, $resources:expr) => {{
        use m::$api::{AlterConfigsResource, AlterableConfig};
        let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
        let resource = |(kind, name): (i8, _)| AlterConfigsResource::default().with_resource_type(kind).with_resource_name(name);
        $resources.clone().into_iter().map(|each| resource(each).with_configs(vec![config.clone()])).collect()
    }};
}

fn settings(s: &mut Session, c: &mut Conn) -> Result<()> {
    let (t, g) = (s.own("t"), s.own("g"));
    // Topic, broker, its loggers, clients' metrics, group.
    let resources = [(2, t.clone()), (4, text("0")), (4, text("")), (8, text("0")), (16, text("m")), (32, g), (2, s.own("none"))];
    ask(s, c, "describe configs", (1, 4), |_| {
        use m::describe_configs_request::DescribeConfigsResource;
        let resource = |(kind, name): &(i8, _)| {
            DescribeConfigsResource::default()
                .with_resource_type(*kind)
                .with_resource_name(Clone::clone(name))
                .with_configuration_keys(None)
        };
        m::DescribeConfigsRequest::default().with_resources(resources.iter().map(resource).collect())
    })?;
    ask(s, c, "incremental alter configs", (0, 1), |_| {
        m::IncrementalAlterConfigsRequest::default().with_resources(altered!(incremental_alter_configs_request, resources))
    })?;
    ask(s, c, "alter configs", (0, 2), |_| {
        let older = resources.iter().filter(|(kind, _)| matches!(kind, 2 | 4)).cloned();
        m::AlterConfigsRequest::default().with_resources(altered!(alter_configs_request, older))
    })?;
    ask(s, c, "list config resources", (0, 1), |_| m::ListConfigResourcesRequest::default())?;
    use m::alter_client_quotas_request as acq;
    ask(s, c, "describe client quotas", (0, 1), |_| m::DescribeClientQuotasRequest::default())?;
    ask(s, c, "alter client quotas", (0, 1), |_| {
        let entity = acq::EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("u")));
        let op = acq::OpData::default().with_key(text("producer_byte_rate")).with_value(1000.0);
        m::AlterClientQuotasRequest::default().with_entries(vec![acq::EntryData::default().with_entity(vec![entity]).with_ops(vec![op])])
    })
}

const WRITE: i8 = 4;
const CREATE: i8 = 5;
const DELETE: i8 = 6;
const ALTER: i8 = 7;
const DESCRIBE: i8 = 8;
const READ: i8 = 3;
const PREFIXED: i8 = 4;

/// What the stranger may do, it may do; of the rest it learns nothing.
fn partly(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    close(&mut c)?;
    s.note_only_own();
    for topic in ["seen", "read", "written", "hidden", "deleted"] {
        s.create_topic(&mut c, topic, 1, &[])?;
    }
    let own = |kind: i8, name: &str, operation: i8| allow((kind, &s.own(name), LITERAL), "127.0.0.2", operation);
    create(
        &mut c,
        vec![
            own(TOPIC, "seen", DESCRIBE),
            own(TOPIC, "read", READ),
            own(TOPIC, "written", WRITE),
            own(TOPIC, "deleted", DELETE),
            own(TOPIC, "altered", ALTER),
            allow((TOPIC, &s.own("new"), PREFIXED), "127.0.0.2", CREATE),
            own(GROUP, "g", READ),
            own(GROUP, "d", DESCRIBE),
            own(TRANSACTIONAL_ID, "x", WRITE),
        ],
    )?;
    let mut stranger = s.connect_from(STRANGER)?;
    topics_partly(s, &mut c, &mut stranger)?;
    groups_partly(s, &mut c, &mut stranger)
}

fn topics_partly(s: &mut Session, c: &mut Conn, stranger: &mut Conn) -> Result<()> {
    let names = ["seen", "read", "written", "hidden", "deleted", "new-1"].map(|name| s.topic(name));
    let all: Vec<&TopicName> = names.iter().collect();
    s.ask(stranger, "metadata", 12, &metadata(Some(&all)).with_include_topic_authorized_operations(true))?;
    s.ask(stranger, "metadata of all", 12, &metadata(None))?;
    use m::describe_topic_partitions_request::TopicRequest;
    let topics = names.iter().map(|name| TopicRequest::default().with_name(name.clone())).collect();
    let request = m::DescribeTopicPartitionsRequest::default().with_response_partition_limit(10);
    s.ask(stranger, "describe topic partitions", 0, &request.clone().with_topics(topics))?;
    let batch = Batch::of(1, s.start_ms);
    for (step, name) in ["seen", "read", "written", "hidden"].iter().zip(&names) {
        let topic = requests::Topic::Name(name.clone());
        s.ask(stranger, &format!("produce to {step}"), 12, &produce(&topic, &[(0, &batch)]))?;
        s.ask(stranger, &format!("fetch {step}"), 12, &fetch(&topic, &[(0, 0, 1000)]))?;
        s.ask(stranger, &format!("list offsets of {step}"), 7, &list_offsets(name.clone(), &[(0, -1)]))?;
    }
    s.ask(stranger, "idempotent producer", 4, &init(None))?;
    s.ask(stranger, "create topics", 7, &create_topics(&[&s.topic("new-1"), &s.topic("other")]))?;
    s.wait_for_topic(c, "new-1", 1)?;
    s.ask(stranger, "create partitions", 3, &{
        use m::create_partitions_request::CreatePartitionsTopic;
        let topic = |name: &TopicName| CreatePartitionsTopic::default().with_name(name.clone()).with_count(3).with_assignments(None);
        m::CreatePartitionsRequest::default().with_topics(vec![topic(&s.topic("altered")), topic(&names[0])]).with_timeout_ms(10_000)
    })?;
    s.ask(stranger, "delete topics", 5, &delete_topics(&[&names[0], &names[3], &names[4], &s.topic("none")]))?;
    let x = TransactionalId(s.own("x"));
    s.ask(stranger, "add partitions to txn", 3, &add_partitions(&x, &[&names[0], &names[2]]))?;
    Ok(())
}

fn groups_partly(s: &mut Session, c: &mut Conn, stranger: &mut Conn) -> Result<()> {
    let (g, d, h) = (s.group("g"), s.group("d"), s.group("h"));
    let (read, seen) = (s.topic("read"), s.topic("seen"));
    let commit = |group: &GroupId| {
        use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1).with_committed_metadata(Some(text("")));
        let topic = |name: &TopicName| OffsetCommitRequestTopic::default().with_name(name.clone()).with_partitions(vec![partition.clone()]);
        let request = m::OffsetCommitRequest::default().with_group_id(group.clone()).with_generation_id_or_member_epoch(-1);
        request.with_topics(vec![topic(&read), topic(&seen), topic(&s.topic("hidden"))])
    };
    for group in [&g, &d, &h] {
        c.call(8, &commit(group))?;
    }
    s.ask(stranger, "offset commit", 8, &commit(&g))?;
    for version in [1, 7, 8] {
        let topics = [&read, &seen, &s.topic("hidden")];
        s.ask(stranger, &format!("offset fetch v{version}"), version, &offset_fetch(version, &g, Some(&topics)))?;
    }
    s.ask(stranger, "offset fetch of all topics v7", 7, &offset_fetch(7, &g, None))?;
    s.ask(stranger, "offset fetch of all topics v8", 8, &offset_fetch(8, &g, None))?;
    s.ask(stranger, "list groups", 4, &m::ListGroupsRequest::default())?;
    let groups = vec![g.clone(), d.clone(), h.clone()];
    s.ask(
        stranger,
        "describe groups",
        5,
        &m::DescribeGroupsRequest::default().with_groups(groups.clone()).with_include_authorized_operations(true),
    )?;
    s.ask(stranger, "delete groups", 2, &m::DeleteGroupsRequest::default().with_groups_names(groups))?;
    let heartbeat = |topics: Vec<TopicName>| {
        let request =
            m::ConsumerGroupHeartbeatRequest::default().with_group_id(s_group(&format!("{}new", &*g.0))).with_member_id(text("m"));
        request.with_rebalance_timeout_ms(10_000).with_subscribed_topic_names(Some(topics)).with_topic_partitions(Some(vec![]))
    };
    create(c, vec![allow((GROUP, &format!("{}new", &*g.0), LITERAL), "127.0.0.2", READ)])?;
    s.ask(stranger, "consumer group heartbeat, a topic too many", 0, &heartbeat(vec![read.clone(), s.topic("hidden")]))?;
    c.call(0, &heartbeat(vec![read, s.topic("hidden")]))?;
    let request = m::ConsumerGroupDescribeRequest::default().with_group_ids(vec![s_group(&format!("{}new", &*g.0))]);
    s.ask(stranger, "consumer group describe, a topic too many", 0, &request.with_include_authorized_operations(true))?;
    Ok(())
}
