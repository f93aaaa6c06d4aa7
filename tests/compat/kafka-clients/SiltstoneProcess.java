package org.apache.kafka.common.test.junit;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** A broker process over a directory of its own under the property siltstone.work; may be stopped and started again over the same data. */
final class SiltstoneProcess {
    /** What Kafka keeps for its own tests, and what only several brokers need. */
    private static final String LEFT_OUT =
        "log.initial.task.delay.ms|log.unclean.leader.election.enable|producer.id.expiration.check.interval.ms|.*replication.factor|.*min.isr|.*min.insync.replicas|group.share.*|share.coordinator.*";

    private final Path directory;
    private final Map<String, String> settings = new TreeMap<>(Map.of("group.initial.rebalance.delay.ms", "0", "offsets.topic.num.partitions", "5",
        "transaction.state.log.num.partitions", "5", "authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found", "true"));
    private Process process;
    private int port;

    SiltstoneProcess(Map<String, String> asked) {
        try {
            directory = Files.createTempDirectory(Path.of(System.getProperty("siltstone.work")), "broker");
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        asked.forEach((name, value) -> {
            if (!name.matches(LEFT_OUT)) {
                settings.put(name, value);
            }
        });
    }

    synchronized boolean runs() {
        return process != null && process.isAlive();
    }

    synchronized int port() {
        return port;
    }

    /** Null, so that it can be the answer of a mocked method. */
    synchronized Void start() {
        if (runs()) {
            return null;
        }
        List<String> command = new ArrayList<>(List.of(System.getenv("SILTSTONE_BIN"), "serve", "--listen", "127.0.0.1:" + port, "--admin", "127.0.0.1:0",
            "--data-dir", directory + "/data", "--object-store", "file://" + directory + "/bucket"));
        settings.forEach((name, value) -> command.addAll(List.of("--set", name + "=" + value)));
        try {
            Path log = directory.resolve("broker.log");
            process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.appendTo(log.toFile())).start();
            Runtime.getRuntime().addShutdownHook(new Thread(process::destroyForcibly));
            String line = new BufferedReader(new InputStreamReader(process.getInputStream())).readLine();
            if (line == null) {
                throw new IllegalStateException("the broker did not start: " + Files.readString(log));
            }
            port = Integer.parseInt(line.substring(line.lastIndexOf(':') + 1));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return null;
    }

    /** A clean stop. */
    synchronized Void stop() {
        if (runs()) {
            process.destroy();
            await();
        }
        return null;
    }

    /** The end of the test: no clean stop, which takes its time, and no files left; a broker that ended by itself fails the test. */
    synchronized void close() {
        boolean crashed = process != null && !process.isAlive() && process.exitValue() != 0;
        if (runs()) {
            process.destroyForcibly();
            await();
        }
        if (crashed) {
            throw new AssertionError("the broker ended by itself: " + directory);
        }
        try (Stream<Path> files = Files.walk(directory)) {
            files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private void await() {
        try {
            if (!process.waitFor(60, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new AssertionError("the broker did not stop within 60 s: " + directory);
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
