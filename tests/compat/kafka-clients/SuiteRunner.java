import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import java.util.Map;
import java.util.TreeMap;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/** Runs test classes of Apache Kafka's clients: {@code CLASS.METHOD,PASS} or {@code ,FAIL} per method at the end; what failed, and why, to stderr. */
public final class SuiteRunner {
    public static void main(String[] classes) {
        var request = LauncherDiscoveryRequestBuilder.request()
            .configurationParameter("junit.jupiter.extensions.autodetection.enabled", "true")
            .configurationParameter("junit.jupiter.execution.timeout.testtemplate.method.default", "60s");
        for (String name : classes) {
            request.selectors(selectClass("org.apache.kafka.clients." + name));
        }
        // A method that runs on several kinds of cluster passes if it passes on each.
        Map<String, Boolean> results = new TreeMap<>();
        LauncherFactory.create().execute(request.build(), new TestExecutionListener() {
            @Override
            public void executionFinished(TestIdentifier test, TestExecutionResult result) {
                boolean passed = result.getStatus() == TestExecutionResult.Status.SUCCESSFUL;
                if (test.isTest() && test.getSource().orElse(null) instanceof MethodSource method) {
                    String name = method.getClassName().replaceAll(".*\\.", "") + "." + method.getMethodName();
                    results.merge(name, passed, Boolean::logicalAnd);
                }
                if (!passed) {
                    System.err.println(test.getDisplayName() + ": " + result.getThrowable().map(Throwable::toString).orElse("?"));
                }
            }
        });
        results.forEach((name, passed) -> System.out.println(name + (passed ? ",PASS" : ",FAIL")));
        System.out.println("finished");
        System.exit(0);
    }
}
