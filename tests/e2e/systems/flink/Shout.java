import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** Flink SQL: the lines of `lines` in capitals into `shouted`, exactly once. Arguments: bootstrap servers, checkpoint directory, [checkpoint to go on from]. */
public class Shout {
    public static void main(String[] arguments) {
        Configuration settings = new Configuration();
        settings.setString("execution.checkpointing.interval", "500 ms");
        settings.setString("execution.checkpointing.dir", "file://" + arguments[1]);
        settings.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        settings.setString("rest.bind-port", "0");
        if (arguments.length > 2) {
            settings.setString("execution.state-recovery.path", "file://" + arguments[2]);
        }
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        environment.setParallelism(2);
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        String kafka = "'connector' = 'kafka', 'format' = 'raw', 'properties.bootstrap.servers' = '" + arguments[0] + "', ";
        tables.executeSql("CREATE TABLE source (line STRING) WITH (" + kafka
            + "'topic' = 'lines', 'properties.group.id' = 'flink', 'scan.startup.mode' = 'earliest-offset', 'properties.isolation.level' = 'read_committed')");
        tables.executeSql("CREATE TABLE sink (line STRING) WITH (" + kafka
            + "'topic' = 'shouted', 'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = 'flink', "
            + "'properties.transaction.timeout.ms' = '60000')");
        tables.executeSql("INSERT INTO sink SELECT UPPER(line) FROM source");
    }
}
