//! What every assignment must hold, over random groups and their histories.

use proptest::prelude::*;
use siltstone_common::TopicId;
use uuid::Uuid;

use super::*;

fn topic(number: u8) -> TopicId {
    TopicId(Uuid::from_u128(u128::from(number) + 1))
}

fn member(topics: &[u8], target: Assignment) -> MemberSpec {
    MemberSpec { instance_id: None, topics: Arc::new(topics.iter().map(|number| topic(*number)).collect()), target }
}

fn group(counts: &[i32], members: &[(&str, &[u8])]) -> GroupSpec {
    GroupSpec {
        partition_counts: counts.iter().zip(0..).map(|(count, number)| (topic(number), *count)).collect(),
        members: members.iter().map(|(id, topics)| ((*id).into(), member(topics, Assignment::new()))).collect(),
    }
}

fn check(group: &GroupSpec, targets: &BTreeMap<Arc<str>, Assignment>) {
    let mut owners: BTreeMap<(TopicId, i32), &Arc<str>> = BTreeMap::new();
    for (id, target) in targets {
        for (topic, partitions) in target {
            assert!(group.members[id].topics.contains(topic), "{id} does not subscribe to {topic}");
            for partition in partitions {
                assert!((0..group.partition_counts[topic]).contains(partition));
                assert_eq!(owners.insert((*topic, *partition), id), None, "two owners of {topic}-{partition}");
            }
        }
    }
    let subscribed: BTreeSet<TopicId> = group.members.values().flat_map(|member| member.topics.iter().copied()).collect();
    let wanted: i32 = subscribed.iter().map(|topic| group.partition_counts[topic]).sum();
    assert_eq!(owners.len(), wanted as usize, "every partition of a subscribed topic has an owner");
}

/// Partitions that stay with their member.
fn kept(group: &GroupSpec, targets: &BTreeMap<Arc<str>, Assignment>) -> usize {
    let stays = |(id, member): (&Arc<str>, &MemberSpec)| -> usize {
        let same = member.target.iter().map(|(topic, old)| targets[id].get(topic).map_or(0, |new| old.intersection(new).count()));
        same.sum()
    };
    group.members.iter().map(stays).sum()
}

fn sizes(targets: &BTreeMap<Arc<str>, Assignment>) -> Vec<usize> {
    targets.values().map(|target| target.values().map(BTreeSet::len).sum()).collect()
}

fn with_targets(mut group: GroupSpec, targets: &BTreeMap<Arc<str>, Assignment>) -> GroupSpec {
    for (id, member) in &mut group.members {
        member.target = targets.get(id).cloned().unwrap_or_default();
    }
    group
}

#[test]
fn range_gives_ranges_of_each_topic() {
    let targets = Assignor::Range.assign(&group(&[5, 3], &[("a", &[0, 1]), ("b", &[0, 1]), ("c", &[0])]));
    let of = |id: &str, number: u8| targets[id].get(&topic(number)).cloned().unwrap_or_default().into_iter().collect::<Vec<_>>();
    assert_eq!((of("a", 0), of("b", 0), of("c", 0)), (vec![0, 1], vec![2, 3], vec![4]));
    assert_eq!((of("a", 1), of("b", 1)), (vec![0, 1], vec![2]));
}

#[test]
fn range_keeps_the_ranges_of_static_members_under_new_ids() {
    let mut before = group(&[4], &[("m1", &[0]), ("m2", &[0])]);
    before.members.get_mut("m1").unwrap().instance_id = Some("i2".to_owned());
    before.members.get_mut("m2").unwrap().instance_id = Some("i1".to_owned());
    let mut after = before.clone();
    let back = after.members.remove("m2").unwrap();
    after.members.insert("zz".into(), back);
    assert_eq!(Assignor::Range.assign(&before)["m2"], Assignor::Range.assign(&after)["zz"]);
}

#[test]
fn uniform_moves_no_more_than_a_new_member_needs() {
    let two = group(&[10], &[("a", &[0]), ("b", &[0])]);
    let targets = Assignor::Uniform.assign(&two);
    assert_eq!(sizes(&targets), [5, 5]);
    let three = with_targets(group(&[10], &[("a", &[0]), ("b", &[0]), ("c", &[0])]), &targets);
    let next = Assignor::Uniform.assign(&three);
    let mut counts = sizes(&next);
    counts.sort_unstable();
    assert_eq!((counts, kept(&three, &next)), (vec![3, 3, 4], 7));
}

#[test]
fn uniform_balances_different_subscriptions() {
    let mixed = group(&[6, 6], &[("a", &[0]), ("b", &[0, 1]), ("c", &[1])]);
    assert_eq!(sizes(&Assignor::Uniform.assign(&mixed)), [4, 4, 4]);
}

fn any_group() -> impl Strategy<Value = GroupSpec> {
    let counts = proptest::collection::vec(0..12i32, 4);
    let subscriptions = proptest::collection::btree_map("[a-z]{1,3}", proptest::collection::btree_set(0..4u8, 0..4), 0..9);
    (counts, subscriptions, any::<bool>()).prop_map(|(counts, subscriptions, alike)| {
        let first = subscriptions.values().next().cloned().unwrap_or_default();
        let members = subscriptions.into_iter().map(|(id, topics)| {
            let topics: Vec<u8> = if alike { &first } else { &topics }.iter().copied().collect();
            (id.as_str().into(), member(&topics, Assignment::new()))
        });
        GroupSpec { members: members.collect(), partition_counts: (0..).map(topic).zip(counts).collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Members and subscriptions change from one group to the next; each target builds on the last.
    #[test]
    fn invariants_hold_through_changes(groups in proptest::collection::vec(any_group(), 1..6)) {
        for assignor in Assignor::ALL {
            let mut targets = BTreeMap::new();
            for group in &groups {
                let group = with_targets(group.clone(), &targets);
                targets = assignor.assign(&group);
                check(&group, &targets);
                if group.is_homogeneous() && assignor == Assignor::Uniform {
                    let sizes = sizes(&targets);
                    let (least, most) = (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0));
                    prop_assert!(most - least <= 1, "{sizes:?}");
                }
            }
        }
    }

    /// The same group again: nothing moves.
    #[test]
    fn targets_are_sticky(group in any_group()) {
        for assignor in Assignor::ALL {
            let targets = assignor.assign(&group);
            let again = assignor.assign(&with_targets(group.clone(), &targets));
            prop_assert_eq!(&again, &targets);
        }
    }

    /// When a member joins members that subscribe alike, partitions move to it and to nobody else.
    #[test]
    fn uniform_moves_partitions_only_to_newcomers(group in any_group(), topics in proptest::collection::btree_set(0..4u8, 1..4)) {
        let mut group = group;
        let topics: Vec<u8> = topics.into_iter().collect();
        group.members.values_mut().for_each(|other| *other = member(&topics, Assignment::new()));
        let targets = Assignor::Uniform.assign(&group);
        let mut more = with_targets(group, &targets);
        more.members.insert("NEW".into(), member(&topics, Assignment::new()));
        let next = Assignor::Uniform.assign(&more);
        for (id, old) in &targets {
            for (topic, partitions) in &next[id] {
                let had = old.get(topic).cloned().unwrap_or_default();
                prop_assert!(partitions.is_subset(&had), "{} got partitions", id);
            }
        }
    }
}
