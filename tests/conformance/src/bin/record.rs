//! Records golden files: `record [--jars DIR] [SCENARIO_PREFIX ...]`. Without `--jars`, `tests/compat/kafka.sh` fetches them.

use anyhow::{Context, Result, bail, ensure};
use siltstone_conformance::{brokers, golden, run};
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<()> {
    let mut prefixes: Vec<String> = std::env::args().skip(1).collect();
    let jars = match prefixes.first().map(String::as_str) {
        Some("--jars") => {
            ensure!(prefixes.len() >= 2, "--jars needs a directory");
            prefixes.drain(..2).nth(1).map(PathBuf::from)
        }
        _ => None,
    };
    let jars = jars.map_or_else(fetched_jars, Ok)?;
    let mut failed = 0;
    for group in run::groups(&prefixes) {
        let broker = brokers::start_kafka(&jars, group[0].settings)?;
        run::warm_up(&broker)?;
        for scenario in group {
            let outcome = run::run(scenario, broker.addr);
            match outcome.error {
                None => {
                    golden::save(scenario.name, &outcome.steps)?;
                    println!("{}: {} steps", scenario.name, outcome.steps.len());
                }
                Some(error) => {
                    failed += 1;
                    println!("{}: {error:#}", scenario.name);
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        n => bail!("{n} scenarios could not be recorded"),
    }
}

fn fetched_jars() -> Result<PathBuf> {
    let script = golden::home().join("../compat/kafka.sh");
    let output = Command::new(&script).arg("home").output();
    let output = output.with_context(|| format!("running {}", script.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {error}", script.display());
    let home = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(home.trim()).join("libs"))
}
