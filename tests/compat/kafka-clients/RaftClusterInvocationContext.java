package org.apache.kafka.common.test.junit;

import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import kafka.server.BrokerServer;
import kafka.server.ControllerServer;
import kafka.server.KafkaBroker;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.GroupProtocol;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.test.ClusterInstance;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.common.test.api.Type;
import org.apache.kafka.server.fault.FaultHandlerException;
import org.apache.kafka.test.TestUtils;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.Extension;
import org.junit.jupiter.api.extension.TestTemplateInvocationContext;
import org.mockito.Mockito;

/**
 * Stands on the class path before Kafka's class of this name, so that a test that asks for a cluster gets a Siltstone broker with its settings.
 *
 * <p>There is one broker, whatever number a test asks for, and topics that it asks the harness for get one replica.
 */
public class RaftClusterInvocationContext implements TestTemplateInvocationContext {
    private final String name;
    private final ClusterConfig config;

    public RaftClusterInvocationContext(String baseDisplayName, ClusterConfig clusterConfig, boolean isCombined) {
        this.name = baseDisplayName;
        this.config = clusterConfig;
    }

    @Override
    public String getDisplayName(int invocationIndex) {
        return name + " [" + invocationIndex + "]";
    }

    @Override
    public List<Extension> getAdditionalExtensions() {
        var cluster = new OneBroker(config);
        return List.of(
            (BeforeEachCallback) context -> {
                if (config.isAutoStart()) {
                    cluster.start();
                }
            },
            (AfterTestExecutionCallback) context -> cluster.stop(),
            new ClusterInstanceParameterResolver(cluster));
    }

    private static final class OneBroker implements ClusterInstance {
        private final ClusterConfig config;
        private final SiltstoneProcess process;
        private final KafkaBroker broker;

        OneBroker(ClusterConfig config) {
            this.config = config;
            this.process = new SiltstoneProcess(config.serverProperties());
            this.broker = Mockito.mock(BrokerServer.class, Mockito.withSettings().stubOnly().defaultAnswer(call -> switch (call.getMethod().getName()) {
                case "isShutdown" -> !process.runs();
                case "boundPort" -> process.port();
                case "startup" -> process.start();
                case "shutdown" -> process.stop();
                default -> Mockito.RETURNS_DEFAULTS.answer(call);
            }));
        }

        private void eventually(String what, Callable<Boolean> condition) throws InterruptedException {
            TestUtils.waitForCondition(() -> {
                try {
                    return condition.call();
                } catch (ExecutionException notYet) {
                    return false;
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            }, 15_000, what);
        }

        @Override
        public void createTopic(String topic, int partitions, short replicas, Map<String, String> props) throws InterruptedException {
            try (Admin admin = admin()) {
                admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(props)));
                waitTopicCreation(topic, partitions);
            }
        }

        @Override
        public void waitTopicCreation(String topic, int partitions) throws InterruptedException {
            try (Admin admin = admin()) {
                eventually(topic + " is there",
                    () -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == partitions);
            }
        }

        @Override
        public void waitTopicDeletion(String topic) throws InterruptedException {
            try (Admin admin = admin()) {
                eventually(topic + " is gone", () -> !admin.listTopics().names().get().contains(topic));
            }
        }

        @Override
        public void waitAcls(AclBindingFilter filter, java.util.Collection<AccessControlEntry> entries) throws InterruptedException {
            try (Admin admin = admin()) {
                eventually("access control entries",
                    () -> admin.describeAcls(filter).values().get().stream().map(AclBinding::entry).collect(Collectors.toSet()).equals(new HashSet<>(entries)));
            }
        }

        @Override
        public String clusterId() {
            try (Admin admin = admin()) {
                return admin.describeCluster().clusterId().get();
            } catch (InterruptedException | ExecutionException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public void shutdownBroker(int brokerId) {
            process.stop();
        }

        @Override
        public void startBroker(int brokerId) {
            process.start();
        }

        @Override
        public void start() {
            process.start();
        }

        @Override
        public boolean started() {
            return process.port() != 0;
        }

        @Override
        public void stop() {
            process.close();
        }

        @Override
        public boolean stopped() {
            return started() && !process.runs();
        }

        @Override
        public String bootstrapServers() {
            return "127.0.0.1:" + process.port();
        }

        @Override
        public String bootstrapControllers() {
            return bootstrapServers();
        }

        @Override
        public List<Integer> brokerBoundPorts() {
            return List.of(process.port());
        }

        @Override
        public Set<Integer> brokerIds() {
            return Set.of(0);
        }

        @Override
        public Set<Integer> controllerIds() {
            return Set.of(0);
        }

        @Override
        public Map<Integer, KafkaBroker> brokers() {
            return Map.of(0, broker);
        }

        @Override
        public Map<Integer, ControllerServer> controllers() {
            return Map.of();
        }

        @Override
        public Set<GroupProtocol> supportedGroupProtocols() {
            return Set.of(GroupProtocol.CLASSIC, GroupProtocol.CONSUMER);
        }

        @Override
        public void ensureConsistentMetadata() { }

        @Override
        public void waitForReadyBrokers() { }

        @Override
        public Optional<FaultHandlerException> firstFatalException() {
            return Optional.empty();
        }

        @Override
        public Optional<FaultHandlerException> firstNonFatalException() {
            return Optional.empty();
        }

        @Override
        public ListenerName clientListener() {
            return config.brokerListenerName();
        }

        @Override
        public ListenerName controllerListenerName() {
            return new ListenerName("CONTROLLER");
        }

        @Override
        public Type type() {
            return Type.KRAFT;
        }

        @Override
        public ClusterConfig config() {
            return config;
        }
    }
}
