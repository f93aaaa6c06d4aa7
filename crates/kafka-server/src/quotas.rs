//! Quotas in force (KIP-13, KIP-124, KIP-599): what clients have taken, and for how long they are held back for it.
//!
//! Overview: what an entity has taken lies in a sliding window per quota; a client over its rate gets its answer at once, with the time that it is held
//! back for, and its connection is not read for that long. Changes of topics are paid for from a bucket of tokens instead, and refused once
//! it is overdrawn (older clients are held back only). With no quota set, a request costs one look at the image.
//!
//! Limits: at most [`SENSORS_MAX`] windows are kept; clients beyond share one per quota, so that inventing client ids lifts no limit.

mod mutations;
mod precedence;
mod throttle_field;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_metadata::MetadataImage;
use siltstone_metadata::quotas::{CONNECTION_CREATION_RATE, CONSUMER_BYTE_RATE, CONTROLLER_MUTATION_RATE, IP, PRODUCER_BYTE_RATE};
use siltstone_metadata::quotas::{QuotaEntity, REQUEST_PERCENTAGE};

pub(crate) use mutations::MutationBill;
use precedence::Sensor;
pub(crate) use throttle_field::{read_throttle, write_throttle};
use window::{Rate, TokenBucket, WindowConfig};

/// Windows that are kept.
const SENSORS_MAX: usize = 10_000;
/// Who is on the other side as long as nobody has to say who they are.
const ANONYMOUS: &str = "ANONYMOUS";
const PRODUCE_KEY: i16 = 0;
const FETCH_KEY: i16 = 1;

/// What a request has taken.
pub(crate) struct Taken<'a> {
    pub key: i16,
    pub client_id: Option<&'a str>,
    pub request_bytes: usize,
    pub response_bytes: usize,
    /// Time that threads spent on it.
    pub busy: Duration,
}

/// See the module.
pub(crate) struct ClientQuotas {
    config: WindowConfig,
    controller: WindowConfig,
    rates: Mutex<HashMap<(&'static str, Sensor), Rate>>,
    buckets: Mutex<HashMap<Sensor, TokenBucket>>,
}

impl ClientQuotas {
    /// With the windows that the broker's settings ask for.
    pub(crate) fn new(configs: &BTreeMap<String, String>) -> Self {
        let window = |prefix: &str| {
            let number = |name: &str, default: u64| {
                let text = configs.get(&format!("{prefix}{name}"));
                text.and_then(|text| text.trim().parse().ok()).filter(|number| *number > 0).unwrap_or(default)
            };
            WindowConfig { samples: number("quota.window.num", 11), sample_ms: 1_000 * number("quota.window.size.seconds", 1) }
        };
        Self { config: window(""), controller: window("controller."), rates: Mutex::default(), buckets: Mutex::default() }
    }

    /// True if requests' times count for anybody.
    pub(crate) fn measures_time(image: &MetadataImage) -> bool {
        image.quotas.values().any(|quotas| quotas.contains_key(REQUEST_PERCENTAGE))
    }

    /// Counts a request; how long its client is held back.
    pub(crate) fn throttle(&self, image: &MetadataImage, taken: &Taken<'_>, now_ms: u64) -> Duration {
        if image.quotas.is_empty() {
            return Duration::ZERO;
        }
        let bandwidth = match taken.key {
            PRODUCE_KEY => self.record(image, PRODUCER_BYTE_RATE, taken.client_id, taken.request_bytes as f64, now_ms),
            FETCH_KEY => self.record(image, CONSUMER_BYTE_RATE, taken.client_id, taken.response_bytes as f64, now_ms),
            _ => Duration::ZERO,
        };
        // A second of one thread is 100 percent.
        let percent = taken.busy.as_secs_f64() * 100.0;
        let request = self.record(image, REQUEST_PERCENTAGE, taken.client_id, percent, now_ms);
        bandwidth.max(request.min(Duration::from_millis(self.config.sample_ms)))
    }

    /// What a Fetch of this client may take at most: what its rate gives in a window, so that a single answer never holds it back for longer
    /// (KAFKA-9677). No limit without a quota.
    pub(crate) fn fetch_bytes_max(&self, image: &MetadataImage, client_id: Option<&str>) -> usize {
        let limit = precedence::limit(&image.quotas, CONSUMER_BYTE_RATE, ANONYMOUS, client_id.unwrap_or(""));
        let window_s = (self.config.samples.saturating_sub(1) * self.config.sample_ms) as f64 / 1_000.0;
        limit.map_or(usize::MAX, |(_, rate)| (rate * window_s) as usize)
    }

    fn record(&self, image: &MetadataImage, quota: &'static str, client_id: Option<&str>, amount: f64, now_ms: u64) -> Duration {
        let Some((sensor, limit)) = precedence::limit(&image.quotas, quota, ANONYMOUS, client_id.unwrap_or("")) else {
            return Duration::ZERO;
        };
        let mut rates = self.rates.lock();
        if rates.len() >= SENSORS_MAX {
            rates.retain(|_, rate| !rate.is_idle(now_ms));
        }
        let full = rates.len() >= SENSORS_MAX && !rates.contains_key(&(quota, sensor.clone()));
        let sensor = if full { Sensor::Overflow } else { sensor };
        let rate = rates.entry((quota, sensor)).or_insert_with(|| Rate::new(self.config));
        rate.record(amount, now_ms);
        rate.throttle(limit, now_ms)
    }

    /// Pays for `changes` of partitions. `Err`: the bucket was overdrawn already, and the change is refused (strict), with the time until it is not.
    /// `Ok`: go on; the time is how long the client is held back.
    pub(crate) fn mutate(
        &self,
        image: &MetadataImage,
        client_id: Option<&str>,
        changes: usize,
        strict: bool,
        now_ms: u64,
    ) -> Result<Duration, Duration> {
        let client_id = client_id.unwrap_or("");
        let Some((sensor, rate)) = precedence::limit(&image.quotas, CONTROLLER_MUTATION_RATE, ANONYMOUS, client_id) else {
            return Ok(Duration::ZERO);
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= SENSORS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now_ms));
        }
        let full = buckets.len() >= SENSORS_MAX && !buckets.contains_key(&sensor);
        let bucket =
            buckets.entry(if full { Sensor::Overflow } else { sensor }).or_insert_with(|| TokenBucket::new(self.controller, now_ms));
        bucket.refill(rate, now_ms);
        if strict && bucket.overdrawn(rate) > Duration::ZERO {
            return Err(bucket.overdrawn(rate));
        }
        bucket.take(changes as f64);
        Ok(if strict { Duration::ZERO } else { bucket.overdrawn(rate) })
    }

    /// Counts a new connection of the listener, which may take `limit` a second; how much too early it is.
    pub(crate) fn listener_connection(&self, limit: f64, now_ms: u64) -> Duration {
        if limit >= f64::from(i32::MAX) {
            return Duration::ZERO;
        }
        let mut rates = self.rates.lock();
        let rate = rates.entry((CONNECTION_CREATION_RATE, Sensor::Listener)).or_insert_with(|| Rate::new(self.config));
        rate.record(1.0, now_ms);
        rate.throttle(limit, now_ms)
    }

    /// Counts a new connection from an address; how long it is too early.
    pub(crate) fn connection(&self, image: &MetadataImage, ip: &str, now_ms: u64) -> Duration {
        let of = |name: Option<&str>| image.quotas.get(&QuotaEntity::of([(IP, name)]))?.get(CONNECTION_CREATION_RATE).copied();
        let Some(limit) = of(Some(ip)).or_else(|| of(None)) else { return Duration::ZERO };
        let mut rates = self.rates.lock();
        if rates.len() >= SENSORS_MAX {
            rates.retain(|_, rate| !rate.is_idle(now_ms));
        }
        let key = (CONNECTION_CREATION_RATE, Sensor::Ip(ip.to_owned()));
        let full = rates.len() >= SENSORS_MAX && !rates.contains_key(&key);
        let key = if full { (CONNECTION_CREATION_RATE, Sensor::Overflow) } else { key };
        let rate = rates.entry(key).or_insert_with(|| Rate::new(self.config));
        rate.record(1.0, now_ms);
        let early = rate.throttle(limit.0, now_ms);
        if early > Duration::ZERO {
            rate.record(-1.0, now_ms); // it is turned away, and has taken nothing
        }
        early
    }
}

#[cfg(test)]
mod tests;
