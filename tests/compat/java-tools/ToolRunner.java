import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import org.apache.kafka.common.utils.Exit;

/**
 * Runs many of Apache Kafka's command-line tools in one JVM, one after the other, and notes what each prints and its exit status.
 *
 * Arguments: BOOTSTRAP CASES RESULTS WORKDIR [PREFIX...]. CASES is read line by line:
 *   "# name"       a new case (a line with two or more "#" is a comment); only cases whose name starts with a PREFIX run, or all
 *   "$ tool args"  a command; $B is the broker, $W the work directory; 'single quotes' keep spaces
 *   "< text"       a line of input for the next command
 *   "+ file text"  a file in the work directory
 */
public class ToolRunner {
    private static final Map<String, String> TOOLS = new LinkedHashMap<>();
    private static final long LIMIT_SECONDS = 60;
    private static final PrintStream NOWHERE = new PrintStream(OutputStream.nullOutputStream());

    static {
        String tools = "org.apache.kafka.tools.";
        TOOLS.put("kafka-topics", tools + "TopicCommand");
        TOOLS.put("kafka-configs", "kafka.admin.ConfigCommand");
        TOOLS.put("kafka-acls", tools + "AclCommand");
        TOOLS.put("kafka-consumer-groups", tools + "consumer.group.ConsumerGroupCommand");
        TOOLS.put("kafka-share-groups", tools + "consumer.group.ShareGroupCommand");
        TOOLS.put("kafka-streams-groups", tools + "streams.StreamsGroupCommand");
        TOOLS.put("kafka-groups", tools + "GroupsCommand");
        TOOLS.put("kafka-get-offsets", tools + "GetOffsetShell");
        TOOLS.put("kafka-delete-records", tools + "DeleteRecordsCommand");
        TOOLS.put("kafka-leader-election", tools + "LeaderElectionCommand");
        TOOLS.put("kafka-reassign-partitions", tools + "reassign.ReassignPartitionsCommand");
        TOOLS.put("kafka-log-dirs", tools + "LogDirsCommand");
        TOOLS.put("kafka-cluster", tools + "ClusterTool");
        TOOLS.put("kafka-features", tools + "FeatureCommand");
        TOOLS.put("kafka-metadata-quorum", tools + "MetadataQuorumCommand");
        TOOLS.put("kafka-broker-api-versions", tools + "BrokerApiVersionsCommand");
        TOOLS.put("kafka-client-metrics", tools + "ClientMetricsCommand");
        TOOLS.put("kafka-transactions", tools + "TransactionsCommand");
        TOOLS.put("kafka-producer-perf-test", tools + "ProducerPerformance");
        TOOLS.put("kafka-consumer-perf-test", tools + "ConsumerPerformance");
        TOOLS.put("kafka-e2e-latency", tools + "EndToEndLatency");
        TOOLS.put("kafka-verifiable-producer", tools + "VerifiableProducer");
        TOOLS.put("kafka-verifiable-consumer", tools + "VerifiableConsumer");
        TOOLS.put("kafka-console-producer", tools + "ConsoleProducer");
        TOOLS.put("kafka-console-consumer", tools + "consumer.ConsoleConsumer");
    }

    private record Command(List<String> words, String line, String input) { }

    private record Case(String name, List<Command> commands, Map<String, String> files) { }

    /** Ends the tool's thread, whatever it catches: what it prints after this goes nowhere. */
    private static final class ToolExit extends Error {
        ToolExit() {
            super("exit", null, false, false);
        }
    }

    private final String bootstrap;
    private final Path work;
    private final PrintStream realOut = System.out;

    private ToolRunner(String bootstrap, Path work) {
        this.bootstrap = bootstrap;
        this.work = work;
    }

    public static void main(String[] args) throws Exception {
        ToolRunner runner = new ToolRunner(args[0], Path.of(args[3]));
        List<String> prefixes = List.of(args).subList(4, args.length);
        StringBuilder results = new StringBuilder();
        for (Case one : parse(Path.of(args[1]))) {
            if (prefixes.isEmpty() || prefixes.stream().anyMatch(one.name::startsWith)) {
                results.append(runner.run(one));
            }
        }
        Files.writeString(Path.of(args[2]), results);
        Runtime.getRuntime().halt(0);
    }

    private static List<Case> parse(Path path) throws Exception {
        List<Case> cases = new ArrayList<>();
        StringBuilder input = new StringBuilder();
        for (String line : Files.readAllLines(path)) {
            String rest = line.length() > 2 ? line.substring(2) : "";
            if (line.startsWith("# ")) {
                cases.add(new Case(rest.trim(), new ArrayList<>(), new LinkedHashMap<>()));
            } else if (line.startsWith("< ")) {
                input.append(rest).append('\n');
            } else if (line.startsWith("+ ")) {
                int space = rest.indexOf(' ');
                cases.get(cases.size() - 1).files.merge(rest.substring(0, space), rest.substring(space + 1) + "\n", String::concat);
            } else if (line.startsWith("$ ")) {
                cases.get(cases.size() - 1).commands.add(new Command(words(rest), rest, input.toString()));
                input.setLength(0);
            } else if (!line.isBlank() && !line.startsWith("##")) {
                throw new IllegalArgumentException(path + ": " + line);
            }
        }
        return cases;
    }

    private static List<String> words(String line) {
        List<String> words = new ArrayList<>();
        StringBuilder word = new StringBuilder();
        boolean quoted = false;
        boolean begun = false;
        for (char c : line.toCharArray()) {
            if (c == '\'') {
                quoted = !quoted;
                begun = true;
            } else if (c == ' ' && !quoted) {
                if (begun || word.length() > 0) {
                    words.add(word.toString());
                }
                word.setLength(0);
                begun = false;
            } else {
                word.append(c);
            }
        }
        if (begun || word.length() > 0) {
            words.add(word.toString());
        }
        return words;
    }

    private String run(Case one) throws Exception {
        StringBuilder text = new StringBuilder("=== " + one.name + "\n");
        for (Map.Entry<String, String> file : one.files.entrySet()) {
            Files.writeString(work.resolve(file.getKey()), file.getValue());
        }
        long start = System.nanoTime();
        for (Command command : one.commands) {
            // Kafka applies settings a moment after it has answered; a record of that moment would be of no use.
            if (System.getenv("COMPAT_RECORD") != null) {
                Thread.sleep(300);
            }
            text.append("$ ").append(command.line).append('\n').append(run(command));
        }
        realOut.printf("%s: %d ms%n", one.name, (System.nanoTime() - start) / 1_000_000);
        return text.toString();
    }

    private String run(Command command) throws Exception {
        String className = TOOLS.get(command.words.get(0));
        if (className == null) {
            throw new IllegalArgumentException("unknown tool " + command.words.get(0));
        }
        List<String> args = new ArrayList<>();
        for (String word : command.words.subList(1, command.words.size())) {
            args.add(word.replace("$B", bootstrap).replace("$W", work.toString()));
        }
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8);
        List<Runnable> hooks = new ArrayList<>();
        int[] status = {0};
        Exit.Procedure exit = (code, message) -> {
            if (System.out == out) {
                status[0] = code;
                redirect(NOWHERE);
            }
            throw new ToolExit();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, runnable) -> hooks.add(runnable));
        InputStream stdin = System.in;
        System.setIn(new ByteArrayInputStream(command.input.getBytes(StandardCharsets.UTF_8)));
        redirect(out);
        boolean ended = runLimited(() -> callMain(className, args, status));
        redirect(out);
        hooks.addAll(takeJvmHooks());
        hooks.forEach(ToolRunner::runLimited);
        redirect(NOWHERE);
        System.setIn(stdin);
        String text = bytes.toString(StandardCharsets.UTF_8);
        String gap = text.isEmpty() || text.endsWith("\n") ? "" : "\n";
        return text + gap + (ended ? "--- exit " + status[0] : "--- no end after " + LIMIT_SECONDS + " s") + "\n";
    }

    /** Some tools print their summary in a shutdown hook of the JVM; this one does not end with them, so the hooks are taken over. */
    @SuppressWarnings("unchecked")
    private static List<Runnable> takeJvmHooks() throws ReflectiveOperationException {
        Field field = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
        field.setAccessible(true);
        Map<Thread, Thread> hooks = (Map<Thread, Thread>) field.get(null);
        List<Runnable> taken = new ArrayList<>();
        for (Thread hook : List.copyOf(hooks.keySet())) {
            if (hook.getName().startsWith("verifiable")) {
                hooks.remove(hook);
                taken.add(hook);
            }
        }
        return taken;
    }

    private static void redirect(PrintStream stream) {
        System.setOut(stream);
        System.setErr(stream);
    }

    private static void callMain(String className, List<String> args, int[] status) {
        try {
            Method main = Class.forName(className).getMethod("main", String[].class);
            main.invoke(null, (Object) args.toArray(new String[0]));
        } catch (InvocationTargetException error) {
            if (!(error.getCause() instanceof ToolExit)) {
                System.out.println("uncaught: " + error.getCause());
                status[0] = 1;
            }
        } catch (ReflectiveOperationException error) {
            System.out.println("cannot run " + className + ": " + error);
            status[0] = 1;
        }
    }

    /** True if the task ended within the limit. */
    private static boolean runLimited(Runnable task) {
        CountDownLatch done = new CountDownLatch(1);
        Thread thread = new Thread(() -> {
            try {
                task.run();
            } catch (ToolExit ignored) {
                // as asked
            } finally {
                done.countDown();
            }
        });
        thread.setDaemon(true);
        thread.start();
        try {
            return done.await(LIMIT_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException error) {
            return false;
        }
    }
}
