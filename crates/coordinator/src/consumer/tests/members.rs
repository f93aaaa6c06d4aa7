//! One member after the other.

use super::*;

fn owned(assignment: &Option<Vec<TopicPartitions>>) -> Vec<TopicPartitions> {
    assignment.clone().unwrap_or_default()
}

#[test]
fn a_member_gets_everything_and_a_second_one_waits_until_half_is_given_up() {
    let mut world = World::new(TestCluster::default().with_topic("t", 4));
    let a = world.beat(join("a", &["t"])).unwrap();
    assert_eq!((a.member_epoch, count(&a.assignment)), (2, 4), "the first epoch of a group is 1");
    let b = world.beat(join("b", &["t"])).unwrap();
    assert_eq!((b.member_epoch, count(&b.assignment)), (3, 0), "nothing is free yet");
    let a = world.beat(heartbeat("a", 2)).unwrap();
    assert_eq!((a.member_epoch, count(&a.assignment)), (2, 2), "told to give up two, its epoch stays until it has");
    assert_eq!(world.group.state(), ConsumerGroupState::Reconciling);
    let b = world.beat(heartbeat("b", 3)).unwrap();
    assert_eq!(b.assignment, None, "still nothing");
    let kept = owned(&a.assignment);
    let a = world.beat(ConsumerHeartbeatRequest { owned: Some(kept), ..heartbeat("a", 2) }).unwrap();
    assert_eq!(a.member_epoch, 3);
    let b = world.beat(heartbeat("b", 3)).unwrap();
    assert_eq!(count(&b.assignment), 2);
    assert_eq!(world.group.state(), ConsumerGroupState::Stable);
    world.check();
}

#[test]
fn a_lost_answer_is_given_again_and_other_epochs_are_fenced() {
    let mut world = World::new(TestCluster::default().with_topic("t", 2));
    world.beat(join("a", &["t"])).unwrap();
    assert_eq!(world.error(heartbeat("a", 9)), GroupError::FencedMemberEpoch);
    assert_eq!(world.error(heartbeat("a", 1)), GroupError::FencedMemberEpoch);
    assert_eq!(world.error(heartbeat("nobody", 2)), GroupError::UnknownMemberId);
    world.cluster.put_topic(topic_id("t"), "t", 3);
    world.topics_changed();
    let all = || ConsumerHeartbeatRequest {
        owned: Some(vec![TopicPartitions { topic_id: topic_id("t"), partitions: vec![0, 1] }]),
        ..heartbeat("a", 2)
    };
    assert_eq!(world.beat(all()).unwrap().member_epoch, 3);
    assert_eq!(world.beat(all()).unwrap().member_epoch, 3, "its last answer was lost");
    assert_eq!(world.error(heartbeat("a", 2)), GroupError::FencedMemberEpoch, "it does not say what it owns");
    let too_much = vec![TopicPartitions { topic_id: topic_id("t"), partitions: vec![7] }];
    assert_eq!(world.error(ConsumerHeartbeatRequest { owned: Some(too_much), ..heartbeat("a", 2) }), GroupError::FencedMemberEpoch);
    let again = world.beat(join("a", &["t"])).unwrap();
    assert_eq!((again.member_epoch, count(&again.assignment)), (3, 3), "a member may always begin anew");
    world.check();
}

#[test]
fn requests_are_checked_before_the_group_is_looked_at() {
    let mut world = World::new(TestCluster::default());
    let bad = [
        ConsumerHeartbeatRequest { member_id: String::new(), ..join("", &["t"]) },
        ConsumerHeartbeatRequest { group_id: " ".to_owned(), ..join("a", &["t"]) },
        ConsumerHeartbeatRequest { group_instance_id: Some(String::new()), ..join("a", &["t"]) },
        ConsumerHeartbeatRequest { rack_id: Some(String::new()), ..join("a", &["t"]) },
        ConsumerHeartbeatRequest { rebalance_timeout_ms: -1, ..join("a", &["t"]) },
        ConsumerHeartbeatRequest { owned: None, ..join("a", &["t"]) },
        ConsumerHeartbeatRequest { subscribed_topics: None, ..join("a", &[]) },
        heartbeat("a", -2),
        heartbeat("a", -3),
    ];
    for request in bad {
        let what = format!("{request:?}");
        assert_eq!(world.error(request), GroupError::InvalidRequest, "{what}");
    }
    let assignor = |name: &str| ConsumerHeartbeatRequest { server_assignor: Some(name.to_owned()), ..join("a", &["t"]) };
    assert_eq!(world.error(assignor("nope")), GroupError::UnsupportedAssignor);
    assert!(world.records.is_empty());
    world.beat(assignor("range")).unwrap();
    assert_eq!(world.group.describe(&world.config, &world.cluster).assignor, "range");
    world.beat(ConsumerHeartbeatRequest { brings_member_id: false, ..join("", &["t"]) }).unwrap();
    assert!(world.group.members.contains_key("made-up"));
}

#[test]
fn a_full_group_takes_no_more_members() {
    let mut world = World::new(TestCluster::default());
    world.config.consumer_group_max_size = 1;
    world.beat(join("a", &["t"])).unwrap();
    assert_eq!(world.error(join("b", &["t"])), GroupError::GroupMaxSizeReached);
    world.beat(join("a", &["t"])).unwrap();
}

#[test]
fn static_members_keep_their_partitions_while_they_are_away() {
    let named = |request: ConsumerHeartbeatRequest| ConsumerHeartbeatRequest { group_instance_id: Some("i".to_owned()), ..request };
    let mut world = World::new(TestCluster::default().with_topic("t", 2));
    let a = world.beat(named(join("a", &["t"]))).unwrap();
    assert_eq!(world.error(named(join("a2", &["t"]))), GroupError::UnreleasedInstanceId);
    assert_eq!(world.error(named(heartbeat("a2", 2))), GroupError::FencedInstanceId);
    assert_eq!(world.error(named(heartbeat("a2", -1))), GroupError::FencedInstanceId);
    assert_eq!(world.beat(named(heartbeat("a", -2))).unwrap().member_epoch, -2);
    let epoch = world.group.epoch;
    let back = world.beat(named(join("a2", &["t"]))).unwrap();
    assert_eq!((back.assignment, back.member_epoch), (a.assignment, epoch), "as before, without a rebalance");
    assert_eq!(world.group.epoch, epoch);
    assert!(!world.group.members.contains_key("a"));
    world.check();
    world.beat(named(heartbeat("a2", -1))).unwrap();
    assert!(world.group.is_empty() && world.group.static_members.is_empty() && world.group.owners.is_empty());
    world.check();
}

#[test]
fn a_silent_member_and_one_that_gives_nothing_up_are_removed() {
    let mut world = World::new(TestCluster::default().with_topic("t", 2));
    world.beat(join("a", &["t"])).unwrap();
    let session = Duration::from_millis(world.now_ms as u64 + 45_000);
    assert_eq!(
        world.timers,
        [TimerChange::Cancel(GroupTimer::Rebalance("a".into())), TimerChange::Set(GroupTimer::Heartbeat("a".into()), session)]
    );
    world.beat(join("b", &["t"])).unwrap();
    world.beat(heartbeat("a", 2)).unwrap();
    let rebalance = TimerChange::Set(GroupTimer::Rebalance("a".into()), Duration::from_millis(world.now_ms as u64 + 60_000));
    assert!(world.timers.contains(&rebalance), "{:?}", world.timers);
    for (timer, left) in [(GroupTimer::Rebalance("a".into()), 1), (GroupTimer::Heartbeat("b".into()), 0)] {
        world
            .event(|group, turn| {
                group.on_timer(timer, turn);
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(world.group.members.len(), left);
        world.check();
    }
}

#[test]
fn expressions_subscribe_to_new_topics_and_end_with_their_last_member() {
    let with = |regex: &str, request| ConsumerHeartbeatRequest { subscribed_regex: Some(regex.to_owned()), ..request };
    let mut world = World::new(TestCluster::default().with_topic("a1", 2).with_topic("a3", 2).with_topic("b", 2));
    world.hidden = Some("a3");
    let joining = ConsumerHeartbeatRequest { subscribed_topics: None, ..join("m", &[]) };
    assert_eq!(world.error(with("[", joining.clone())), GroupError::InvalidRegularExpression);
    let m = world.beat(with("a.*", joining)).unwrap();
    assert_eq!((m.member_epoch, count(&m.assignment)), (1, 0), "the expression is resolved after the first answer");
    let m = world.beat(heartbeat("m", 1)).unwrap();
    assert_eq!((m.member_epoch, count(&m.assignment)), (2, 2));
    world.cluster.put_topic(topic_id("a2"), "a2", 3);
    assert_eq!(world.beat(heartbeat("m", 2)).unwrap().assignment, None, "not so soon");
    world.now_ms += 10_001;
    world.beat(heartbeat("m", 2)).unwrap();
    assert_eq!(count(&world.beat(heartbeat("m", 2)).unwrap().assignment), 5);
    assert!(world.group.is_subscribed_to("a2") && !world.group.is_subscribed_to("b"));
    world.check();
    let named = ConsumerHeartbeatRequest { subscribed_topics: Some(vec!["b".to_owned()]), ..heartbeat("m", 3) };
    world.beat(with("", named)).unwrap();
    assert!(world.group.regexes.is_empty() && world.group.is_subscribed_to("b") && !world.group.is_subscribed_to("a1"));
    world.check();
}

#[test]
fn targets_are_not_made_faster_than_the_interval() {
    let mut world = World::new(TestCluster::default().with_topic("t", 2));
    world.cluster.settings.insert("consumer.assignment.interval.ms".to_owned(), 5_000);
    world.beat(join("a", &["t"])).unwrap();
    world.beat(join("b", &["t"])).unwrap();
    assert_eq!((world.group.epoch, world.group.target_epoch), (3, 2));
    assert_eq!(world.group.state(), ConsumerGroupState::Assigning);
    world.now_ms += 5_000;
    world.beat(heartbeat("b", 2)).unwrap();
    assert_eq!(world.group.target_epoch, 3);
    world.check();
}

#[test]
fn settings_of_the_group_are_kept_within_the_broker_s_limits() {
    let mut world = World::new(TestCluster::default());
    world.cluster.settings.insert("consumer.heartbeat.interval.ms".to_owned(), 9_000);
    world.cluster.settings.insert("consumer.session.timeout.ms".to_owned(), 1);
    assert_eq!(world.beat(join("a", &["t"])).unwrap().heartbeat_interval_ms, 9_000);
    let session = Duration::from_millis(world.now_ms as u64 + 45_000);
    assert!(world.timers.contains(&TimerChange::Set(GroupTimer::Heartbeat("a".into()), session)));
}

#[test]
fn commits_are_fenced_by_epochs() {
    let mut world = World::new(TestCluster::default().with_topic("t", 2));
    world.beat(join("a", &["t"])).unwrap();
    let mut commit = Commit { member_id: "a", group_instance_id: None, epoch: 2, is_transactional: false, knows_member_epochs: true };
    let ours = [crate::TopicPartition { topic: "t".into(), partition: 0 }];
    let other = [crate::TopicPartition { topic: "t".into(), partition: 5 }];
    let judge = |world: &World, commit, of: &[crate::TopicPartition]| world.group.validate_commit(commit, of.iter(), &world.cluster);
    assert_eq!(judge(&world, commit, &ours), Ok(()));
    assert_eq!(judge(&world, Commit { knows_member_epochs: false, ..commit }, &ours), Err(GroupError::UnsupportedVersion));
    assert_eq!(judge(&world, Commit { member_id: "b", ..commit }, &ours), Err(GroupError::UnknownMemberId));
    assert_eq!(judge(&world, Commit { epoch: 3, ..commit }, &ours), Err(GroupError::StaleMemberEpoch));
    assert_eq!(judge(&world, Commit { epoch: -1, member_id: "", ..commit }, &ours), Err(GroupError::UnknownMemberId));
    let transactional = Commit { epoch: -1, member_id: "", is_transactional: true, ..commit };
    assert_eq!(judge(&world, transactional, &ours), Ok(()));
    world.cluster.put_topic(topic_id("t"), "t", 3);
    world.topics_changed();
    world.beat(heartbeat("a", 2)).unwrap();
    assert_eq!(judge(&world, commit, &ours), Ok(()), "it had the partition at its older epoch");
    assert_eq!(judge(&world, commit, &other), Err(GroupError::StaleMemberEpoch));
    commit.epoch = 1;
    assert_eq!(judge(&world, commit, &ours), Err(GroupError::StaleMemberEpoch));
    assert_eq!(world.group.validate_fetch(None, -1), Ok(()));
    assert_eq!(world.group.validate_fetch(Some("a"), 3), Ok(()));
    assert_eq!(world.group.validate_fetch(Some("a"), 2), Err(GroupError::StaleMemberEpoch));
    assert_eq!(world.group.validate_fetch(Some("b"), 3), Err(GroupError::UnknownMemberId));
}

/// Apache Kafka leaves the partitions to nobody here until the group changes again.
#[test]
fn an_expression_that_matches_nothing_frees_what_the_one_before_it_matched() {
    let mut world = World::new(TestCluster::default().with_topic("ta", 3).with_topic("ua", 4));
    let by_regex = |epoch: i32, regex: &str| ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec!["ta".to_owned()]),
        subscribed_regex: Some(regex.to_owned()),
        owned: Some(Vec::new()),
        ..heartbeat("a", epoch)
    };
    let epoch = world.beat(ConsumerHeartbeatRequest { rebalance_timeout_ms: 60_000, ..by_regex(0, "[tu]a") }).unwrap().member_epoch;
    let epoch = world.beat(heartbeat("a", epoch)).unwrap().member_epoch;
    let other = world.beat(join("b", &["ua"])).unwrap().member_epoch;
    assert_eq!(world.beat(by_regex(epoch, "nothing")).map(|_| ()), Ok(()));
    for _ in 0..2 {
        let epoch = world.group.members["a"].current.epoch;
        world.beat(by_regex(epoch, "nothing")).unwrap();
        let epoch = world.group.members["b"].current.epoch.max(other);
        world.beat(heartbeat("b", epoch)).unwrap();
    }
    let owned = world.group.members["b"].current.owned().count();
    assert_eq!(owned, 4, "all of the topic that it alone subscribes to");
    world.check();
}
