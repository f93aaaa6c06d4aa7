//! `siltstone bucket …`

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use siltstone_common::Env;
use siltstone_metadata::{HttpMetadata, HttpMetadataConfig, MetadataApi};
use siltstone_tiered::fsck::{self, FsckOptions, FsckReport};
use siltstone_tiered::{RemoteStore, StoreConfig};

use super::Output;

/// What to do with the bucket.
#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Check the bucket against the metadata: coverage, sizes, checksums, orphans. Changes nothing.
    Fsck(FsckArgs),
}

/// `siltstone bucket fsck`
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// The bucket, as given to `serve`.
    #[arg(long, env = "SILTSTONE_OBJECT_STORE", value_name = "URL")]
    object_store: String,
    /// Endpoint of an S3-compatible store.
    #[arg(long, env = "SILTSTONE_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Admin address of the metadata service.
    #[arg(long, env = "SILTSTONE_METADATA", default_value = "http://127.0.0.1:9644", value_name = "URL")]
    metadata: String,
    /// Read every object and check every checksum.
    #[arg(long)]
    deep: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs it; an error if records are missing or damaged.
pub async fn run(command: BucketCommand) -> anyhow::Result<()> {
    let BucketCommand::Fsck(args) = command;
    let env = Env::system();
    let address = StoreConfig { url: args.object_store.clone(), s3_endpoint: args.s3_endpoint.clone() };
    if let Some(directory) = args.object_store.strip_prefix("file://")
        && !Path::new(directory).is_dir()
    {
        // To open it would make it.
        bail!("object store {}: there is no such directory", args.object_store);
    }
    let store = RemoteStore::open(&address, env.clone())?;
    let client = HttpMetadata::connect(HttpMetadataConfig::new(vec![args.metadata.clone()]), env.clone()).await?;
    let metadata: Arc<dyn MetadataApi> = Arc::new(client);
    store.check_owner(&metadata.image().cluster_id).await?;
    let progress = ProgressBar::new_spinner();
    let options = FsckOptions { deep: args.deep, partitions: Vec::new() };
    let report = fsck::check(&options, &store, &metadata, &env, |so_far| {
        progress.set_message(format!("{} partitions, {} segments", so_far.partitions, so_far.segments));
        progress.tick();
    })
    .await?;
    progress.finish_and_clear();
    print(&args, &report)?;
    if report.is_sound() { Ok(()) } else { bail!("the bucket does not hold what the metadata says, see the findings above") }
}

fn print(args: &FsckArgs, report: &FsckReport) -> anyhow::Result<()> {
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let depth = if args.deep { "every byte read" } else { "names and sizes only, --deep reads every byte" };
    println!("{} segments of {} partitions, {} bytes checked ({depth})", report.segments, report.partitions, report.object_bytes);
    println!(
        "{} index objects, {} objects without a row yet, {} foreign, {} findings",
        report.index_objects, report.unreferenced_young, report.foreign, report.findings_total
    );
    for finding in &report.findings {
        println!("{}", serde_json::to_string(finding)?);
    }
    Ok(())
}
