//! Requests of a member of a classic group.

use super::requests::text;
use crate::{Conn, Session};
use anyhow::{Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::time::{Duration, Instant};

/// Error codes that steer a conversation.
pub const MEMBER_ID_REQUIRED: i16 = 79;
/// The group is waiting for its members to join again.
pub const REBALANCE_IN_PROGRESS: i16 = 27;

/// What a consumer subscribes to, in the consumer protocol's version 0. Kafka parses it, and never answers a join where it can not.
pub fn subscription(topics: &[TopicName], user_data: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(user_data.len() as i32);
    out.put_slice(user_data.as_bytes());
    out.freeze()
}

/// Join with the protocols named, each a subscription to nothing with its name as user data.
pub fn join(group: &GroupId, member_id: &str, protocols: &[&str]) -> JoinGroupRequest {
    let protocols =
        protocols.iter().map(|name| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(subscription(&[], name)));
    JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(protocols.collect())
}

/// The same request without the fields that `version` lacks.
pub fn join_at(version: i16, request: JoinGroupRequest) -> JoinGroupRequest {
    match version {
        0 => request.with_rebalance_timeout_ms(-1),
        _ => request,
    }
}

/// Sync with an assignment for each of `assigned`.
pub fn sync(group: &GroupId, generation: i32, member_id: &str, assigned: &[&str]) -> SyncGroupRequest {
    let assignments = assigned
        .iter()
        .enumerate()
        .map(|(i, id)| SyncGroupRequestAssignment::default().with_member_id(text(id)).with_assignment(Bytes::from(format!("part-{i}"))));
    SyncGroupRequest::default()
        .with_group_id(group.clone())
        .with_generation_id(generation)
        .with_member_id(text(member_id))
        .with_assignments(assignments.collect())
}

/// Heartbeat of a member.
pub fn heartbeat(group: &GroupId, generation: i32, member_id: &str) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(group.clone()).with_generation_id(generation).with_member_id(text(member_id))
}

/// Leave of one member, in the form that `version` knows.
pub fn leave(version: i16, group: &GroupId, member_id: &str) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group.clone());
    match version {
        0..=2 => request.with_member_id(text(member_id)),
        _ => request.with_members(vec![MemberIdentity::default().with_member_id(text(member_id))]),
    }
}

/// A member that is in a group, with its own connection.
pub struct Member {
    /// Its connection.
    pub conn: Conn,
    /// Its group.
    pub group: GroupId,
    /// Its id.
    pub id: String,
    /// The generation it last joined.
    pub generation: i32,
    /// Its static name.
    pub instance: Option<StrBytes>,
}

impl Member {
    /// A member with an id but not yet in the group: the broker gave the id with MEMBER_ID_REQUIRED. A static one has none yet.
    pub fn known(s: &Session, short: &str, client_id: &str, instance: Option<&str>) -> Result<Member> {
        let mut conn = s.connect()?;
        conn.client_id = Some(text(client_id));
        let group = s.group(short);
        let id = match instance {
            Some(_) => String::new(),
            None => {
                let answer = conn.call(5, &join(&group, "", &["range"]))?;
                ensure!(answer.error_code == MEMBER_ID_REQUIRED, "{answer:?}");
                answer.member_id.to_string()
            }
        };
        let instance = instance.map(text);
        Ok(Member { conn, group, id, generation: -1, instance })
    }

    /// The only member of a new group, synced: the group is stable.
    pub fn alone(s: &Session, short: &str, client_id: &str, instance: Option<&str>) -> Result<Member> {
        let mut member = Member::known(s, short, client_id, instance)?;
        let answer = member.conn.call(5, &member.join())?;
        ensure!(answer.error_code == 0, "{answer:?}");
        member.joined(&answer);
        let request = member.sync(&[member.id.as_str()]);
        let answer = member.conn.call(3, &request)?;
        ensure!(answer.error_code == 0, "{answer:?}");
        Ok(member)
    }

    /// Its join request, with the protocol `range`.
    pub fn join(&self) -> JoinGroupRequest {
        join(&self.group, &self.id, &["range"]).with_group_instance_id(self.instance.clone())
    }

    /// Takes id and generation from a join answer.
    pub fn joined(&mut self, answer: &JoinGroupResponse) {
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
    }

    /// Its sync request.
    pub fn sync(&self, assigned: &[&str]) -> SyncGroupRequest {
        sync(&self.group, self.generation, &self.id, assigned).with_group_instance_id(self.instance.clone())
    }

    /// Its heartbeat.
    pub fn heartbeat(&self) -> HeartbeatRequest {
        heartbeat(&self.group, self.generation, &self.id).with_group_instance_id(self.instance.clone())
    }

    /// Beats until the broker answers `error`.
    pub fn beat_until(&mut self, error: i16) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let request = self.heartbeat();
        loop {
            let answer = self.conn.call(3, &request)?;
            if answer.error_code == error {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still {answer:?}, waiting for error {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
