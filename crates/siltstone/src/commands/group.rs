//! `siltstone group …`

use clap::Subcommand;
use siltstone_kafka_server::client::{GroupListing, GroupOffset};

use super::{Connect, Output};

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups.
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a group's members, offsets and lag.
    Describe {
        /// The group.
        group: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete an empty group and its offsets.
    Delete {
        /// The group.
        group: String,
        #[command(flatten)]
        connect: Connect,
    },
}

/// Runs it.
pub async fn run(command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::List { connect } => {
            let groups = connect.client().await?.list_groups().await?;
            let row = |group: &GroupListing| {
                vec![group.group.clone(), group.group_type.clone(), group.protocol_type.clone(), group.state.clone()]
            };
            connect.print(&groups, &["GROUP", "TYPE", "PROTOCOL", "STATE"], groups.iter().map(row).collect())
        }
        GroupCommand::Describe { group, connect } => describe(&group, &connect).await,
        GroupCommand::Delete { group, connect } => {
            connect.client().await?.delete_group(&group).await?;
            connect.print(&serde_json::json!({ "deleted": group }), &["DELETED"], vec![vec![group.clone()]])
        }
    }
}

async fn describe(group: &str, connect: &Connect) -> anyhow::Result<()> {
    let found = connect.client().await?.describe_group(group).await?;
    let lag =
        |offset: &GroupOffset| if offset.end_offset < 0 { "-".to_owned() } else { (offset.end_offset - offset.committed).to_string() };
    let rows = found.offsets.iter().map(|offset| {
        vec![offset.topic.clone(), offset.partition.to_string(), offset.committed.to_string(), offset.end_offset.to_string(), lag(offset)]
    });
    if connect.output == Output::Text {
        let assignor = if found.protocol.is_empty() { "-" } else { &found.protocol };
        println!("group {} is {}, {} members, assignor {assignor}", found.group, found.state, found.members.len());
        for member in &found.members {
            println!("  {} ({}) from {}", member.member_id, member.client_id, member.host);
        }
    }
    connect.print(&found, &["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"], rows.collect())
}
