"""Groups of the new protocol (KIP-848) as real clients live in them: librdkafka's and Kafka's own Java consumer, alone and mixed with classic members."""

import itertools
import pathlib
import threading

import pytest
from broker import wait_until
from clients import create_topic, produce
from confluent_kafka import Consumer, ConsumerGroupType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from systems.java import Java

SETTINGS = {"group.initial.rebalance.delay.ms": 0, "group.consumer.min.heartbeat.interval.ms": 100, "group.consumer.heartbeat.interval.ms": 200,
            "group.consumer.min.session.timeout.ms": 1000, "group.consumer.session.timeout.ms": 3000, "offsets.topic.num.partitions": 5,
            "group.min.session.timeout.ms": 1000, "group.consumer.migration.policy": "bidirectional"}


@pytest.fixture
def broker(make_broker):
    with make_broker(settings=SETTINGS) as running:
        yield running
    while JavaMember.running:
        JavaMember.running.pop().kill()


def names(partitions):
    return {f"{partition.topic}-{partition.partition}" for partition in partitions}


class Member(threading.Thread):
    """A librdkafka consumer that polls, notes what it read and commits it, until it is closed or abandoned."""

    def __init__(self, broker, topics, *, group="g", protocol="consumer", **config):
        super().__init__(daemon=True)
        config = {name.replace("_", "."): value for name, value in config.items()}
        if protocol == "classic":
            config = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 200, "partition.assignment.strategy": "range", **config}
        self.consumer = Consumer({"bootstrap.servers": broker.address, "group.id": group, "group.protocol": protocol, "auto.offset.reset": "earliest",
                                  "enable.auto.commit": False, "reconnect.backoff.max.ms": 200, "log_level": 2, **config})
        self.values, self.errors, self.assigned, self.stopping = [], [], frozenset(), threading.Event()
        self.consumer.subscribe(topics, on_assign=self.gained, on_revoke=self.gave_up, on_lost=self.gave_up)
        self.start()

    def gained(self, _, partitions):
        self.assigned |= names(partitions)

    def gave_up(self, _, partitions):
        self.assigned -= names(partitions)

    def run(self):
        while not self.stopping.is_set():
            try:
                for message in self.consumer.consume(100, 0.05):
                    if message.error():
                        self.errors.append(message.error().str())
                    else:
                        self.values.append(message.value())
                        self.consumer.commit(message, asynchronous=True)
            except KafkaException as failure:
                self.errors.append(failure.args[0].str())
                return

    def owned(self):
        return self.assigned

    def close(self):
        self.stopping.set()
        self.join(30)
        self.consumer.close()


class JavaMember:
    """Kafka's Java consumer in a JVM of its own; see Member.java. None outlives its test."""

    running = []
    SOURCE = pathlib.Path(__file__).parent / "systems" / "Member.java"

    def __init__(self, broker, root, topics, *, group="g", **config):
        settings = [f"{name.replace('_', '.')}={value}" for name, value in config.items()]
        self.java = Java(root, self.SOURCE, broker.address, group, topics, *settings, heap="64m")
        self.running.append(self.java)

    def lines(self, kind):
        return [line.split()[1:] for line in self.java.log().splitlines() if line.split()[:1] == [kind]]

    def owned(self):
        assert self.java.process.poll() is None, self.java.log()[-2000:]
        return set((self.lines("owns") or [[]])[-1])

    @property
    def values(self):
        return [line[0].encode() for line in self.lines("read")]

    def close(self):
        """SIGTERM closes the consumer, which then leaves its group."""
        self.java.process.terminate()
        self.java.process.wait(30)


def share(members, wanted):
    """Waits until the members own all that is wanted, and nothing twice."""
    def shared():
        owned = [member.owned() for member in members]
        return all(owned) and sum(map(len, owned)) == len(wanted) and set().union(*owned) == wanted

    try:
        wait_until(shared, f"{len(members)} members share {len(wanted)} partitions", 40)
    except TimeoutError as late:
        raise AssertionError([sorted(member.owned()) for member in members]) from late


def partitions_of(topic, count):
    return {f"{topic}-{index}" for index in range(count)}


def group_type(broker, group="g"):
    admin = AdminClient({"bootstrap.servers": broker.address})
    listed = admin.list_consumer_groups().result(30)
    return {one.group_id: one.type for one in listed.valid}.get(group)


def described(broker, group="g"):
    admin = AdminClient({"bootstrap.servers": broker.address})
    return admin.describe_consumer_groups([group])[group].result(30)


def numbered(name, count):
    return [f"{name}-{number}".encode() for number in range(count)]


def read_by(members, values):
    """Waits until the members together have read all the values."""
    wait_until(lambda: set(values) <= set(itertools.chain.from_iterable(list(member.values) for member in members)), "all is read", 40)


def test_members_come_and_go_and_a_broker_dies(broker):
    """Every partition has one owner whoever joins or leaves; after kill -9 (F1) the members go on where they were."""
    create_topic(broker, "t", 6)
    first = Member(broker, ["t"])
    share([first], partitions_of("t", 6))
    members = [first, Member(broker, ["t"]), Member(broker, ["t"])]
    share(members, partitions_of("t", 6))
    assert all(len(member.owned()) == 2 for member in members)
    assert group_type(broker) == ConsumerGroupType.CONSUMER and len(described(broker).members) == 3
    before = numbered("before", 60)
    produce(broker, "t", before)
    read_by(members, before)
    owned = [member.owned() for member in members]
    broker.kill()
    broker.start()
    after = numbered("after", 60)
    produce(broker, "t", after)
    read_by(members, after)
    assert [member.owned() for member in members] == owned, "a restart moves nothing"
    first.close()
    share(members[1:], partitions_of("t", 6))
    for member in members[1:]:
        member.close()
    assert not described(broker).members
    heir = Member(broker, ["t"])
    share([heir], partitions_of("t", 6))
    late = numbered("late", 6)
    produce(broker, "t", late)
    read_by([heir], late)
    assert set(heir.values) == set(late), "it begins at the offsets that the others committed (I21)"
    heir.close()


def test_a_member_that_falls_silent_loses_its_partitions(broker):
    """F9: a client that is gone without a word; its partitions go to the others once its session is over."""
    create_topic(broker, "t", 4)
    silent = Member(broker, ["t"], max_poll_interval_ms=2000)
    share([silent], partitions_of("t", 4))
    other = Member(broker, ["t"])
    share([silent, other], partitions_of("t", 4))
    silent.stopping.set()
    silent.join(30)
    share([other], partitions_of("t", 4))
    other.close()


def test_a_static_member_finds_its_partitions_again(broker):
    """KIP-345 in the new protocol: a closed static member keeps its partitions for its session; its name is its own meanwhile."""
    create_topic(broker, "t", 4)
    first, second = [Member(broker, ["t"], group_instance_id=name) for name in ("one", "two")]
    share([first, second], partitions_of("t", 4))
    owned, others = first.owned(), second.owned()
    twin = Member(broker, ["t"], group_instance_id="two")
    wait_until(lambda: twin.errors, "the twin is told", 20)
    assert "instance ID is still used by another member" in twin.errors[0]
    first.close()
    again = Member(broker, ["t"], group_instance_id="one")
    wait_until(lambda: again.owned() == owned, "the same partitions again", 20)
    assert second.owned() == others, "nobody else noticed"
    again.close()
    share([second], partitions_of("t", 4))
    second.close()


def test_a_regular_expression_is_resolved_by_the_broker(broker, tmp_path):
    """A regular expression (RE2) is matched by the broker, for topics that are there and for those that come."""
    for topic in ("orders.eu", "orders.us", "other"):
        create_topic(broker, topic, 2)
    native = Member(broker, ["^orders\\..*"])
    java = JavaMember(broker, tmp_path, "orders[.](eu|us|asia)", group_protocol="consumer")
    wanted = partitions_of("orders.eu", 2) | partitions_of("orders.us", 2)
    share([native, java], wanted)
    create_topic(broker, "orders.asia", 2)
    share([native, java], wanted | partitions_of("orders.asia", 2))
    values = numbered("asia", 20)
    produce(broker, "orders.asia", values)
    read_by([native, java], values)
    invalid = Member(broker, ["^(orders)\\1"], group="invalid")
    wait_until(lambda: invalid.errors, "the invalid expression is refused", 20)
    assert "regular expression" in invalid.errors[0]
    native.close()
    java.close()


def test_a_live_group_moves_to_the_new_protocol_and_back(broker, tmp_path):
    """KIP-848, online migration: classic members of both clients, joined by new ones one at a time, and back again; nothing is owned twice, no offset is lost."""
    create_topic(broker, "t", 6)
    wanted = partitions_of("t", 6)
    classic = Member(broker, ["t"], protocol="classic")
    java_classic = JavaMember(broker, tmp_path, "t", group_protocol="classic", heartbeat_interval_ms=200, session_timeout_ms=3000,
                              partition_assignment_strategy="org.apache.kafka.clients.consumer.RangeAssignor")
    share([classic, java_classic], wanted)
    assert group_type(broker) == ConsumerGroupType.CLASSIC
    everyone = [classic, java_classic]

    def all_read(name):
        values = numbered(name, 30)
        produce(broker, "t", values)
        read_by(everyone, values)

    all_read("classic")
    java = JavaMember(broker, tmp_path, "t", group_protocol="consumer")
    everyone.append(java)
    share([classic, java_classic, java], wanted)
    assert group_type(broker) == ConsumerGroupType.CONSUMER
    all_read("upgraded")
    native = Member(broker, ["t"])
    everyone.append(native)
    share([classic, java_classic, java, native], wanted)
    classic.close()
    java_classic.close()
    share([java, native], wanted)
    all_read("new")
    # A classic member joins the new group, the new ones leave: what remains is a classic group again.
    back = Member(broker, ["t"], protocol="classic")
    everyone.append(back)
    share([java, native, back], wanted)
    all_read("mixed")
    java.close()
    native.close()
    share([back], wanted)
    wait_until(lambda: group_type(broker) == ConsumerGroupType.CLASSIC, "the group is classic again", 20)
    all_read("back")
    broker.kill()
    broker.start()
    all_read("restarted")
    total = sorted(itertools.chain.from_iterable(member.values for member in everyone))
    back.close()
    observer = Consumer({"bootstrap.servers": broker.address, "group.id": "g"})
    committed = observer.committed([TopicPartition("t", index) for index in range(6)], 30)
    observer.close()
    assert len(set(total)) == 180 and sum(partition.offset for partition in committed) == 180
