//! A member of a classic group.

use std::collections::HashSet;

use bytes::Bytes;

use crate::driver::WaiterId;
use crate::messages::{JoinRequest, Protocol};
use crate::records::MemberMetadata;

/// A member of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In its order of preference.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Its JoinGroup that waits for the join phase to end.
    pub(crate) awaiting_join: Option<WaiterId>,
    /// Its SyncGroup that waits for the leader's.
    pub(crate) awaiting_sync: Option<WaiterId>,
    /// True until its first JoinGroup was answered: it can't send heartbeats yet.
    pub(crate) is_new: bool,
}

impl Member {
    pub(crate) fn new(id: String, request: JoinRequest, waiter: WaiterId) -> Self {
        Self {
            id,
            group_instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(waiter),
            awaiting_sync: None,
            is_new: true,
        }
    }

    pub(crate) fn from_metadata(metadata: MemberMetadata, protocol: &str) -> Self {
        let session_timeout_ms = metadata.session_timeout_ms;
        let rebalance_timeout_ms = metadata.rebalance_timeout_ms;
        Self {
            id: metadata.member_id,
            group_instance_id: metadata.group_instance_id,
            client_id: metadata.client_id,
            client_host: metadata.client_host,
            rebalance_timeout_ms: if rebalance_timeout_ms == -1 { session_timeout_ms } else { rebalance_timeout_ms },
            session_timeout_ms,
            protocols: vec![Protocol { name: protocol.to_owned(), metadata: metadata.subscription }],
            assignment: metadata.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }

    /// Its metadata for a protocol; empty if it does not offer it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|offered| offered.name == protocol).map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    pub(crate) fn protocol_names(&self) -> HashSet<&str> {
        self.protocols.iter().map(|protocol| protocol.name.as_str()).collect()
    }

    /// Its favourite among the candidates.
    pub(crate) fn vote(&self, candidates: &HashSet<&str>) -> Option<&str> {
        self.protocols.iter().map(|protocol| protocol.name.as_str()).find(|name| candidates.contains(name))
    }

    /// A member that waits for an answer is alive, unless it is new: then its client may long be gone.
    pub(crate) fn counts_as_alive(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}
