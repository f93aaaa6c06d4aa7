//! The `siltstone` binary: `siltstone serve` runs a broker, the other commands talk to one.

mod args;
mod banner;
mod broker;
mod commands;
mod config;
mod metrics;
mod serve;
mod telemetry;

use clap::Parser;

use crate::args::{Cli, Command, ConfigCommand};
use crate::commands::block_on;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(options) => serve::run(options),
        Command::Topic { command } => block_on(commands::topic::run(command)),
        Command::Group { command } => block_on(commands::group::run(command)),
        Command::Bucket { command } => block_on(commands::bucket::run(command)),
        Command::Produce(options) => block_on(commands::produce::run(options)),
        Command::Consume(options) => block_on(commands::consume::run(options)),
        Command::Config { command: ConfigCommand::Check(options) } => config::check(&options),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("siltstone: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
