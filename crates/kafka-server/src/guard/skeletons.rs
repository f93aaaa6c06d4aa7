//! The table of skeletons: what each served API's request looks like, by version, after Kafka's published message schemas. Produce is not here:
//! its own decoder checks as it goes. A test holds the table to the codec's encoder over all APIs and versions.

use super::walker::{Field, Kind, Skeleton};

/// No version is flexible.
const NEVER: i16 = i16::MAX;

const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const STR: Kind = Kind::Str;
const BYTES: Kind = Kind::Bytes;

const fn list(element: &'static Kind) -> Kind {
    Kind::List(element)
}

const fn array(fields: &'static [Field]) -> Kind {
    Kind::Array(fields)
}

const fn field(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn since(first: i16, kind: Kind) -> Field {
    between(first, i16::MAX, kind)
}

const fn until(last: i16, kind: Kind) -> Field {
    between(0, last, kind)
}

const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { kind, first, last, tag: None }
}

const fn tagged(tag: u32, first: i16, kind: Kind) -> Field {
    Field { kind, first, last: i16::MAX, tag: Some(tag) }
}

/// The skeleton of an API's requests.
pub(crate) fn skeleton(key: i16) -> Option<&'static Skeleton> {
    SKELETONS.iter().find(|skeleton| skeleton.key == key)
}

pub(super) static SKELETONS: &[Skeleton] = &[
    // Fetch
    Skeleton {
        key: 1,
        flexible_from: 12,
        fields: &[
            tagged(0, 12, STR),
            until(14, I32),
            tagged(1, 15, Kind::Struct(&[since(15, I32), since(15, I64)])),
            field(I32),
            field(I32),
            since(3, I32),
            since(4, I8),
            since(7, I32),
            since(7, I32),
            field(array(&[
                until(12, STR),
                since(13, UUID),
                field(array(&[
                    field(I32),
                    since(9, I32),
                    field(I64),
                    since(12, I32),
                    since(5, I64),
                    field(I32),
                    tagged(0, 17, UUID),
                    tagged(1, 18, I64),
                ])),
            ])),
            since(7, array(&[between(7, 12, STR), since(13, UUID), since(7, list(&I32))])),
            since(11, STR),
        ],
    },
    // ListOffsets
    Skeleton {
        key: 2,
        flexible_from: 6,
        fields: &[
            field(I32),
            since(2, I8),
            field(array(&[field(STR), field(array(&[field(I32), since(4, I32), field(I64)]))])),
            since(10, I32),
        ],
    },
    // Metadata
    Skeleton {
        key: 3,
        flexible_from: 9,
        fields: &[field(array(&[since(10, UUID), field(STR)])), since(4, I8), between(8, 10, I8), since(8, I8)],
    },
    // OffsetCommit
    Skeleton {
        key: 8,
        flexible_from: 8,
        fields: &[
            field(STR),
            since(1, I32),
            since(1, STR),
            since(7, STR),
            between(2, 4, I64),
            field(array(&[until(9, STR), since(10, UUID), field(array(&[field(I32), field(I64), since(6, I32), field(STR)]))])),
        ],
    },
    // OffsetFetch
    Skeleton {
        key: 9,
        flexible_from: 6,
        fields: &[
            until(7, STR),
            until(7, array(&[until(7, STR), until(7, list(&I32))])),
            since(
                8,
                array(&[
                    since(8, STR),
                    since(9, STR),
                    since(9, I32),
                    since(8, array(&[between(8, 9, STR), since(10, UUID), since(8, list(&I32))])),
                ]),
            ),
            since(7, I8),
        ],
    },
    // FindCoordinator
    Skeleton { key: 10, flexible_from: 3, fields: &[until(3, STR), since(1, I8), since(4, list(&STR))] },
    // JoinGroup
    Skeleton {
        key: 11,
        flexible_from: 6,
        fields: &[
            field(STR),
            field(I32),
            since(1, I32),
            field(STR),
            since(5, STR),
            field(STR),
            field(array(&[field(STR), field(BYTES)])),
            since(8, STR),
        ],
    },
    // Heartbeat
    Skeleton { key: 12, flexible_from: 4, fields: &[field(STR), field(I32), field(STR), since(3, STR)] },
    // LeaveGroup
    Skeleton {
        key: 13,
        flexible_from: 4,
        fields: &[field(STR), until(2, STR), since(3, array(&[since(3, STR), since(3, STR), since(5, STR)]))],
    },
    // SyncGroup
    Skeleton {
        key: 14,
        flexible_from: 4,
        fields: &[
            field(STR),
            field(I32),
            field(STR),
            since(3, STR),
            since(5, STR),
            since(5, STR),
            field(array(&[field(STR), field(BYTES)])),
        ],
    },
    // DescribeGroups
    Skeleton { key: 15, flexible_from: 5, fields: &[field(list(&STR)), since(3, I8)] },
    // ListGroups
    Skeleton { key: 16, flexible_from: 3, fields: &[since(4, list(&STR)), since(5, list(&STR))] },
    // ApiVersions
    Skeleton { key: 18, flexible_from: 3, fields: &[since(3, STR), since(3, STR)] },
    // CreateTopics
    Skeleton {
        key: 19,
        flexible_from: 5,
        fields: &[
            field(array(&[
                field(STR),
                field(I32),
                field(I16),
                field(array(&[field(I32), field(list(&I32))])),
                field(array(&[field(STR), field(STR)])),
            ])),
            field(I32),
            since(1, I8),
        ],
    },
    // DeleteTopics
    Skeleton { key: 20, flexible_from: 4, fields: &[since(6, array(&[since(6, STR), since(6, UUID)])), until(5, list(&STR)), field(I32)] },
    // DeleteRecords
    Skeleton { key: 21, flexible_from: 2, fields: &[field(array(&[field(STR), field(array(&[field(I32), field(I64)]))])), field(I32)] },
    // InitProducerId
    Skeleton { key: 22, flexible_from: 2, fields: &[field(STR), field(I32), since(3, I64), since(3, I16)] },
    // OffsetForLeaderEpoch
    Skeleton {
        key: 23,
        flexible_from: 4,
        fields: &[since(3, I32), field(array(&[field(STR), field(array(&[field(I32), since(2, I32), field(I32)]))]))],
    },
    // AddPartitionsToTxn
    Skeleton {
        key: 24,
        flexible_from: 3,
        fields: &[
            since(4, array(&[field(STR), field(I64), field(I16), field(I8), field(array(&[field(STR), field(list(&I32))]))])),
            until(3, STR),
            until(3, I64),
            until(3, I16),
            until(3, array(&[field(STR), field(list(&I32))])),
        ],
    },
    // AddOffsetsToTxn
    Skeleton { key: 25, flexible_from: 3, fields: &[field(STR), field(I64), field(I16), field(STR)] },
    // EndTxn
    Skeleton { key: 26, flexible_from: 3, fields: &[field(STR), field(I64), field(I16), field(I8)] },
    // WriteTxnMarkers
    Skeleton {
        key: 27,
        flexible_from: 1,
        fields: &[field(array(&[
            field(I64),
            field(I16),
            field(I8),
            field(array(&[field(STR), field(list(&I32))])),
            field(I32),
            since(2, I8),
        ]))],
    },
    // TxnOffsetCommit
    Skeleton {
        key: 28,
        flexible_from: 3,
        fields: &[
            field(STR),
            field(STR),
            field(I64),
            field(I16),
            since(3, I32),
            since(3, STR),
            since(3, STR),
            field(array(&[field(STR), field(array(&[field(I32), field(I64), since(2, I32), field(STR)]))])),
        ],
    },
    // DescribeAcls
    Skeleton { key: 29, flexible_from: 2, fields: &[field(I8), field(STR), since(1, I8), field(STR), field(STR), field(I8), field(I8)] },
    // CreateAcls
    Skeleton {
        key: 30,
        flexible_from: 2,
        fields: &[field(array(&[field(I8), field(STR), since(1, I8), field(STR), field(STR), field(I8), field(I8)]))],
    },
    // DeleteAcls
    Skeleton {
        key: 31,
        flexible_from: 2,
        fields: &[field(array(&[field(I8), field(STR), since(1, I8), field(STR), field(STR), field(I8), field(I8)]))],
    },
    // DescribeConfigs
    Skeleton {
        key: 32,
        flexible_from: 4,
        fields: &[field(array(&[field(I8), field(STR), field(list(&STR))])), since(1, I8), since(3, I8)],
    },
    // AlterConfigs
    Skeleton {
        key: 33,
        flexible_from: 2,
        fields: &[field(array(&[field(I8), field(STR), field(array(&[field(STR), field(STR)]))])), field(I8)],
    },
    // AlterReplicaLogDirs
    Skeleton { key: 34, flexible_from: 2, fields: &[field(array(&[field(STR), field(array(&[field(STR), field(list(&I32))]))]))] },
    // DescribeLogDirs
    Skeleton { key: 35, flexible_from: 2, fields: &[field(array(&[field(STR), field(list(&I32))]))] },
    // CreatePartitions
    Skeleton {
        key: 37,
        flexible_from: 2,
        fields: &[field(array(&[field(STR), field(I32), field(array(&[field(list(&I32))]))])), field(I32), field(I8)],
    },
    // DeleteGroups
    Skeleton { key: 42, flexible_from: 2, fields: &[field(list(&STR))] },
    // ElectLeaders
    Skeleton { key: 43, flexible_from: 2, fields: &[since(1, I8), field(array(&[field(STR), field(list(&I32))])), field(I32)] },
    // IncrementalAlterConfigs
    Skeleton {
        key: 44,
        flexible_from: 1,
        fields: &[field(array(&[field(I8), field(STR), field(array(&[field(STR), field(I8), field(STR)]))])), field(I8)],
    },
    // AlterPartitionReassignments
    Skeleton {
        key: 45,
        flexible_from: 0,
        fields: &[field(I32), since(1, I8), field(array(&[field(STR), field(array(&[field(I32), field(list(&I32))]))]))],
    },
    // ListPartitionReassignments
    Skeleton { key: 46, flexible_from: 0, fields: &[field(I32), field(array(&[field(STR), field(list(&I32))]))] },
    // OffsetDelete
    Skeleton { key: 47, flexible_from: NEVER, fields: &[field(STR), field(array(&[field(STR), field(array(&[field(I32)]))]))] },
    // DescribeClientQuotas
    Skeleton { key: 48, flexible_from: 1, fields: &[field(array(&[field(STR), field(I8), field(STR)])), field(I8)] },
    // AlterClientQuotas
    Skeleton {
        key: 49,
        flexible_from: 1,
        fields: &[field(array(&[field(array(&[field(STR), field(STR)])), field(array(&[field(STR), field(I64), field(I8)]))])), field(I8)],
    },
    // DescribeQuorum
    Skeleton { key: 55, flexible_from: 0, fields: &[field(array(&[field(STR), field(array(&[field(I32)]))]))] },
    // UpdateFeatures
    Skeleton {
        key: 57,
        flexible_from: 0,
        fields: &[field(I32), field(array(&[field(STR), field(I16), until(0, I8), since(1, I8)])), since(1, I8)],
    },
    // DescribeCluster
    Skeleton { key: 60, flexible_from: 0, fields: &[field(I8), since(1, I8), since(2, I8)] },
    // DescribeProducers
    Skeleton { key: 61, flexible_from: 0, fields: &[field(array(&[field(STR), field(list(&I32))]))] },
    // DescribeTransactions
    Skeleton { key: 65, flexible_from: 0, fields: &[field(list(&STR))] },
    // ListTransactions
    Skeleton { key: 66, flexible_from: 0, fields: &[field(list(&STR)), field(list(&I64)), since(1, I64), since(2, STR)] },
    // ConsumerGroupHeartbeat
    Skeleton {
        key: 68,
        flexible_from: 0,
        fields: &[
            field(STR),
            field(STR),
            field(I32),
            field(STR),
            field(STR),
            field(I32),
            field(list(&STR)),
            since(1, STR),
            field(STR),
            field(array(&[field(UUID), field(list(&I32))])),
        ],
    },
    // ConsumerGroupDescribe
    Skeleton { key: 69, flexible_from: 0, fields: &[field(list(&STR)), field(I8)] },
    // UnregisterBroker
    Skeleton { key: 64, flexible_from: 0, fields: &[field(I32)] },
    // GetTelemetrySubscriptions
    Skeleton { key: 71, flexible_from: 0, fields: &[field(UUID)] },
    // PushTelemetry
    Skeleton { key: 72, flexible_from: 0, fields: &[field(UUID), field(I32), field(I8), field(I8), field(BYTES)] },
    // ListConfigResources
    Skeleton { key: 74, flexible_from: 0, fields: &[since(1, list(&I8))] },
    // DescribeTopicPartitions
    Skeleton {
        key: 75,
        flexible_from: 0,
        fields: &[field(array(&[field(STR)])), field(I32), field(Kind::Optional(&[field(STR), field(I32)]))],
    },
];
