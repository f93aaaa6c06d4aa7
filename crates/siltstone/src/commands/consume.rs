//! `siltstone consume`: records as lines of standard output.

use std::io::Write;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use siltstone_kafka_server::client::{ConsumedRecord, StartAt};

use super::{Connect, Output};

/// Reads a topic.
#[derive(Debug, Args)]
pub struct ConsumeOptions {
    /// The topic.
    topic: String,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Where to begin: `beginning`, `end`, an offset, or `@` and a time in ms.
    #[arg(long, default_value = "beginning", value_parser = start_at)]
    from: StartAt,
    /// Stop at the end instead of waiting for more.
    #[arg(long, short = 'e')]
    exit_at_end: bool,
    /// Stop after so many records.
    #[arg(long, short = 'c')]
    count: Option<u64>,
    /// Print the key and this text before each value.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" => Ok(StartAt::Beginning),
        "end" => Ok(StartAt::End),
        _ => match text.strip_prefix('@') {
            Some(time) => time.parse().map(StartAt::Time).map_err(|_| format!("'{time}' is not a time in ms")),
            None => text.parse().map(StartAt::Offset).map_err(|_| format!("'{text}' is not beginning, end, an offset or @TIME")),
        },
    }
}

/// Runs it.
pub async fn run(options: ConsumeOptions) -> anyhow::Result<()> {
    let mut client = options.connect.client().await?;
    let mut consumption = client.consume(&options.topic, options.partition, options.from).await?;
    let progress = if options.exit_at_end { ProgressBar::new(consumption.remaining()) } else { ProgressBar::hidden() };
    progress.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} records, {per_sec}, {eta} left")?);
    let mut printed = 0;
    loop {
        if options.exit_at_end && consumption.at_end() {
            break;
        }
        let records = client.poll(&mut consumption).await?;
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        for record in &records {
            if options.count.is_some_and(|count| printed >= count) {
                break;
            }
            print(&mut stdout, record, &options)?;
            printed += 1;
        }
        stdout.flush()?;
        progress.inc(records.len() as u64);
        if options.count.is_some_and(|count| printed >= count) {
            break;
        }
    }
    progress.finish_and_clear();
    Ok(())
}

fn print(out: &mut impl Write, record: &ConsumedRecord, options: &ConsumeOptions) -> anyhow::Result<()> {
    let lossy = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if options.connect.output == Output::Json {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| serde_json::json!([key, lossy(value)])).collect();
        let line = serde_json::json!({
            "partition": record.partition, "offset": record.offset, "timestamp": record.timestamp_ms,
            "key": lossy(&record.key), "value": lossy(&record.value), "headers": headers,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    if let Some(separator) = &options.key_separator {
        out.write_all(record.key.as_deref().unwrap_or_default())?;
        out.write_all(separator.as_bytes())?;
    }
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")?;
    Ok(())
}
