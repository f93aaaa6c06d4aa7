//! Log lines: structured, on stderr; level by `SILTSTONE_LOG` (for example `debug` or `siltstone_tiered=debug,info`).

use tracing_subscriber::EnvFilter;

/// Starts logging. Call once.
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env("SILTSTONE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}
