//! Records golden files: `record LIB_DIR [SCENARIO_PREFIX ...]`, LIB_DIR holding Apache Kafka's jars.

use anyhow::{Context, Result, bail};
use siltstone_conformance::{brokers, golden, run};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let lib = arguments
        .next()
        .context("usage: record LIB_DIR [SCENARIO_PREFIX ...]")?;
    let prefixes: Vec<String> = arguments.collect();
    let mut failed = 0;
    for group in run::groups(&prefixes) {
        let broker = brokers::start_kafka(lib.as_ref(), group[0].settings)?;
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
