//! `siltstone topic …`

use clap::Subcommand;
use siltstone_kafka_server::client::NewTopic;

use super::{Connect, pairs};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List topics.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a topic's partitions, leaders and offsets.
    Describe {
        /// The topic.
        topic: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a topic.
    Create {
        /// The topic.
        topic: String,
        /// Partitions; the broker's num.partitions if not given.
        #[arg(long, default_value = "-1", allow_negative_numbers = true)]
        partitions: i32,
        /// Replicas; the broker's default.replication.factor if not given.
        #[arg(long, default_value = "-1", allow_negative_numbers = true)]
        replication_factor: i16,
        /// A setting by Kafka's name; may be given many times.
        #[arg(long = "config", value_name = "NAME=VALUE")]
        configs: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a topic and everything in it, in every tier.
    Delete {
        /// The topic.
        topic: String,
        #[command(flatten)]
        connect: Connect,
    },
}

/// Runs it.
pub async fn run(command: TopicCommand) -> anyhow::Result<()> {
    match command {
        TopicCommand::List { connect } => {
            let topics = connect.client().await?.list_topics().await?;
            connect.print(&topics, &["TOPIC"], topics.iter().map(|name| vec![name.clone()]).collect())
        }
        TopicCommand::Describe { topic, connect } => describe(&topic, &connect).await,
        TopicCommand::Create { topic, partitions, replication_factor, configs, connect } => {
            let wanted = NewTopic { name: topic.clone(), partitions, replication_factor, configs: pairs(&configs)? };
            connect.client().await?.create_topic(wanted).await?;
            connect.print(&serde_json::json!({ "created": topic }), &["CREATED"], vec![vec![topic.clone()]])
        }
        TopicCommand::Delete { topic, connect } => {
            connect.client().await?.delete_topic(&topic).await?;
            connect.print(&serde_json::json!({ "deleted": topic }), &["DELETED"], vec![vec![topic.clone()]])
        }
    }
}

async fn describe(topic: &str, connect: &Connect) -> anyhow::Result<()> {
    let found = connect.client().await?.describe_topic(topic).await?;
    let ids = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let rows = found.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition.leader.to_string(),
            partition.leader_epoch.to_string(),
            ids(&partition.replicas),
            ids(&partition.isr),
            partition.start_offset.to_string(),
            partition.local_start_offset.to_string(),
            partition.end_offset.to_string(),
        ]
    });
    connect.print(&found, &["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "LOCAL START", "END"], rows.collect())
}
