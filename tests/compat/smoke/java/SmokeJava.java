import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Smoke test of Kafka's own Java client. Usage: java SmokeJava BOOTSTRAP
 *
 * <p>Prints {@code java/CHECK,PASS} or {@code java/CHECK,FAIL} for each check and {@code java: N passed, N failed} at the end.
 */
public final class SmokeJava {
    private static final int PARTITIONS = 3;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    /** A record to send, which must come back the same: headers keep their order and may repeat a name. */
    private record Sent(byte[] key, byte[] value, List<Header> headers) {
        boolean same(ConsumerRecord<byte[], byte[]> got) {
            return Arrays.equals(key, got.key()) && Arrays.equals(value, got.value())
                && headers.equals(Arrays.asList(got.headers().toArray()));
        }
    }

    private final String bootstrap;
    private final String topic = "smoke-java-" + Long.toHexString(System.nanoTime());
    private final String group = topic + "-group";
    private final TopicPartition first = new TopicPartition(topic, 0);
    private final List<Sent> records = records();
    private final Admin admin;
    private int passed;
    private int failed;

    private SmokeJava(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static List<Sent> records() {
        List<Sent> list = new ArrayList<>(List.of(
            new Sent(bytes("key"), bytes("value"), List.of(new RecordHeader("h", bytes("first")), new RecordHeader("other", new byte[0]),
                new RecordHeader("h", bytes("second")), new RecordHeader("none", (byte[]) null))),
            new Sent(null, bytes("null key"), List.of()),
            new Sent(bytes("null value"), null, List.of(new RecordHeader("h", bytes("only")))),
            new Sent(new byte[0], new byte[0], List.of())));
        for (int n = 0; n < 16; n++) {
            list.add(new Sent(bytes("bulk-" + n), bytes("silt and stone ".repeat(70)), List.of(new RecordHeader("n", bytes("" + n)))));
        }
        return list;
    }

    private void check(String name, Callable<Void> body) {
        try {
            body.call();
            passed++;
            System.out.println("java/" + name + ",PASS");
        } catch (Exception | AssertionError error) {
            failed++;
            System.err.println("java/" + name + ": " + error);
            System.out.println("java/" + name + ",FAIL");
        }
    }

    private static void equal(String what, Object got, Object wanted) {
        if (!wanted.equals(got)) {
            throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
        }
    }

    private void eventually(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
        while (!condition.call()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("not within 10 s: " + what);
            }
            Thread.sleep(50);
        }
    }

    private long produce(int partition, Map<String, Object> config) throws Exception {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 5, "delivery.timeout.ms", 20000,
            "request.timeout.ms", 10000, "max.block.ms", 10000));
        all.putAll(config);
        try (var producer = new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer())) {
            var results = records.stream()
                .map(r -> producer.send(new ProducerRecord<>(topic, partition, r.key(), r.value(), r.headers()))).toList();
            RecordMetadata last = null;
            for (var result : results) {
                last = result.get();
            }
            return last.offset() - records.size() + 1;
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        return new KafkaConsumer<>(Map.of("bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", false,
            "auto.offset.reset", "earliest", "session.timeout.ms", 10000, "max.poll.records", 10, "default.api.timeout.ms", 20000),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int wanted) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(20).toNanos();
        while (got.size() < wanted && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(200)).forEach(got::add);
        }
        return got;
    }

    private List<ConsumerRecord<byte[], byte[]>> readFrom(long offset, int wanted) {
        try (var consumer = consumer()) {
            consumer.assign(List.of(first));
            consumer.seek(first, offset);
            return read(consumer, wanted);
        }
    }

    private void produceChecks() {
        for (int i = 0; i < CODECS.size(); i++) {
            String codec = CODECS.get(i);
            long wanted = (long) i * records.size();
            check("produce-" + codec, () -> {
                // The Java producer is idempotent by default.
                equal("base offset", produce(0, Map.of("compression.type", codec)), wanted);
                var got = readFrom(wanted, records.size());
                for (int n = 0; n < records.size(); n++) {
                    equal("record " + n + " is the same", records.get(n).same(got.get(n)), true);
                }
                return null;
            });
        }
        check("produce-not-idempotent", () -> {
            produce(1, Map.of("enable.idempotence", false, "acks", "1"));
            return null;
        });
    }

    private void groupChecks() {
        check("group-consume-commit", () -> {
            try (var consumer = consumer()) {
                consumer.subscribe(List.of(topic));
                equal("records", read(consumer, (CODECS.size() + 1) * records.size()).size(), (CODECS.size() + 1) * records.size());
                equal("records after the last", consumer.poll(Duration.ofMillis(300)).count(), 0);
                consumer.commitSync(consumer.assignment().stream()
                    .collect(Collectors.toMap(p -> p, p -> new OffsetAndMetadata(consumer.position(p), "some metadata"))));
            }
            return null;
        });
        check("group-rejoin-from-commit", () -> {
            produce(2, Map.of("compression.type", "snappy"));
            try (var consumer = consumer()) {
                consumer.subscribe(List.of(topic));
                var partitions = read(consumer, records.size()).stream().map(ConsumerRecord::partition).collect(Collectors.toSet());
                equal("partitions of new records", partitions, Set.of(2));
                equal("records after the last", consumer.poll(Duration.ofMillis(300)).count(), 0);
                var committed = consumer.committed(Set.of(first)).get(first);
                equal("committed", committed.offset() + committed.metadata(), CODECS.size() * records.size() + "some metadata");
            }
            return null;
        });
        check("seek-offset", () -> {
            equal("offset after seek", readFrom(7, 1).get(0).offset(), 7L);
            return null;
        });
        check("seek-time", () -> {
            var all = readFrom(0, CODECS.size() * records.size());
            long stamp = all.get(2 * records.size()).timestamp();
            long wanted = all.stream().filter(r -> r.timestamp() >= stamp).findFirst().orElseThrow().offset();
            try (var consumer = consumer()) {
                equal("offset for time", consumer.offsetsForTimes(Map.of(first, stamp)).get(first).offset(), wanted);
                equal("end", consumer.endOffsets(List.of(first)).get(first), (long) CODECS.size() * records.size());
            }
            long newest = all.stream().mapToLong(ConsumerRecord::timestamp).max().orElseThrow();
            equal("max timestamp", admin.listOffsets(Map.of(first, OffsetSpec.maxTimestamp())).partitionResult(first).get().timestamp(), newest);
            return null;
        });
    }

    private void describeChecks() {
        check("list-describe-topic", () -> {
            equal("partitions", admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), PARTITIONS);
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            equal("cleanup.policy", admin.describeConfigs(List.of(resource)).all().get().get(resource).get("cleanup.policy").value(), "delete");
            equal("nodes", admin.describeCluster().nodes().get().size(), 1);
            return null;
        });
        check("alter-config", () -> {
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "123456789"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
            eventually("the new value is described",
                () -> admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value().equals("123456789"));
            return null;
        });
        check("create-partitions", () -> {
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(PARTITIONS + 1))).all().get();
            eventually("the new partition is visible",
                () -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == PARTITIONS + 1);
            return null;
        });
        check("describe-log-dirs", () -> {
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            var dirs = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node);
            equal("partition is in a log dir", dirs.values().stream().anyMatch(d -> d.replicaInfos().containsKey(first)), true);
            return null;
        });
        check("list-describe-group", () -> {
            equal("group is listed", admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), true);
            equal("state", admin.describeClassicGroups(List.of(group)).all().get().get(group).state().toString(), "Empty");
            var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            equal("committed offset", offsets.get(first).offset(), (long) CODECS.size() * records.size());
            return null;
        });
    }

    private void deleteChecks() {
        check("delete-records", () -> {
            admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(5))).all().get();
            equal("earliest", admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first).get().offset(), 5L);
            return null;
        });
        check("delete-group-offsets", () -> {
            admin.deleteConsumerGroupOffsets(group, Set.of(first)).all().get();
            equal("offset is gone", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().containsKey(first), false);
            return null;
        });
        check("delete-group", () -> {
            admin.deleteConsumerGroups(List.of(group)).all().get();
            return null;
        });
        check("delete-topic", () -> {
            admin.deleteTopics(List.of(topic)).all().get();
            eventually("topic is gone", () -> !admin.listTopics().names().get().contains(topic));
            return null;
        });
    }

    private int run() {
        check("create-topic", () -> {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
            eventually("topic is visible", () -> admin.listTopics().names().get().contains(topic));
            try {
                admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
                throw new AssertionError("created twice");
            } catch (ExecutionException error) {
                equal("error", error.getCause().getClass(), TopicExistsException.class);
            }
            return null;
        });
        produceChecks();
        groupChecks();
        describeChecks();
        deleteChecks();
        admin.close(Duration.ofSeconds(1));
        System.out.println("java: " + passed + " passed, " + failed + " failed");
        return failed == 0 ? 0 : 1;
    }

    public static void main(String[] args) {
        System.exit(new SmokeJava(args[0]).run());
    }
}
