//! CPU time from `/proc`, and the line that a run prints.

use std::time::Instant;

use anyhow::Context;

const GB: f64 = 1e9;
/// Kernel ticks per second in `/proc/*/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system seconds from a `stat` file.
pub fn seconds(stat: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(stat).with_context(|| stat.to_owned())?;
    // The second field is a name in parentheses that may hold spaces.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

/// A measurement under way.
pub struct Meter {
    stat: String,
    cpu: f64,
    start: Instant,
}

impl Meter {
    /// Begins to measure a process.
    pub fn process(pid: u32) -> anyhow::Result<Self> {
        Self::begin(format!("/proc/{pid}/stat"))
    }

    /// Begins to measure this thread.
    pub fn thread() -> anyhow::Result<Self> {
        Self::begin("/proc/thread-self/stat".to_owned())
    }

    fn begin(stat: String) -> anyhow::Result<Self> {
        Ok(Self { cpu: seconds(&stat)?, stat, start: Instant::now() })
    }

    /// Prints what `bytes` took.
    pub fn report(&self, what: &str, bytes: u64) -> anyhow::Result<()> {
        let (cpu, elapsed) = (seconds(&self.stat)? - self.cpu, self.start.elapsed().as_secs_f64());
        let gb = bytes as f64 / GB;
        println!("{what}: {:.3} CPU-s/GB, {:.0} MB/s, {gb:.2} GB in {elapsed:.1} s, {cpu:.2} CPU-s", cpu / gb, 1000.0 * gb / elapsed);
        Ok(())
    }
}
