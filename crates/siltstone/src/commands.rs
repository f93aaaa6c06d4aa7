//! The commands that talk to a running broker.

pub mod bucket;
pub mod consume;
pub mod group;
pub mod produce;
pub mod topic;

use std::io::Write;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;
use siltstone_kafka_server::client::Client;

/// How results are printed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What every command needs.
#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// Brokers to ask first, comma-separated.
    #[arg(long, short = 'b', env = "SILTSTONE_BOOTSTRAP_SERVER", default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    pub bootstrap_server: String,
    /// How results are printed.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

impl Connect {
    async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.bootstrap_server).await?)
    }

    /// Prints `value` as JSON, or `rows` as a table under `header`.
    fn print<T: Serialize>(&self, value: &T, header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        match self.output {
            Output::Json => serde_json::to_writer_pretty(&mut stdout, value)?,
            Output::Text => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING).set_header(header);
                table.add_rows(rows);
                write!(stdout, "{table}")?;
            }
        }
        writeln!(stdout)?;
        Ok(())
    }
}

/// `NAME=VALUE` options as a map.
fn pairs(items: &[String]) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let pair = |item: &String| match item.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(anyhow::anyhow!("'{item}' is not NAME=VALUE")),
    };
    items.iter().map(pair).collect()
}

/// Runs a command's future on a small runtime.
pub fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
