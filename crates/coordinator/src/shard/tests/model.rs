//! Random members join, sync, leave, fall silent and come back, over a log that sometimes fails or holds writes back, against what must hold.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::messages::FetchOffsetsRequest;

/// The first ones are dynamic, the others static.
const DYNAMIC_CLIENTS: usize = 4;
const CLIENTS: usize = 6;

#[derive(Clone, Debug)]
enum Event {
    /// Joins, again if it has an id.
    Join(usize),
    /// Joins under no id: a dynamic client as a new member, a static one after a restart.
    Restart(usize),
    JoinWithOtherProtocols(usize),
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    CommitAlone,
    Delete,
    Pass(u64),
    AppendsFail,
    AppendsWork,
    HoldAppends,
    EndAppend(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let client = 0..CLIENTS;
    let event = prop_oneof![
        6 => client.clone().prop_map(Event::Join),
        2 => client.clone().prop_map(Event::Restart),
        1 => client.clone().prop_map(Event::JoinWithOtherProtocols),
        8 => client.clone().prop_map(Event::Sync),
        3 => client.clone().prop_map(Event::Heartbeat),
        1 => client.clone().prop_map(Event::Leave),
        4 => client.prop_map(Event::Commit),
        1 => Just(Event::CommitAlone),
        1 => Just(Event::Delete),
        4 => (0u64..12).prop_map(Event::Pass),
        1 => Just(Event::Pass(70)),
        1 => Just(Event::AppendsFail),
        2 => Just(Event::AppendsWork),
        1 => Just(Event::HoldAppends),
        2 => any::<bool>().prop_map(Event::EndAppend),
    ];
    proptest::collection::vec(event, 1..120)
}

#[derive(Default)]
struct Client {
    member_id: String,
    joining: Option<WaiterId>,
    joined: Option<JoinResponse>,
}

struct Model {
    world: World,
    clients: Vec<Client>,
    /// The protocol of each generation, as members were told.
    protocols: HashMap<i32, Option<String>>,
    next_offset: i64,
    /// Commits under way and the deletions between them, in order: offset, or -1 for a deletion.
    committing: Vec<(WaiterId, i64)>,
    /// The last acknowledged offset; -1 after an acknowledged deletion.
    acked: i64,
}

impl Model {
    fn new() -> Self {
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        Self { world: World::new(), clients, protocols: HashMap::new(), next_offset: 1, committing: Vec::new(), acked: -1 }
    }

    fn instance(client: usize) -> Option<String> {
        (client >= DYNAMIC_CLIENTS).then(|| format!("instance-{client}"))
    }

    fn join(&mut self, client: usize, restart: bool, names: &[&str]) {
        if restart {
            self.clients[client] = Client::default();
        }
        let request = JoinRequest {
            group_instance_id: Self::instance(client),
            require_known_member_id: client.is_multiple_of(2),
            protocols: protocols(names),
            supports_skipping_assignment: client.is_multiple_of(2),
            ..join(&self.clients[client].member_id)
        };
        self.clients[client].joining = Some(self.world.join_with(request));
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Join(client) => self.join(client, false, &["range", "roundrobin"]),
            Event::Restart(client) => self.join(client, true, &["range", "roundrobin"]),
            Event::JoinWithOtherProtocols(client) => self.join(client, false, &["roundrobin"]),
            Event::Sync(client) => {
                if let Some(joined) = &self.clients[client].joined {
                    let request = SyncRequest { group_instance_id: Self::instance(client), ..sync(joined) };
                    self.world.sync_with(request);
                }
            }
            Event::Heartbeat(client) => {
                if let Some(joined) = self.clients[client].joined.clone() {
                    let _ = self.world.heartbeat_with(&joined.member_id, Self::instance(client).as_deref(), joined.generation_id);
                }
            }
            Event::Leave(client) => self.leave(client),
            Event::Commit(client) => {
                if let Some(joined) = self.clients[client].joined.clone() {
                    self.commit(&joined.member_id, Self::instance(client), joined.generation_id);
                }
            }
            Event::CommitAlone => self.commit("", None, -1),
            Event::Delete => {
                let waiter = self.world.waiter();
                self.world.shard.delete_groups(vec![GROUP.to_owned()], waiter);
                self.committing.push((waiter, -1));
            }
            Event::Pass(seconds) => self.world.pass(seconds),
            Event::AppendsFail if self.world.append.is_some() => self.world.append = Some(Err(StateLogError::NotEnoughReplicas)),
            Event::AppendsWork if self.world.append.is_some() => self.world.append = Some(Ok(())),
            Event::HoldAppends => self.world.append = None,
            Event::EndAppend(good) => self.end_append(good),
            Event::AppendsFail | Event::AppendsWork => {}
        }
        self.world.settle();
        self.hear();
        self.check();
    }

    fn end_append(&mut self, good: bool) {
        if self.world.append.is_none() {
            self.world.end_append(if good { Ok(()) } else { Err(StateLogError::TimedOut) });
        }
    }

    fn leave(&mut self, client: usize) {
        let waiter = self.world.waiter();
        let member =
            LeavingMember { member_id: self.clients[client].member_id.clone(), group_instance_id: Self::instance(client), reason: None };
        let request = LeaveRequest { group_id: GROUP.to_owned(), members: vec![member] };
        self.world.shard.leave(request, waiter, self.world.now());
    }

    fn commit(&mut self, member_id: &str, instance: Option<String>, generation_id: i32) {
        let waiter = self.world.waiter();
        let request = CommitRequest { group_instance_id: instance, ..commit(member_id, generation_id, self.next_offset) };
        self.committing.push((waiter, self.next_offset));
        self.next_offset += 1;
        self.world.shard.commit_offsets(request, waiter, self.world.now());
    }

    /// Clients take in what they were answered.
    fn hear(&mut self) {
        for client in &mut self.clients {
            let Some(Reply::Join(response)) = client.joining.and_then(|waiter| self.world.replies.get(&waiter)) else { continue };
            client.joining = None;
            client.member_id.clone_from(&response.member_id);
            client.joined = response.error.is_none().then(|| response.clone());
            if response.error.is_none() {
                let protocol = self.protocols.entry(response.generation_id).or_insert_with(|| response.protocol_name.clone());
                assert_eq!(*protocol, response.protocol_name, "all members of a generation have one protocol");
            }
        }
        while let Some(&(waiter, offset)) = self.committing.first() {
            match self.world.replies.get(&waiter) {
                None => break,
                Some(Reply::Commit(Ok(_))) => self.acked = offset,
                Some(Reply::DeleteGroups(results)) if results[0].1.is_ok() => {
                    self.acked = -1;
                    // A group that comes back counts its generations anew.
                    self.protocols.clear();
                }
                Some(_) => {}
            }
            self.committing.remove(0);
        }
    }

    fn committed(shard: &GroupShard) -> i64 {
        let request = FetchOffsetsRequest {
            group_id: GROUP.to_owned(),
            partitions: Some(vec![topic_partition("topic", 0)]),
            member_id: None,
            member_epoch: -1,
            require_stable: false,
        };
        shard.fetch_offsets(&request).unwrap()[0].1.offset
    }

    fn check(&self) {
        // An answered commit may stand behind one that is still under way only if it was refused.
        assert_eq!(Self::committed(&self.world.shard), self.acked, "what is acknowledged is there, what is not is not (I21)");
        let replayed = self.replayed();
        assert_eq!(Self::committed(&replayed), self.acked, "the log says the same");
        let Some(group) = self.world.shard.classic(GROUP) else { return };
        let described = group.describe();
        if group.state().name() == "Stable" {
            assert!(described.members.iter().all(|member| !member.metadata.is_empty()), "every member has the group's protocol");
            if self.world.append.is_some() {
                let mut theirs = replayed.classic(GROUP).expect("a stable group is in the log").describe();
                let mut ours = described;
                ours.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
                theirs.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
                assert_eq!(ours, theirs, "a replay of the log gives the same group");
            }
        }
    }

    fn replayed(&self) -> GroupShard {
        let mut shard = GroupShard::new(Arc::new(GroupCoordinatorConfig::default()));
        for record in &self.world.log {
            assert_eq!(shard.replay(record, START_MS), Ok(None));
        }
        shard
    }

    /// The log works again and everybody falls silent: all requests are answered, and nothing is left to wait for.
    fn finish(mut self) {
        self.end_append(true);
        self.world.append = Some(Ok(()));
        self.world.pass(3_600);
        self.hear();
        self.check();
        for waiter in 1..=self.world.last_waiter {
            assert!(self.world.replies.contains_key(&waiter), "request {waiter} was never answered");
        }
        if let Some(group) = self.world.shard.classic(GROUP) {
            assert_eq!(group.state().name(), "Empty");
        }
        assert_eq!(self.world.shard.next_deadline(), None, "no timer is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    #[test]
    fn whatever_members_do_the_group_holds_together(events in events()) {
        let mut model = Model::new();
        for event in events {
            model.apply(event);
        }
        model.finish();
    }
}
