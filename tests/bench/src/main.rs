//! Load over one raw socket, and what it costs a broker in CPU seconds per GB: any broker of Kafka's protocol, by its process id.

#![allow(clippy::disallowed_methods, reason = "a load generator measures the machine's own time")]

mod connection;
mod cpu;
mod fetch;
mod groups;
mod probe;
mod produce;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Load over one raw socket.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Produce batches, several in flight.
    Produce {
        #[command(flatten)]
        target: Target,
        /// Bytes of a record's value.
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
        /// Bytes of a batch before compression, about.
        #[arg(long, default_value_t = 65_536)]
        batch_bytes: usize,
        /// Requests in flight.
        #[arg(long, default_value_t = 8)]
        in_flight: usize,
        /// none or lz4.
        #[arg(long, default_value = "none")]
        codec: String,
        /// -1, 0 or 1.
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        acks: i16,
    },
    /// Fetch from the first offset on, again and again.
    Fetch {
        #[command(flatten)]
        target: Target,
        /// Bytes asked of each partition.
        #[arg(long, default_value_t = 1 << 20)]
        partition_bytes: i32,
        /// Start at the end of what is there less so many bytes per partition: reads the tail only.
        #[arg(long)]
        from_offset: Option<i64>,
    },
    /// Consumer groups at rest: every member sends its heartbeats, none has news.
    Groups {
        /// Where the broker is.
        #[arg(long, default_value = "127.0.0.1:9092")]
        broker: String,
        /// The broker's process: its CPU time is read.
        #[arg(long)]
        pid: u32,
        /// The topic that all subscribe to; made if it is not there.
        #[arg(long, default_value = "bench-groups")]
        topic: String,
        /// Groups.
        #[arg(long, default_value_t = 1_000)]
        groups: usize,
        /// Members of each.
        #[arg(long, default_value_t = 10)]
        members: usize,
        /// Milliseconds between two heartbeats of a member.
        #[arg(long, default_value_t = 5_000)]
        interval_ms: u64,
        /// Seconds to measure.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// What sendfile itself costs: a file in the page cache over a loopback socket.
    Probe {
        /// GB to send.
        #[arg(long, default_value_t = 4.0)]
        gigabytes: f64,
        /// Bytes per call.
        #[arg(long, default_value_t = 1 << 20)]
        chunk_bytes: usize,
    },
}

#[derive(Args)]
struct Target {
    /// Where the broker is.
    #[arg(long, default_value = "127.0.0.1:9092")]
    broker: String,
    /// The broker's process: its CPU time is read.
    #[arg(long)]
    pid: u32,
    /// The topic; made if it is not there.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Its partitions.
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Should the topic be made: with its sealed segments in the bucket.
    #[arg(long)]
    tiered: bool,
    /// Should the topic be made: `flush.messages`; the broker's own setting if not given.
    #[arg(long)]
    flush_messages: Option<u64>,
    /// GB to move after the warm-up.
    #[arg(long, default_value_t = 2.0)]
    gigabytes: f64,
    /// GB to move before the measurement begins.
    #[arg(long, default_value_t = 0.25)]
    warm_up: f64,
}

impl Target {
    /// What [`connection::connect`] makes.
    fn topic(&self) -> connection::Topic<'_> {
        let mut configs = vec![("remote.storage.enable", self.tiered.to_string())];
        configs.extend(self.flush_messages.map(|messages| ("flush.messages", messages.to_string())));
        connection::Topic { name: &self.topic, partitions: self.partitions, configs }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Produce { target, record_bytes, batch_bytes, in_flight, codec, acks } => {
            produce::run(&target, &produce::Shape { record_bytes, batch_bytes, in_flight, codec, acks })
        }
        Command::Fetch { target, partition_bytes, from_offset } => fetch::run(&target, partition_bytes, from_offset.unwrap_or(0)),
        Command::Groups { broker, pid, topic, groups, members, interval_ms, seconds } => {
            let (interval, time) = (Duration::from_millis(interval_ms), Duration::from_secs(seconds));
            groups::run(&broker, pid, &topic, &groups::Shape { groups, members, interval, time })
        }
        Command::Probe { gigabytes, chunk_bytes } => probe::run(gigabytes, chunk_bytes),
    }
}
