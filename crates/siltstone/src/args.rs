//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::bucket::BucketCommand;
use crate::commands::consume::ConsumeOptions;
use crate::commands::group::GroupCommand;
use crate::commands::produce::ProduceOptions;
use crate::commands::topic::TopicCommand;

/// A Kafka-compatible broker that keeps the hot tail on local disk and everything older in a bucket.
#[derive(Debug, Parser)]
#[command(name = "siltstone", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker, a metadata service, or both in one process.
    Serve(ServeOptions),
    /// List, describe, create and delete topics.
    Topic {
        /// What to do.
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// List, describe and delete consumer groups.
    Group {
        /// What to do.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Check the bucket.
    Bucket {
        /// What to do.
        #[command(subcommand)]
        command: BucketCommand,
    },
    /// Send lines of standard input as records.
    Produce(ProduceOptions),
    /// Print a topic's records.
    Consume(ConsumeOptions),
    /// Look at the configuration.
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `siltstone config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration and print what is in force.
    Check(ServeOptions),
}

/// Which parts run in this process.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Broker and metadata service.
    All,
    /// Broker only; needs `--metadata`.
    Broker,
    /// Metadata service only.
    Metadata,
}

/// Options of `serve`; each but --config and --set is also a key of the configuration file (with `_` for `-`) and an environment variable.
/// Flags win over environment, environment over file; --set wins over the file's [kafka] section.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeOptions {
    /// Configuration file (TOML).
    #[arg(long, env = "SILTSTONE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address for Kafka clients; port 0 takes a free one [default: 127.0.0.1:9092].
    #[arg(long, env = "SILTSTONE_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address that clients are told to connect to [default: the listen address].
    #[arg(long, env = "SILTSTONE_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Address for /metrics, /healthz, /readyz and, with the metadata role, the metadata API [default: 127.0.0.1:9644].
    #[arg(long, env = "SILTSTONE_ADMIN", value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// Directory for everything local [default: data].
    #[arg(long, env = "SILTSTONE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The bucket: file:///DIR, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory:// [default: DATA_DIR/bucket].
    #[arg(long, env = "SILTSTONE_OBJECT_STORE", value_name = "URL")]
    pub object_store: Option<String>,
    /// Endpoint of an S3-compatible store; credentials come from the usual AWS_* variables.
    #[arg(long, env = "SILTSTONE_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Parts to run [default: all].
    #[arg(long, env = "SILTSTONE_ROLE", value_enum)]
    pub role: Option<Role>,
    /// Address of the metadata service, for --role broker.
    #[arg(long, env = "SILTSTONE_METADATA", value_name = "URL")]
    pub metadata: Option<String>,
    /// Bytes that the local logs may use before uploaded segments go, oldest first; or a share of the disk such as 80% [default: 80%].
    #[arg(long, env = "SILTSTONE_DISK_BUDGET", value_name = "BYTES|PERCENT")]
    pub disk_budget: Option<String>,
    /// A broker setting by Kafka's name; may be given many times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Log lines as JSON.
    #[arg(
        long,
        env = "SILTSTONE_LOG_JSON",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub log_json: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_may_be_given_with_a_value_and_without() {
        for (given, wanted) in
            [(None, None), (Some("--log-json"), Some(true)), (Some("--log-json=no"), Some(false)), (Some("--log-json=1"), Some(true))]
        {
            let cli = Cli::try_parse_from(["siltstone", "serve"].into_iter().chain(given)).expect("parses");
            let Command::Serve(options) = cli.command else { panic!("not serve") };
            assert_eq!(options.log_json, wanted, "{given:?}");
        }
    }
}
