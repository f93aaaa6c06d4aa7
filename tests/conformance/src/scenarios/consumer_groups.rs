//! Consumer groups (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe, and what the other group APIs make of such groups.

use super::group_requests::{Member, join, subscription, sync};
use super::requests::text;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, CreatePartitionsRequest,
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, TopicName,
};
use serde_json::json;
use uuid::Uuid;

/// Targets are worked out at once, so that answers do not depend on the clock; groups are full with four members.
const SETTINGS: &[(&str, &str)] = &[("group.consumer.assignment.interval.ms", "0"), ("group.consumer.max.size", "4")];

const fn own(name: &'static str, run: fn(&mut Session) -> Result<()>) -> Scenario {
    Scenario { name, settings: SETTINGS, run }
}

const CLASSIC_ONLY: &[(&str, &str)] = &[("group.coordinator.rebalance.protocols", "classic")];

pub const SCENARIOS: &[Scenario] = &[
    own("consumer-group-requests", requests),
    own("consumer-group-members", members),
    own("consumer-group-fencing", fencing),
    own("consumer-group-static", statics),
    own("consumer-group-regex", regex),
    own("consumer-group-offsets", offsets),
    own("consumer-group-admin", admin),
    own("consumer-group-migration", migration),
    scenario("consumer-group-configs", configs),
    Scenario { name: "consumer-group-not-served", settings: CLASSIC_ONLY, run: not_served },
];

type Beat = ConsumerGroupHeartbeatRequest;

/// A heartbeat that says no more than it must.
fn beat(group: &GroupId, id: &str, epoch: i32) -> Beat {
    Beat::default()
        .with_group_id(group.clone())
        .with_member_id(text(id))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

/// The first heartbeat of a member.
fn first(group: &GroupId, id: &str, topics: &[TopicName]) -> Beat {
    beat(group, id, 0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(topics.to_vec()))
        .with_topic_partitions(Some(vec![]))
}

fn owning(request: Beat, topic: Uuid, partitions: &[i32]) -> Beat {
    let owned = TopicPartitions::default().with_topic_id(topic).with_partitions(partitions.to_vec());
    request.with_topic_partitions(Some(if partitions.is_empty() { vec![] } else { vec![owned] }))
}

/// A connection whose client has a name, by which descriptions are sorted.
fn named(s: &Session, name: &str) -> Result<Conn> {
    let mut conn = s.connect()?;
    conn.client_id = Some(text(name));
    Ok(conn)
}

fn describe(s: &mut Session, c: &mut Conn, step: &str, group: &GroupId) -> Result<()> {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone()]);
    s.ask(c, step, 1, &request)?;
    Ok(())
}

fn not_served(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let group = s.group("g");
    for version in [0, 1] {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("heartbeat"), version, &first(&group, "m", &[s.topic("t")]))?;
        s.ask(&mut c, &step("heartbeat that says nothing"), version, &Beat::default())?;
        let both = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone(), s.group("other")]);
        s.ask(&mut c, &step("describe"), version, &both.with_include_authorized_operations(true))?;
    }
    Ok(())
}

fn requests(s: &mut Session) -> Result<()> {
    let mut c = named(s, "c")?;
    let group = s.group("g");
    let topic = s.topic("t");
    s.create_topic(&mut c, "t", 2, &[])?;
    let good = first(&group, "m", std::slice::from_ref(&topic));
    for version in [0, 1] {
        let bad = [
            ("empty group", good.clone().with_group_id(GroupId(text("")))),
            ("blank group", good.clone().with_group_id(GroupId(text("  ")))),
            ("empty instance", good.clone().with_instance_id(Some(text("")))),
            ("empty rack", good.clone().with_rack_id(Some(text("")))),
            ("no rebalance timeout", good.clone().with_rebalance_timeout_ms(-1)),
            ("no owned partitions", good.clone().with_topic_partitions(None)),
            ("owned partitions", owning(good.clone(), Uuid::from_u128(7), &[0])),
            ("no subscription", good.clone().with_subscribed_topic_names(None)),
            ("unknown assignor", good.clone().with_server_assignor(Some(text("nope")))),
            ("empty assignor", good.clone().with_server_assignor(Some(text("")))),
            ("epoch -3", good.clone().with_member_epoch(-3)),
            ("leave for a while without instance", beat(&group, "m", -2)),
            ("leave without id", beat(&group, "", -1)),
            ("epoch without id", beat(&group, "", 3)),
            ("unknown group, epoch", beat(&group, "m", 3)),
            ("unknown group, leave", beat(&group, "m", -1)),
            ("unknown group, static leave", beat(&group, "m", -2).with_instance_id(Some(text("i")))),
        ];
        for (what, request) in bad {
            s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
        }
        let step = |what: &str| format!("v{version} {what}");
        let none = ConsumerGroupDescribeRequest::default();
        s.ask(&mut c, &step("describe nothing"), version, &none)?;
        let unknown = none.with_group_ids(vec![group.clone(), GroupId(text(""))]).with_include_authorized_operations(true);
        s.ask(&mut c, &step("describe unknown and empty"), version, &unknown)?;
    }
    s.ask(&mut c, "v1 empty id", 1, &good.clone().with_member_id(text("")))?;
    s.ask(&mut c, "v1 nothing subscribed", 1, &first(&s.group("nothing"), "m", &[]))?;
    s.ask(&mut c, "v1 unknown topic", 1, &first(&s.group("unknown"), "m", &[s.topic("none")]))?;
    let made_up = c.call(0, &good.with_member_id(text("")))?;
    let has_id = made_up.member_id.is_some_and(|id| id.len() == 22);
    s.note("v0 empty id", "ConsumerGroupHeartbeat v0", json!({"error_code": made_up.error_code, "has_id": has_id}))
}

fn members(s: &mut Session) -> Result<()> {
    let (mut a, mut b) = (named(s, "a")?, named(s, "b")?);
    let id = s.create_topic(&mut a, "t", 4, &[])?;
    let (group, topics) = (s.group("g"), [s.topic("t")]);
    s.ask(&mut a, "a joins", 1, &first(&group, "a", &topics))?;
    describe(s, &mut a, "described with one", &group)?;
    s.ask(&mut a, "a stays", 1, &beat(&group, "a", 2))?;
    s.ask(&mut b, "b joins", 1, &first(&group, "b", &topics).with_rack_id(Some(text("r"))))?;
    describe(s, &mut a, "described while it reconciles", &group)?;
    s.ask(&mut b, "b waits", 1, &beat(&group, "b", 3))?;
    s.ask(&mut a, "a is told to revoke", 1, &beat(&group, "a", 2))?;
    describe(s, &mut a, "described while a revokes", &group)?;
    s.ask(&mut a, "a has not revoked yet", 1, &owning(beat(&group, "a", 2), id, &[0, 1, 2, 3]))?;
    s.ask(&mut b, "b still waits", 1, &beat(&group, "b", 3))?;
    s.ask(&mut a, "a has revoked", 1, &owning(beat(&group, "a", 2), id, &[0, 1]))?;
    s.ask(&mut b, "b gets its part", 1, &beat(&group, "b", 3))?;
    describe(s, &mut a, "described when stable", &group)?;
    let full = owning(first(&group, "b", &topics).with_member_epoch(3), id, &[2, 3]);
    s.ask(&mut b, "a full request", 1, &full)?;
    let more = kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic::default()
        .with_name(s.topic("t"))
        .with_count(6)
        .with_assignments(None);
    a.call(3, &CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(15_000))?;
    s.wait_for_topic(&mut a, "t", 6)?;
    // The coordinator may learn of it a little later.
    a.wait_for(|a| Ok(a.call(1, &owning(beat(&group, "a", 3), id, &[0, 1]))?.member_epoch == 4))?;
    s.ask(&mut b, "b gets new partitions", 1, &beat(&group, "b", 3))?;
    describe(s, &mut a, "described with more partitions", &group)?;
    s.ask(&mut b, "b leaves", 1, &beat(&group, "b", -1))?;
    s.ask(&mut b, "b is unknown", 1, &beat(&group, "b", 4))?;
    s.ask(&mut a, "a gets all", 1, &beat(&group, "a", 4))?;
    s.ask(&mut a, "a subscribes to nothing", 1, &beat(&group, "a", 5).with_subscribed_topic_names(Some(vec![])))?;
    s.ask(&mut a, "a has revoked all", 1, &owning(beat(&group, "a", 5), id, &[]))?;
    describe(s, &mut a, "described without subscription", &group)?;
    s.ask(&mut a, "a leaves", 1, &beat(&group, "a", -1))?;
    describe(s, &mut a, "described when empty", &group)
}

fn fencing(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let (group, topics) = (s.group("g"), [s.topic("t")]);
    s.ask(&mut c, "joins", 1, &first(&group, "a", &topics))?;
    for (what, request) in [
        ("newer epoch", beat(&group, "a", 3)),
        ("older epoch", beat(&group, "a", 1)),
        ("previous epoch, owning nothing", owning(beat(&group, "a", 0).with_member_epoch(1), id, &[])),
        ("unknown member", beat(&group, "b", 2)),
        ("unknown member leaves", beat(&group, "b", -1)),
        ("unknown instance", beat(&group, "a", 2).with_instance_id(Some(text("i")))),
        ("unknown instance leaves", beat(&group, "a", -1).with_instance_id(Some(text("i")))),
        ("joins again", first(&group, "a", &topics)),
    ] {
        s.ask(&mut c, what, 1, &request)?;
    }
    let changed = |epoch| owning(beat(&group, "a", epoch), id, &[0, 1]).with_server_assignor(Some(text("range")));
    s.ask(&mut c, "another assignor", 1, &changed(2))?;
    let none = beat(&group, "a", 2).with_subscribed_topic_names(Some(vec![s.topic("t"), s.topic("none")]));
    s.ask(&mut c, "one more topic", 1, &owning(none, id, &[0, 1]))?;
    s.ask(&mut c, "its last answer was lost", 1, &changed(2))?;
    s.ask(&mut c, "lost, and it owns too much", 1, &owning(beat(&group, "a", 2), id, &[0, 1, 2]))?;
    s.ask(&mut c, "lost, and it does not say what it owns", 1, &beat(&group, "a", 2))?;
    for member in ["b", "c", "d"] {
        s.ask(&mut c, &format!("{member} joins"), 1, &first(&group, member, &topics))?;
    }
    s.ask(&mut c, "the group is full", 1, &first(&group, "e", &topics))?;
    s.ask(&mut c, "full, a member joins again", 1, &first(&group, "d", &topics))?;
    Ok(())
}

fn statics(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let (group, topics) = (s.group("g"), [s.topic("t")]);
    let of = |request: Beat, instance: &str| request.with_instance_id(Some(text(instance)));
    s.ask(&mut c, "joins", 1, &of(first(&group, "a", &topics), "i"))?;
    s.ask(&mut c, "another of the same name", 1, &of(first(&group, "b", &topics), "i"))?;
    s.ask(&mut c, "another beats", 1, &of(beat(&group, "b", 2), "i"))?;
    s.ask(&mut c, "another leaves", 1, &of(beat(&group, "b", -1), "i"))?;
    s.ask(&mut c, "stays", 1, &of(beat(&group, "a", 2), "i"))?;
    s.ask(&mut c, "stays without its name", 1, &beat(&group, "a", 2))?;
    s.ask(&mut c, "leaves for a while", 1, &of(beat(&group, "a", -2), "i"))?;
    describe(s, &mut c, "described while away", &group)?;
    s.ask(&mut c, "beats while away", 1, &of(beat(&group, "a", 2), "i"))?;
    s.ask(&mut c, "comes back under a new id", 1, &of(first(&group, "b", &topics), "i"))?;
    describe(s, &mut c, "described when back", &group)?;
    s.ask(&mut c, "the old id", 1, &of(beat(&group, "a", 2), "i"))?;
    s.ask(&mut c, "the new id", 1, &of(owning(beat(&group, "b", 2), id, &[0, 1]), "i"))?;
    s.ask(&mut c, "leaves again", 1, &of(beat(&group, "b", -2), "i"))?;
    let other = [s.topic("other")];
    s.ask(&mut c, "comes back with other topics", 1, &of(first(&group, "c", &other), "i"))?;
    describe(s, &mut c, "described with other topics", &group)?;
    let gone = MemberIdentity::default().with_group_instance_id(Some(text("i")));
    let leave = LeaveGroupRequest::default().with_group_id(group.clone()).with_members(vec![gone]);
    s.ask(&mut c, "an administrator removes it", 5, &leave)?;
    s.ask(&mut c, "and again", 5, &leave)?;
    describe(s, &mut c, "described when empty", &group)
}

fn regex(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    s.create_topic(&mut c, "t1", 2, &[])?;
    s.create_topic(&mut c, "u1", 1, &[])?;
    let group = s.group("g");
    let by =
        |id: &str, regex: &str| first(&group, id, &[]).with_subscribed_topic_names(None).with_subscribed_topic_regex(Some(text(regex)));
    for bad in ["[", "(", "*a", "(?=a)", "a{2,1}", r"\8", "a)", r"\pX"] {
        s.ask(&mut c, &format!("invalid {bad}"), 1, &by("a", bad))?;
    }
    let pattern = format!("{}\\d", s.topic("t").as_str().replace('.', "\\."));
    s.ask(&mut c, "joins", 1, &by("a", &pattern))?;
    let mut matched = ConsumerGroupHeartbeatResponse::default();
    c.wait_for(|c| {
        matched = c.call(1, &beat(&group, "a", 1))?;
        Ok(matched.member_epoch == 2)
    })?;
    describe(s, &mut c, "described", &group)?;
    s.ask(&mut c, "another with the same", 1, &by("b", &pattern))?;
    s.ask(&mut c, "leaves", 1, &beat(&group, "b", -1))?;
    let names = beat(&group, "a", 2).with_subscribed_topic_names(Some(vec![s.topic("u1")])).with_subscribed_topic_regex(Some(text("")));
    s.ask(&mut c, "names instead", 1, &names)?;
    describe(s, &mut c, "described with names", &group)?;
    let quoted = format!("\\Q{}\\E", s.topic("u1").as_str());
    let other = s.group("quoted");
    let joining = first(&other, "q", &[]).with_subscribed_topic_names(None).with_subscribed_topic_regex(Some(text(&quoted)));
    s.ask(&mut c, "quoted", 1, &joining)?;
    c.wait_for(|c| Ok(c.call(1, &beat(&other, "q", 1))?.member_epoch == 2))?;
    describe(s, &mut c, "described, quoted", &other)
}

fn commit(group: &GroupId, topic: TopicName, partition: i32, id: &str, epoch: i32) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default().with_name(topic).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group.clone())
        .with_member_id(text(id))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic])
}

fn offsets(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let (group, topic) = (s.group("g"), s.topic("t"));
    s.ask(&mut c, "joins", 1, &first(&group, "a", std::slice::from_ref(&topic)))?;
    for version in [2, 8, 9] {
        for (what, member, epoch) in [
            ("member", "a", 2),
            ("newer epoch", "a", 3),
            ("older epoch", "a", 1),
            ("epoch 0", "a", 0),
            ("no epoch", "a", -1),
            ("unknown member", "b", 2),
            ("nobody", "", -1),
            ("no member", "", 2),
        ] {
            s.ask(&mut c, &format!("v{version} commit, {what}"), version, &commit(&group, topic.clone(), 0, member, epoch))?;
        }
    }
    for (what, member, epoch) in [
        ("nobody", None, -1),
        ("member", Some("a"), 2),
        ("older epoch", Some("a"), 1),
        ("newer epoch", Some("a"), 3),
        ("unknown member", Some("b"), 2),
        ("no epoch", Some("a"), -1),
        ("no member", None, 2),
    ] {
        let topics = OffsetFetchRequestTopics::default().with_name(topic.clone()).with_partition_indexes(vec![0, 1]);
        let of = OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_member_id(member.map(text)).with_member_epoch(epoch);
        let request = OffsetFetchRequest::default().with_groups(vec![of.with_topics(Some(vec![topics]))]);
        s.ask(&mut c, &format!("v9 fetch, {what}"), 9, &request)?;
    }
    let both = owning(beat(&group, "a", 2), id, &[0, 1]).with_subscribed_topic_names(Some(vec![topic.clone(), s.topic("u")]));
    s.ask(&mut c, "the epoch rises", 1, &both)?;
    s.ask(&mut c, "v9 commit at the older epoch, which had the partition", 9, &commit(&group, topic.clone(), 0, "a", 2))?;
    s.create_topic(&mut c, "other", 1, &[])?;
    s.ask(&mut c, "v9 commit at the older epoch, of another topic", 9, &commit(&group, s.topic("other"), 0, "a", 2))?;
    s.ask(&mut c, "v9 commit of another topic", 9, &commit(&group, s.topic("other"), 0, "a", 3))?;
    let delete = |topic: TopicName| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default().with_name(topic).with_partitions(vec![partition]);
        OffsetDeleteRequest::default().with_group_id(group.clone()).with_topics(vec![topic])
    };
    s.ask(&mut c, "delete offsets, subscribed", 0, &delete(topic.clone()))?;
    s.ask(&mut c, "delete offsets, not subscribed", 0, &delete(s.topic("other")))?;
    c.call(1, &beat(&group, "a", -1))?;
    s.ask(&mut c, "v8 commit of nobody when it is empty", 8, &commit(&group, topic.clone(), 0, "", -1))?;
    s.ask(&mut c, "v9 commit of a former member", 9, &commit(&group, topic.clone(), 0, "a", 3))?;
    s.ask(&mut c, "delete offsets when it is empty", 0, &delete(topic))?;
    Ok(())
}

fn admin(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    s.note_only_own();
    s.create_topic(&mut c, "t", 1, &[])?;
    let (group, topic) = (s.group("g"), s.topic("t"));
    c.call(1, &first(&group, "a", std::slice::from_ref(&topic)))?;
    c.call(8, &commit(&s.group("simple"), topic.clone(), 0, "", -1))?;
    let list = |states: &[&str], types: &[&str]| {
        ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect())
    };
    for (what, states, types) in [
        ("all", &[][..], &[][..]),
        ("consumer", &[], &["consumer"]),
        ("Classic", &[], &["Classic"]),
        ("both", &[], &["classic", "consumer"]),
        ("nonsense", &[], &["nope"]),
        ("stable", &["stable"], &[]),
        ("reconciling and assigning", &["Reconciling", "Assigning"], &[]),
        ("stable consumer", &["Stable"], &["Consumer"]),
    ] {
        s.ask(&mut c, &format!("list {what}"), 5, &list(states, types))?;
    }
    s.ask(&mut c, "list v3", 3, &ListGroupsRequest::default())?;
    for version in [5, 6] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
        s.ask(&mut c, &format!("v{version} described as a classic group"), version, &request)?;
    }
    let unknown = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone(), s.group("simple"), s.group("none")]);
    s.ask(&mut c, "described with others", 1, &unknown.clone().with_include_authorized_operations(true))?;
    s.ask(&mut c, "v0 described with others", 0, &unknown)?;
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group.clone()]);
    s.ask(&mut c, "delete with members", 2, &delete)?;
    c.call(1, &beat(&group, "a", -1))?;
    s.ask(&mut c, "list when empty", 5, &list(&["empty"], &["consumer"]))?;
    s.ask(&mut c, "delete", 2, &delete)?;
    s.ask(&mut c, "delete again", 2, &delete)?;
    c.call(1, &first(&group, "a", std::slice::from_ref(&topic)))?;
    c.call(1, &beat(&group, "a", -1))?;
    let joined = Member::known(s, "g", "classic", None)?;
    drop(joined);
    s.ask(&mut c, "list when it is a classic group", 5, &list(&[], &[]))?;
    s.ask(&mut c, "a classic group with an offset alone becomes one", 1, &first(&s.group("simple"), "a", &[topic]))?;
    s.ask(&mut c, "list when the simple group is a consumer group", 5, &list(&[], &[]))?;
    Ok(())
}

fn migration(s: &mut Session) -> Result<()> {
    let mut c = named(s, "new")?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let topic = s.topic("t");
    let mut old = Member::known(s, "g", "old", None)?;
    let mut request = old.join();
    request.protocols[0].metadata = subscription(std::slice::from_ref(&topic), "");
    let joined = old.conn.call(5, &request)?;
    old.joined(&joined);
    s.ask(&mut c, "not while it has not synced: its user data is lost", 1, &first(&old.group, "new", std::slice::from_ref(&topic)))?;
    let group = old.group.clone();
    describe(s, &mut c, "described", &group)?;
    let heartbeat = |generation: i32, id: &str| {
        HeartbeatRequest::default().with_group_id(group.clone()).with_generation_id(generation).with_member_id(text(id))
    };
    s.ask(&mut old.conn, "the classic member is to join again", 4, &heartbeat(old.generation, &old.id.clone()))?;
    s.ask(&mut old.conn, "a wrong generation", 4, &heartbeat(9, &old.id.clone()))?;
    s.ask(&mut old.conn, "a stranger", 4, &heartbeat(1, "nobody"))?;
    s.ask(&mut old.conn, "the new member as a classic one", 4, &heartbeat(2, "new"))?;
    request.member_id = text(&old.id);
    let joined = s.ask(&mut old.conn, "it joins again", 5, &request)?;
    s.ask(&mut old.conn, "it syncs", 5, &sync(&group, joined.generation_id, &old.id, &[]))?;
    s.ask(&mut old.conn, "it syncs with a wrong generation", 5, &sync(&group, 9, &old.id, &[]))?;
    s.ask(&mut old.conn, "a stranger syncs", 5, &sync(&group, 1, "nobody", &[]))?;
    s.ask(&mut c, "the new member", 1, &beat(&group, "new", 2))?;
    describe(s, &mut c, "described when settled", &group)?;
    s.ask(&mut old.conn, "it is well", 4, &heartbeat(joined.generation_id, &old.id.clone()))?;
    let other = join(&group, "", &["nope"]);
    s.ask(&mut old.conn, "a classic member with another protocol", 5, &other)?;
    s.ask(&mut old.conn, "of another type", 5, &join(&group, "", &["p"]).with_protocol_type(text("connect")))?;
    s.ask(&mut c, "the new member leaves: back to classic", 1, &beat(&group, "new", -1))?;
    s.ask(&mut c, "described as a consumer group", 1, &ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone()]))?;
    s.ask(&mut old.conn, "a classic heartbeat", 4, &heartbeat(joined.generation_id, &old.id.clone()))?;
    Ok(())
}

fn configs(s: &mut Session) -> Result<()> {
    let mut c = named(s, "a")?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let group = s.group("g");
    let alter = |name: &str, value: Option<&str>| {
        let config = AlterableConfig::default().with_name(text(name)).with_value(value.map(text));
        let config = config.with_config_operation(i8::from(value.is_none()));
        let resource =
            AlterConfigsResource::default().with_resource_type(32).with_resource_name(group.0.clone()).with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    for (name, value) in [
        ("consumer.session.timeout.ms", "44999"),
        ("consumer.session.timeout.ms", "60001"),
        ("consumer.heartbeat.interval.ms", "4999"),
        ("consumer.heartbeat.interval.ms", "15001"),
        ("consumer.assignment.interval.ms", "15001"),
        ("consumer.assignment.interval.ms", "-1"),
        ("consumer.heartbeat.interval.ms", "x"),
        ("nope", "1"),
        ("consumer.heartbeat.interval.ms", "7000"),
        ("consumer.session.timeout.ms", "50000"),
    ] {
        s.ask(&mut c, &format!("{name} = {value}"), 1, &alter(name, Some(value)))?;
    }
    // The coordinator may learn of it a little later.
    c.wait_for(|c| Ok(c.call(1, &first(&group, "a", &[s.topic("t")]))?.heartbeat_interval_ms == 7_000))?;
    s.ask(&mut c, "delete consumer.heartbeat.interval.ms", 1, &alter("consumer.heartbeat.interval.ms", None))?;
    c.wait_for(|c| Ok(c.call(1, &first(&group, "a", &[s.topic("t")]))?.heartbeat_interval_ms == 5_000))?;
    s.ask(&mut c, "a member", 1, &first(&group, "a", &[s.topic("t")]))?;
    Ok(())
}
