//! What one peer, and all peers together, may take: finite from the start, under Kafka's names where Kafka has one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Requests of one connection that may wait for their acknowledgement at the same time.
pub(crate) const PIPELINE_MAX: usize = 64;
/// A connection starts no further request while more than this waits to be sent to it, bytes.
pub(crate) const OUTBOUND_BYTES_MAX: usize = 256 * KIB;
/// Frames of every API but Produce end here, bytes: nothing that a client can ask for is larger.
pub(crate) const ORDINARY_REQUEST_BYTES_MAX: usize = 16 * MIB;
/// Things that one question may ask for: a few bytes of it may ask for many.
pub(crate) const QUESTION_PARTS_MAX: usize = 512 * KIB;
/// What questions are: OffsetFetch, FindCoordinator, DescribeGroups, DescribeConfigs, DescribeLogDirs, DescribeProducers, DescribeTransactions,
/// ConsumerGroupDescribe.
pub(crate) const QUESTIONS: [i16; 8] = [9, 10, 15, 32, 35, 61, 65, 69];
/// Bytes that a connection may hold without asking the common budget, so that small requests never wait for large ones.
pub(crate) const UNCHARGED_BYTES: usize = 64 * KIB;
/// A frame that has begun must be complete after this time; its bytes put that off by their time at [`FRAME_RATE_MIN`], to this time from now at most.
pub(crate) const FRAME_GRACE: Duration = Duration::from_secs(30);
/// Slowest rate at which a frame may trickle in, bytes per second.
pub(crate) const FRAME_RATE_MIN: u64 = 8 * KIB as u64;
/// And the slowest on average, after [`ANSWER_GRACE`], while requests of all connections use up their memory.
pub(crate) const CROWDED_FRAME_RATE_MIN: u64 = 256 * KIB as u64;
/// Answers that are not read have this long, and the time of their bytes at [`FRAME_RATE_MIN`], once they are too much memory together.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_secs(10);
/// On shutdown, requests under way have this long to end.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);

/// No connection is that old.
const NEVER_IDLE: Duration = Duration::from_millis(u64::MAX / 2);

/// Limits of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `socket.request.max.bytes`: a longer frame ends the connection.
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`: memory of all requests being received or served; reading pauses above it.
    pub queued_request_bytes_max: usize,
    /// Memory of answers that clients have not read: above it, connections with such answers end sooner than by `idle_max`.
    pub unread_bytes_max: usize,
    /// `max.connections`
    pub connections_max: usize,
    /// `max.connections.per.ip`
    pub connections_per_ip_max: usize,
    /// `connections.max.idle.ms`
    pub idle_max: Duration,
    /// `fetch.max.bytes`: bytes of one Fetch answer.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`
    pub fetch_sessions_max: usize,
}

/// How many connections there may be: what changes while the broker runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// `max.connections`
    pub all: usize,
    /// `max.connections.per.ip`
    pub per_ip: usize,
    /// `max.connections.per.ip.overrides`
    pub overrides: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    /// From the settings in force.
    pub(crate) fn from_values(value: impl Fn(&str) -> Option<String>) -> Self {
        let default = Limits::default();
        let number = |name: &str, default: usize| value(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default);
        let overrides = value("max.connections.per.ip.overrides").unwrap_or_default();
        let one = |item: &str| {
            let (host, limit) = item.trim().rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).parse().ok()?, limit.trim().parse().ok()?))
        };
        Self {
            all: number("max.connections", default.connections_max),
            per_ip: number("max.connections.per.ip", default.connections_per_ip_max),
            overrides: overrides.split(',').filter_map(one).collect(),
        }
    }

    /// Most connections from an address.
    pub(crate) fn of(&self, ip: IpAddr) -> usize {
        self.overrides.get(&ip).copied().unwrap_or(self.per_ip)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 * MIB,
            queued_request_bytes_max: 512 * MIB,
            unread_bytes_max: 256 * MIB,
            connections_max: 16_384,
            connections_per_ip_max: 8_192,
            idle_max: Duration::from_secs(600),
            fetch_bytes_max: 55 * MIB,
            fetch_sessions_max: 1_000,
        }
    }
}

impl Limits {
    /// The limits that the broker's settings ask for; what is not set, or not a number, keeps its default. As in Kafka, no memory (or less) for
    /// requests means any memory, a negative idle time none, and no slots no fetch sessions.
    pub fn from_configs(configs: &BTreeMap<String, String>) -> Self {
        let given = |name: &str| configs.get(name).and_then(|text| text.trim().parse::<i64>().ok());
        let any = |name: &str, default: usize| given(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(default);
        let size = |name: &str, default: usize| Some(any(name, default)).filter(|size| *size > 0).unwrap_or(default);
        let default = Self::default();
        Self {
            request_bytes_max: size("socket.request.max.bytes", default.request_bytes_max),
            queued_request_bytes_max: match given("queued.max.request.bytes") {
                Some(..=0) => usize::MAX,
                _ => size("queued.max.request.bytes", default.queued_request_bytes_max),
            },
            unread_bytes_max: default.unread_bytes_max,
            connections_max: any("max.connections", default.connections_max),
            connections_per_ip_max: any("max.connections.per.ip", default.connections_per_ip_max),
            idle_max: given("connections.max.idle.ms")
                .map_or(default.idle_max, |ms| u64::try_from(ms).map_or(NEVER_IDLE, Duration::from_millis)),
            fetch_bytes_max: size("fetch.max.bytes", default.fetch_bytes_max),
            fetch_sessions_max: any("max.incremental.fetch.session.cache.slots", default.fetch_sessions_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_addresses_have_limits_of_their_own() {
        let value = |name: &str| match name {
            "max.connections.per.ip" => Some("5".to_owned()),
            "max.connections.per.ip.overrides" => Some("127.0.0.1:2, [::1]:3, nonsense".to_owned()),
            _ => None,
        };
        let limits = ConnectionLimits::from_values(value);
        let of = |ip: &str| limits.of(ip.parse().expect("an address"));
        assert_eq!((of("127.0.0.1"), of("::1"), of("10.0.0.1")), (2, 3, 5));
        assert_eq!(limits.all, Limits::default().connections_max);
    }

    #[test]
    fn settings_replace_defaults_and_nonsense_does_not() {
        let configs = BTreeMap::from([
            ("max.connections".to_owned(), "7".to_owned()),
            ("connections.max.idle.ms".to_owned(), "1500".to_owned()),
            ("fetch.max.bytes".to_owned(), "-1".to_owned()),
        ]);
        let limits = Limits::from_configs(&configs);
        assert_eq!(limits.connections_max, 7);
        assert_eq!(limits.idle_max, Duration::from_millis(1500));
        assert_eq!(limits.fetch_bytes_max, Limits::default().fetch_bytes_max);
        assert_eq!((limits.queued_request_bytes_max, limits.fetch_sessions_max), (512 * MIB, 1_000));
    }

    #[test]
    fn none_is_none_and_not_the_default() {
        let none = [
            ("connections.max.idle.ms", "-1"),
            ("queued.max.request.bytes", "-1"),
            ("max.incremental.fetch.session.cache.slots", "0"),
            ("max.connections.per.ip", "0"),
        ];
        let limits = Limits::from_configs(&none.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((limits.idle_max, limits.queued_request_bytes_max), (NEVER_IDLE, usize::MAX));
        assert_eq!((limits.fetch_sessions_max, limits.connections_per_ip_max), (0, 0));
    }
}
