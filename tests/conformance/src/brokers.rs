//! Starts the broker under test, or Apache Kafka itself.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Settings of both brokers in every scenario.
pub const BASE_SETTINGS: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("num.partitions", "2"),
    ("offsets.topic.num.partitions", "1"),
];
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A running broker; it is killed when dropped.
pub struct Broker {
    /// Where it listens.
    pub addr: SocketAddr,
    child: Child,
    home: TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Broker {
    /// The last lines the broker logged.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.home.path().join("broker.log")) {
            file.read_to_string(&mut text).ok();
        }
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// The `siltstone` binary: `SILTSTONE_BIN`, else the newest one in the target directory of this build.
pub fn siltstone_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SILTSTONE_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.ancestors().find(|dir| dir.join("deps").is_dir());
    let binary = profile.context("no target directory")?.join("siltstone");
    ensure!(binary.is_file(), "{} is missing: run `cargo build -p siltstone` first, or set SILTSTONE_BIN", binary.display());
    Ok(binary)
}

/// Starts Siltstone with an empty data directory and a local directory as its bucket.
pub fn start_siltstone(settings: &[(&str, &str)]) -> Result<Broker> {
    let home = tempfile::tempdir()?;
    let bucket = home.path().join("bucket");
    std::fs::create_dir(&bucket)?;
    let log = std::fs::File::create(home.path().join("broker.log"))?;
    let mut command = Command::new(siltstone_binary()?);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .args(["--object-store", &format!("file://{}", bucket.display())])
        .stdout(Stdio::piped())
        .stderr(log);
    for (name, value) in BASE_SETTINGS.iter().chain(settings) {
        command.args(["--set", &format!("{name}={value}")]);
    }
    let mut child = command.spawn().context("starting siltstone")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut broker = Broker { addr: ([127, 0, 0, 1], 0).into(), child, home };
    let mut lines = BufReader::new(stdout).lines();
    let found = lines.find_map(|line| {
        let line = line.ok()?;
        line.strip_prefix("listening on ")?.trim().parse().ok()
    });
    let Some(addr) = found else {
        bail!("siltstone ended before it listened:\n{}", broker.log_tail());
    };
    broker.addr = addr;
    std::thread::spawn(move || lines.for_each(drop)); // keep the pipe empty
    Ok(broker)
}

/// Starts Apache Kafka from the jars in `lib` as one KRaft node.
pub fn start_kafka(lib: &Path, settings: &[(&str, &str)]) -> Result<Broker> {
    let home = tempfile::tempdir()?;
    let (port, controller) = (free_port()?, free_port()?);
    let logs = home.path().join("logs");
    let mut properties = format!(
        "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\nlisteners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\nshare.coordinator.state.topic.num.partitions=1\n\
         broker.session.timeout.ms=60000\n",
        logs.display()
    );
    for (name, value) in BASE_SETTINGS.iter().chain(settings) {
        properties.push_str(&format!("{name}={value}\n"));
    }
    let config = home.path().join("server.properties");
    std::fs::write(&config, properties)?;
    let class_path = format!("{}/*", lib.display());
    let log = std::fs::File::create(home.path().join("broker.log"))?;
    let format = Command::new("java")
        .args(["-Xmx256m", "-cp", &class_path, "kafka.tools.StorageTool", "format", "--standalone"])
        .args(["-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
        .arg(&config)
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .status()
        .context("running java")?;
    ensure!(format.success(), "formatting Kafka's log directory failed");
    let child = Command::new("java")
        .args(["-Xmx512m", "-Xms256m", "-cp", &class_path, "kafka.Kafka"])
        .arg(&config)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let addr = ([127, 0, 0, 1], port).into();
    let mut broker = Broker { addr, child, home };
    let deadline = Instant::now() + START_TIMEOUT;
    while std::net::TcpStream::connect(addr).is_err() {
        let alive = broker.is_alive() && Instant::now() < deadline;
        ensure!(alive, "Kafka did not start:\n{}", broker.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(broker)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
