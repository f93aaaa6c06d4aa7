//! Every API that is served: its key, the versions clients are told, and its handler. A key that is not here is not advertised, and a request
//! for it ends the connection, as in Kafka.
//!
//! To add an API: one line below, one line in `guard/skeletons.rs`, and its file in `handlers/`.

use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request};

use crate::answer::{Answer, encode_answer};
use crate::by_topic_id;
use crate::context::RequestContext;
use crate::handlers;

/// One API.
pub(crate) struct Api {
    /// The key on the wire.
    pub key: i16,
    /// Its name in Kafka's protocol.
    pub name: &'static str,
    /// Lowest version that is served.
    pub min_version: i16,
    /// Lowest version that clients are told.
    pub advertised_min_version: i16,
    /// Highest version.
    pub max_version: i16,
    /// Version of the request header that goes with a version.
    pub header_version: fn(i16) -> i16,
    /// Version of the response header that goes with a version.
    pub response_header_version: fn(i16) -> i16,
    /// Who answers.
    pub route: Route,
}

/// A request for a typed handler: its surroundings, correlation id, and body.
pub(crate) type TypedHandler = fn(RequestContext, i32, Bytes) -> Result<BoxFuture<'static, Answer>, String>;

/// Who answers a request.
pub(crate) enum Route {
    /// Takes the frame apart itself, as batches are stamped in place. May be pipelined.
    Produce,
    /// Frames its own answer, as records are never copied.
    Fetch,
    /// Decoded and encoded by the codec.
    Typed(TypedHandler),
}

/// A row of [`APIS`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row(usize);

impl Row {
    /// Its position in the table.
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// What stands there.
    pub(crate) fn api(self) -> &'static Api {
        &APIS[self.0]
    }
}

/// The API of `key`, if it is served.
pub(crate) fn find(key: i16) -> Option<Row> {
    APIS.iter().position(|api| api.key == key).map(Row)
}

/// Encodes in the newest version that the codec knows, where a later one has the same form.
fn encode_known<R: Encodable + HeaderVersion + Message>(correlation_id: i32, version: i16, response: &R) -> Answer {
    encode_answer(correlation_id, version.min(R::VERSIONS.max), response)
}

/// Decodes, handles, encodes: what the typed handlers have in common. A version above the codec's is decoded as its newest, so it must
/// have the same form, or an encoder of its own.
macro_rules! typed {
    ($request:ident, $handler:ident) => {
        typed!($request, $handler, encode_known)
    };
    ($request:ident, $handler:ident, decoded by $decode:path) => {
        typed!(@route $request, $handler, $decode, encode_known)
    };
    ($request:ident, $handler:ident, $encode:path) => {{
        fn decode(mut body: Bytes, version: i16) -> Result<wire::$request, String> {
            let known = version.min(<wire::$request as Message>::VERSIONS.max);
            wire::$request::decode(&mut body, known).map_err(|error| error.to_string())
        }
        typed!(@route $request, $handler, decode, $encode)
    }};
    (@route $request:ident, $handler:ident, $decode:path, $encode:path) => {{
        fn route(ctx: RequestContext, correlation_id: i32, body: Bytes) -> Result<BoxFuture<'static, Answer>, String> {
            let request = $decode(body, ctx.api_version)?;
            Ok(Box::pin(async move {
                let response: <wire::$request as Request>::Response = handlers::$handler::handle(&ctx, request).await;
                $encode(correlation_id, ctx.api_version, &response)
            }))
        }
        Route::Typed(route)
    }};
}

macro_rules! apis {
    ($($name:literal $request:ident $min:literal ..= $max:literal $(advertised from $advertised:literal)? => $route:expr;)*) => {
        /// The table, in the order of the keys.
        pub(crate) static APIS: &[Api] = &[$(Api {
            key: <wire::$request as Request>::KEY,
            name: $name,
            min_version: $min,
            advertised_min_version: [$min $(, $advertised)?][[$min $(, $advertised)?].len() - 1],
            max_version: $max,
            header_version: <wire::$request as HeaderVersion>::header_version,
            response_header_version: <<wire::$request as Request>::Response as HeaderVersion>::header_version,
            route: $route,
        }),*];
    };
}

apis! {
    // Kafka 4 serves Produce from 3 on, yet names 0: older librdkafka switches compression off otherwise (KAFKA-18659).
    "Produce" ProduceRequest 3..=13 advertised from 0 => Route::Produce;
    "Fetch" FetchRequest 4..=18 => Route::Fetch;
    "ListOffsets" ListOffsetsRequest 1..=11 => typed!(ListOffsetsRequest, list_offsets);
    "Metadata" MetadataRequest 0..=13 => typed!(MetadataRequest, metadata);
    "OffsetCommit" OffsetCommitRequest 2..=10 => typed!(OffsetCommitRequest, offset_commit, decoded by by_topic_id::decode_offset_commit);
    "OffsetFetch" OffsetFetchRequest 1..=10 => typed!(OffsetFetchRequest, offset_fetch, decoded by by_topic_id::decode_offset_fetch);
    "FindCoordinator" FindCoordinatorRequest 0..=6 => typed!(FindCoordinatorRequest, find_coordinator);
    "JoinGroup" JoinGroupRequest 0..=9 => typed!(JoinGroupRequest, join_group);
    "Heartbeat" HeartbeatRequest 0..=4 => typed!(HeartbeatRequest, heartbeat);
    "LeaveGroup" LeaveGroupRequest 0..=5 => typed!(LeaveGroupRequest, leave_group);
    "SyncGroup" SyncGroupRequest 0..=5 => typed!(SyncGroupRequest, sync_group);
    "DescribeGroups" DescribeGroupsRequest 0..=6 => typed!(DescribeGroupsRequest, describe_groups);
    "ListGroups" ListGroupsRequest 0..=5 => typed!(ListGroupsRequest, list_groups);
    "ApiVersions" ApiVersionsRequest 0..=4 => typed!(ApiVersionsRequest, api_versions);
    "CreateTopics" CreateTopicsRequest 2..=7 => typed!(CreateTopicsRequest, create_topics);
    "DeleteTopics" DeleteTopicsRequest 1..=6 => typed!(DeleteTopicsRequest, delete_topics);
    "DeleteRecords" DeleteRecordsRequest 0..=2 => typed!(DeleteRecordsRequest, delete_records);
    "InitProducerId" InitProducerIdRequest 0..=5 => typed!(InitProducerIdRequest, init_producer_id);
    "OffsetForLeaderEpoch" OffsetForLeaderEpochRequest 2..=4 => typed!(OffsetForLeaderEpochRequest, offset_for_leader_epoch);
    "AddPartitionsToTxn" AddPartitionsToTxnRequest 0..=5 => typed!(AddPartitionsToTxnRequest, add_partitions_to_txn);
    "AddOffsetsToTxn" AddOffsetsToTxnRequest 0..=4 => typed!(AddOffsetsToTxnRequest, add_offsets_to_txn);
    "EndTxn" EndTxnRequest 0..=5 => typed!(EndTxnRequest, end_txn);
    "WriteTxnMarkers" WriteTxnMarkersRequest 1..=2 => typed!(WriteTxnMarkersRequest, write_txn_markers, decoded by by_topic_id::decode_write_txn_markers);
    "TxnOffsetCommit" TxnOffsetCommitRequest 0..=5 => typed!(TxnOffsetCommitRequest, txn_offset_commit);
    "DescribeAcls" DescribeAclsRequest 1..=3 => typed!(DescribeAclsRequest, describe_acls, decoded by handlers::describe_acls::decode);
    "CreateAcls" CreateAclsRequest 1..=3 => typed!(CreateAclsRequest, create_acls, decoded by handlers::create_acls::decode);
    "DeleteAcls" DeleteAclsRequest 1..=3 => typed!(DeleteAclsRequest, delete_acls, decoded by handlers::delete_acls::decode);
    "DescribeConfigs" DescribeConfigsRequest 1..=4 => typed!(DescribeConfigsRequest, describe_configs);
    "AlterConfigs" AlterConfigsRequest 0..=2 => typed!(AlterConfigsRequest, alter_configs);
    "AlterReplicaLogDirs" AlterReplicaLogDirsRequest 1..=2 => typed!(AlterReplicaLogDirsRequest, alter_replica_log_dirs);
    "DescribeLogDirs" DescribeLogDirsRequest 1..=5 => typed!(DescribeLogDirsRequest, describe_log_dirs, handlers::describe_log_dirs::encode);
    "CreatePartitions" CreatePartitionsRequest 0..=3 => typed!(CreatePartitionsRequest, create_partitions);
    "DeleteGroups" DeleteGroupsRequest 0..=2 => typed!(DeleteGroupsRequest, delete_groups);
    "ElectLeaders" ElectLeadersRequest 0..=2 => typed!(ElectLeadersRequest, elect_leaders);
    "IncrementalAlterConfigs" IncrementalAlterConfigsRequest 0..=1 => typed!(IncrementalAlterConfigsRequest, incremental_alter_configs);
    "AlterPartitionReassignments" AlterPartitionReassignmentsRequest 0..=1 => typed!(AlterPartitionReassignmentsRequest, alter_partition_reassignments);
    "ListPartitionReassignments" ListPartitionReassignmentsRequest 0..=0 => typed!(ListPartitionReassignmentsRequest, list_partition_reassignments);
    "OffsetDelete" OffsetDeleteRequest 0..=0 => typed!(OffsetDeleteRequest, offset_delete);
    "DescribeClientQuotas" DescribeClientQuotasRequest 0..=1 => typed!(DescribeClientQuotasRequest, describe_client_quotas);
    "AlterClientQuotas" AlterClientQuotasRequest 0..=1 => typed!(AlterClientQuotasRequest, alter_client_quotas);
    "DescribeQuorum" DescribeQuorumRequest 0..=2 => typed!(DescribeQuorumRequest, describe_quorum);
    "UpdateFeatures" UpdateFeaturesRequest 0..=2 => typed!(UpdateFeaturesRequest, update_features);
    "DescribeCluster" DescribeClusterRequest 0..=2 => typed!(DescribeClusterRequest, describe_cluster);
    "DescribeProducers" DescribeProducersRequest 0..=0 => typed!(DescribeProducersRequest, describe_producers);
    "UnregisterBroker" UnregisterBrokerRequest 0..=0 => typed!(UnregisterBrokerRequest, unregister_broker);
    "DescribeTransactions" DescribeTransactionsRequest 0..=0 => typed!(DescribeTransactionsRequest, describe_transactions);
    "ListTransactions" ListTransactionsRequest 0..=2 => typed!(ListTransactionsRequest, list_transactions);
    "ConsumerGroupHeartbeat" ConsumerGroupHeartbeatRequest 0..=1 => typed!(ConsumerGroupHeartbeatRequest, consumer_group_heartbeat);
    "ConsumerGroupDescribe" ConsumerGroupDescribeRequest 0..=1 => typed!(ConsumerGroupDescribeRequest, consumer_group_describe);
    "GetTelemetrySubscriptions" GetTelemetrySubscriptionsRequest 0..=0 => typed!(GetTelemetrySubscriptionsRequest, get_telemetry_subscriptions);
    "PushTelemetry" PushTelemetryRequest 0..=0 => typed!(PushTelemetryRequest, push_telemetry);
    "ListConfigResources" ListConfigResourcesRequest 0..=1 => typed!(ListConfigResourcesRequest, list_config_resources);
    "DescribeTopicPartitions" DescribeTopicPartitionsRequest 0..=0 => typed!(DescribeTopicPartitionsRequest, describe_topic_partitions);
}

#[cfg(test)]
mod tests;
