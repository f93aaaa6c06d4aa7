import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.TreeSet;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a group: Member BROKER GROUP TOPIC|PATTERN [NAME=VALUE...]. Prints "owns PARTITION..." at each change and "read VALUE" for each record,
 * which it commits. SIGTERM closes it. What is no plain topic name is a pattern for the broker.
 */
public class Member {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.putAll(java.util.Map.of("bootstrap.servers", args[0], "group.id", args[1], "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "key.deserializer", StringDeserializer.class.getName(), "value.deserializer", StringDeserializer.class.getName()));
        for (int i = 3; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join(20_000);
            } catch (InterruptedException ended) {
                // the process ends anyway
            }
        }));
        ConsumerRebalanceListener listener = new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                tell(new TreeSet<>(consumer.assignment().stream().map(TopicPartition::toString).toList()));
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                TreeSet<String> left = new TreeSet<>(consumer.assignment().stream().map(TopicPartition::toString).toList());
                partitions.forEach(partition -> left.remove(partition.toString()));
                tell(left);
            }
        };
        if (args[2].matches("[\\w.-]+")) {
            consumer.subscribe(List.of(args[2]), listener);
        } else {
            consumer.subscribe(new SubscriptionPattern(args[2]), listener);
        }
        try {
            while (true) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println("read " + record.value());
                }
                consumer.commitAsync();
            }
        } catch (WakeupException stopped) {
            consumer.close();
        }
    }

    private static void tell(TreeSet<String> owned) {
        System.out.println("owns " + String.join(" ", owned));
    }
}
