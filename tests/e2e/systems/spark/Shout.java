import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.streaming.Trigger;

/** Spark Structured Streaming: the lines of `lines` in capitals into `shouted`. Arguments: bootstrap servers, checkpoint directory. */
public class Shout {
    public static void main(String[] arguments) throws Exception {
        SparkSession spark = SparkSession.builder().master("local[2]").appName("shout").config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate();
        spark.readStream().format("kafka").option("kafka.bootstrap.servers", arguments[0]).option("subscribe", "lines")
            .option("startingOffsets", "earliest").option("kafka.isolation.level", "read_committed").load()
            .selectExpr("key", "upper(CAST(value AS STRING)) AS value")
            .writeStream().format("kafka").option("kafka.bootstrap.servers", arguments[0]).option("topic", "shouted")
            .option("checkpointLocation", arguments[1]).trigger(Trigger.ProcessingTime("500 milliseconds")).start().awaitTermination();
    }
}
