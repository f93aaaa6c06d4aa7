//! What a person sees who starts a broker by hand.

use std::net::SocketAddr;

use crate::config::Config;

/// Where things are, and two lines to try. On stderr: stdout belongs to programs that wait for `listening on`.
pub fn print(config: &Config, listen: SocketAddr, admin: SocketAddr) {
    if !std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("SILTSTONE_BANNER").is_none() {
        return;
    }
    let (data, bucket) = (config.data_dir.display(), config.object_store.as_deref().unwrap_or("none"));
    eprintln!(
        "
  Siltstone {version}
    clients   {listen}
    metrics   http://{admin}/metrics
    data      {data}
    bucket    {bucket}

  Try it from another terminal:
    echo 'hello' | kcat -P -b {listen} -t greetings && kcat -C -b {listen} -t greetings -e
    siltstone topic list --bootstrap-server {listen}
",
        version = env!("CARGO_PKG_VERSION"),
    );
}
