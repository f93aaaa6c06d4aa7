//! The configuration in force: file, then environment, then flags; unknown names are refused with the nearest known one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use siltstone_metadata::configs::{broker_configs, validate_broker_config};

use crate::args::{Role, ServeOptions};

/// The configuration file. Every key is also a flag of `serve`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    advertise: Option<String>,
    admin: Option<String>,
    data_dir: Option<PathBuf>,
    object_store: Option<String>,
    s3_endpoint: Option<String>,
    role: Option<Role>,
    metadata: Option<String>,
    disk_budget: Option<String>,
    log_json: Option<bool>,
    #[serde(default)]
    kafka: BTreeMap<String, toml::Value>,
}

const FILE_KEYS: [&str; 11] =
    ["listen", "advertise", "admin", "data_dir", "object_store", "s3_endpoint", "role", "metadata", "disk_budget", "log_json", "kafka"];

/// How much of the disk the local logs may use.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskBudget {
    /// So many bytes.
    Bytes(u64),
    /// A share of the file system, 0 to 100.
    Percent(u8),
}

/// The configuration in force.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// `node.id`
    pub node_id: i32,
    /// For Kafka clients.
    pub listen: SocketAddr,
    /// What clients are told; port 0 stands for the port that is bound.
    pub advertise: (String, u16),
    /// For metrics, health and the metadata API.
    pub admin: SocketAddr,
    /// Everything local.
    pub data_dir: PathBuf,
    /// The bucket; `None` for a metadata service that was given none.
    pub object_store: Option<String>,
    /// Endpoint of an S3-compatible store.
    pub s3_endpoint: Option<String>,
    /// Parts to run.
    pub role: Role,
    /// Metadata service, for role broker.
    pub metadata: Option<String>,
    /// Share of the disk.
    pub disk_budget: DiskBudget,
    /// JSON log lines.
    pub log_json: bool,
    /// Broker settings by Kafka's names.
    pub kafka: BTreeMap<String, String>,
}

impl Config {
    /// Reads, merges and checks.
    pub fn load(options: &ServeOptions) -> anyhow::Result<Self> {
        let file = match &options.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let mut kafka = BTreeMap::new();
        for (name, value) in file.kafka {
            let value = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            kafka.insert(name, value);
        }
        for item in &options.set {
            let (name, value) = item.split_once('=').ok_or_else(|| anyhow!("--set takes NAME=VALUE, not '{item}'"))?;
            kafka.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        for (name, value) in &kafka {
            check_kafka(name, value)?;
        }
        if let (Some(node), Some(broker)) = (kafka.get("node.id"), kafka.get("broker.id"))
            && node != broker
        {
            bail!("node.id={node} and broker.id={broker} differ: give one of them, or both the same value");
        }
        let node_id = match kafka.get("node.id").or_else(|| kafka.get("broker.id")) {
            Some(id) => id.parse().ok().filter(|id| *id >= 0).ok_or_else(|| anyhow!("node.id must be a number from 0 on, not '{id}'"))?,
            None => 0,
        };
        let listen = options.listen.clone().or(file.listen).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
        let admin = options.admin.clone().or(file.admin).unwrap_or_else(|| "127.0.0.1:9644".to_owned());
        let data_dir = options.data_dir.clone().or(file.data_dir).unwrap_or_else(|| PathBuf::from("data"));
        let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data_dir {}", data_dir.display()))?;
        let object_store = options.object_store.clone().or(file.object_store);
        let role = options.role.or(file.role).unwrap_or(Role::All);
        let metadata = options.metadata.clone().or(file.metadata);
        if role == Role::Broker && metadata.is_none() {
            bail!("--role broker needs --metadata http://HOST:PORT, the admin address of the metadata service");
        }
        Ok(Self {
            node_id,
            listen: resolve("listen", &listen)?,
            advertise: match options.advertise.clone().or(file.advertise) {
                Some(text) => host_and_port("advertise", &text)?,
                None => (reachable_host(&listen)?, 0),
            },
            admin: resolve("admin", &admin)?,
            object_store: object_store
                .or_else(|| (role != Role::Metadata).then(|| format!("file://{}", data_dir.join("bucket").display()))),
            data_dir,
            s3_endpoint: options.s3_endpoint.clone().or(file.s3_endpoint),
            role,
            metadata,
            disk_budget: options.disk_budget.clone().or(file.disk_budget).map_or(Ok(DiskBudget::Percent(80)), |text| disk_budget(&text))?,
            log_json: options.log_json.or(file.log_json).unwrap_or(false),
            kafka,
        })
    }

    /// A broker setting given by file or flag, else Kafka's default, as a number.
    pub fn kafka_number(&self, name: &str) -> Option<i64> {
        let default = || broker_configs().iter().find(|def| def.name == name).and_then(|def| def.default);
        self.kafka.get(name).map(String::as_str).or_else(default)?.parse().ok()
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration file {}", path.display()))?;
    if let Ok(table) = text.parse::<toml::Table>()
        && let Some(unknown) = table.keys().find(|key| !FILE_KEYS.contains(&key.as_str()))
    {
        let nearest = nearest(unknown, FILE_KEYS.into_iter()).unwrap_or("listen");
        bail!("{}: unknown key '{unknown}', did you mean '{nearest}'?", path.display());
    }
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

/// Settings of Kafka's, by how they begin, that are not served, and what to do instead.
const NOT_SERVED: [(&str, &str); 17] = [
    ("listeners", "--listen HOST:PORT (or `listen` in the file) says it here: leave it out"),
    ("advertised.listeners", "--advertise HOST:PORT (or `advertise` in the file) says it here: leave it out"),
    ("log.dir", "--data-dir DIR (or `data_dir` in the file) says it here: leave it out"),
    ("metadata.log.dir", "--data-dir DIR (or `data_dir` in the file) says it here: leave it out"),
    ("ssl.", "TLS is not served yet: leave it out, and keep the listener on a network that you trust"),
    ("sasl.", "SASL is not served yet: leave it out, and keep the listener on a network that you trust"),
    ("delegation.token.", "delegation tokens are not served yet: leave it out"),
    ("principal.builder.class", "clients have no other names than User:ANONYMOUS yet: leave it out"),
    ("create.topic.policy.class.name", "no Java classes are loaded: leave it out"),
    ("alter.config.policy.class.name", "no Java classes are loaded: leave it out"),
    ("client.quota.callback.class", "no Java classes are loaded: leave it out"),
    ("listener.name.", "listeners with security settings of their own are not served yet: leave it out"),
    ("security.", "TLS and SASL are not served yet: leave it out"),
    ("controller.quorum.", "there is no Raft quorum, the metadata service keeps the cluster's state: leave it out"),
    ("controller.listener.", "there is no Raft quorum, the metadata service keeps the cluster's state: leave it out"),
    ("process.roles", "--role (all, broker or metadata) says it here: leave it out"),
    ("zookeeper.", "there is no ZooKeeper: leave it out"),
];

fn check_kafka(name: &str, value: &str) -> anyhow::Result<()> {
    if name == "node.id" || name == "broker.id" {
        return Ok(());
    }
    if let Some(instead) = instead_of(name) {
        bail!("broker setting '{name}': {instead}");
    }
    if !broker_configs().iter().any(|def| def.name == name) {
        let nearest = nearest(name, broker_configs().iter().map(|def| def.name)).unwrap_or("node.id");
        bail!("unknown broker setting '{name}', did you mean '{nearest}'?");
    }
    validate_broker_config(name, value).map_err(|reason| anyhow!(reason))
}

/// What to do instead of giving a setting that is not served. Names that begin as one of those do, yet are served, are taken.
fn instead_of(name: &str) -> Option<&'static str> {
    let served = matches!(name, "security.inter.broker.protocol" | "log.dir.failure.timeout.ms");
    NOT_SERVED.iter().find(|(prefix, _)| !served && name.starts_with(prefix)).map(|(_, instead)| *instead)
}

/// The known name with the smallest edit distance.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|candidate| edit_distance(name.as_bytes(), candidate.as_bytes()))
}

fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn host_and_port(what: &str, text: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| anyhow!("{what} takes HOST:PORT, not '{text}'"))?;
    let port = port.parse().map_err(|_| anyhow!("{what}: '{port}' is not a port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// The host that clients can reach when they are told no other: the one listened on, or for "any address" this machine's name, as in Kafka.
fn reachable_host(listen: &str) -> anyhow::Result<String> {
    if !resolve("listen", listen)?.ip().is_unspecified() {
        return Ok(host_and_port("listen", listen)?.0);
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() })
}

fn resolve(what: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let (host, port) = host_and_port(what, text)?;
    let mut found = (host.as_str(), port).to_socket_addrs().with_context(|| format!("{what}: cannot resolve '{host}'"))?;
    found.next().ok_or_else(|| anyhow!("{what}: '{host}' has no address"))
}

fn disk_budget(text: &str) -> anyhow::Result<DiskBudget> {
    let wrong = || anyhow!("disk_budget takes bytes or a share such as 80%, not '{text}'");
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(DiskBudget::Percent).ok_or_else(wrong),
        None => text.parse().map(DiskBudget::Bytes).map_err(|_| wrong()),
    }
}

/// `siltstone config check`: prints what is in force.
pub fn check(options: &ServeOptions) -> anyhow::Result<()> {
    let config = Config::load(options)?;
    println!("{}", serde_json::to_string_pretty(&config)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest_known_one() {
        assert_eq!(nearest("num.partition", ["num.partitions", "node.id"].into_iter()), Some("num.partitions"));
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
    }

    #[test]
    fn settings_that_are_not_served_say_what_to_do() {
        for name in [
            "ssl.keystore.location",
            "sasl.enabled.mechanisms",
            "controller.quorum.voters",
            "process.roles",
            "create.topic.policy.class.name",
        ] {
            let refusal = check_kafka(name, "x").expect_err(name).to_string();
            assert!(refusal.contains(name) && refusal.contains("leave it out"), "{refusal}");
        }
        assert!(check_kafka("num.partitons", "1").expect_err("misspelt").to_string().contains("num.partitions"));
    }

    fn with(set: &[&str], config: Option<PathBuf>) -> ServeOptions {
        ServeOptions { set: set.iter().map(|item| (*item).to_owned()).collect(), config, ..ServeOptions::default() }
    }

    /// With the habits of `server.properties` one must not end up listening elsewhere, or with the data on another disk, without a word.
    #[test]
    fn settings_that_our_own_flags_say_name_the_flag() {
        for (name, flag) in
            [("listeners", "--listen"), ("advertised.listeners", "--advertise"), ("log.dirs", "--data-dir"), ("log.dir", "--data-dir")]
        {
            let refusal = Config::load(&with(&[&format!("{name}=/x")], None)).expect_err(name).to_string();
            assert!(refusal.contains(name) && refusal.contains(flag), "{refusal}");
        }
        let both = |broker: &str| Config::load(&with(&["node.id=1", &format!("broker.id={broker}")], None));
        assert!(both("2").is_err_and(|error| error.to_string().contains("node.id=1 and broker.id=2")));
        assert_eq!(both("1").expect("the same").node_id, 1);
    }

    #[test]
    fn flags_and_environment_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("siltstone.toml");
        let text = "listen = \"127.0.0.1:7001\"\nlog_json = true\n[kafka]\n\"num.partitions\" = 3\n\"log.retention.ms\" = \"5\"\n";
        std::fs::write(&path, text).expect("writes");
        let file = Config::load(&with(&[], Some(path.clone()))).expect("loads");
        assert_eq!((file.listen.port(), file.log_json, file.kafka["num.partitions"].as_str()), (7001, true, "3"));
        let options = ServeOptions {
            listen: Some("127.0.0.1:7002".to_owned()),
            log_json: Some(false),
            ..with(&["num.partitions=4"], Some(path.clone()))
        };
        let merged = Config::load(&options).expect("loads");
        assert_eq!((merged.listen.port(), merged.log_json), (7002, false));
        assert_eq!((merged.kafka["num.partitions"].as_str(), merged.kafka["log.retention.ms"].as_str()), ("4", "5"));
        std::fs::write(&path, "lisen = \"127.0.0.1:7001\"").expect("writes");
        assert!(Config::load(&with(&[], Some(path))).is_err_and(|error| error.to_string().contains("did you mean 'listen'")));
    }

    #[test]
    fn disk_budgets_are_bytes_or_a_share() {
        assert_eq!(disk_budget("1048576").ok(), Some(DiskBudget::Bytes(1_048_576)));
        assert_eq!(disk_budget("75%").ok(), Some(DiskBudget::Percent(75)));
        assert!(disk_budget("0%").is_err() && disk_budget("lots").is_err());
    }

    #[test]
    fn clients_are_told_a_host_that_they_can_reach() {
        assert_eq!(reachable_host("localhost:9092").ok().as_deref(), Some("localhost"));
        assert!(reachable_host("0.0.0.0:9092").is_ok_and(|host| host != "0.0.0.0"));
    }

    #[test]
    fn a_broker_without_metadata_address_is_refused() {
        let options = ServeOptions { role: Some(Role::Broker), ..ServeOptions::default() };
        assert!(Config::load(&options).is_err_and(|error| error.to_string().contains("--metadata")));
    }
}
