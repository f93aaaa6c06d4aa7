//! Clients' metrics (KIP-714): which a client is asked for, and what it has sent.
//!
//! Overview: a client asks for its subscription, made of the stored ones that match it, and pushes its metrics as OpenTelemetry data as often as it is
//! told. Of those, the standard ones are kept, the newest value per client instance, and shown at `/metrics` as sums and maxima.
//!
//! Limits: [`INSTANCES_MAX`] client instances, of each the standard metrics only; a push has at most `telemetry.max.bytes`, and inflates to at most
//! [`INFLATED_BYTES_MAX`]. No name or text of a client's becomes a label (I45).

mod otlp;
mod subscription;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use siltstone_log::batch::Compression;
use siltstone_log::compression::decompress;
use siltstone_metadata::MetadataImage;
use uuid::Uuid;

pub(crate) use subscription::ClientFacts;
use subscription::{Subscription, subscription_of};

/// The value of `metric.reporters` that switches this on.
const RECEIVER: &str = "siltstone.ClientTelemetry";
/// Client instances that are known at a time.
const INSTANCES_MAX: usize = 10_000;
/// Most bytes that a compressed push may inflate to.
const INFLATED_BYTES_MAX: usize = 8 << 20;
/// Connections whose software is remembered, and most bytes of its name.
const SOFTWARE_MAX: usize = 20_000;
const SOFTWARE_BYTES_MAX: usize = 256;
/// An instance that is not heard of for so long counts no more, and is forgotten when there is need of room; in push intervals.
const FORGOTTEN_AFTER_INTERVALS: u64 = 3;

/// KIP-714's metrics: how several data points make one value.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Fold {
    Sum,
    Max,
}

const PREFIX: &str = "org.apache.kafka.";
/// The standard metrics, without their common prefix.
const METRICS: [(&str, Fold); 23] = [
    ("consumer.connection.creation.rate", Fold::Sum),
    ("consumer.connection.creation.total", Fold::Sum),
    ("consumer.coordinator.assigned.partitions", Fold::Sum),
    ("consumer.coordinator.commit.latency.avg", Fold::Max),
    ("consumer.coordinator.commit.latency.max", Fold::Max),
    ("consumer.coordinator.rebalance.latency.avg", Fold::Max),
    ("consumer.coordinator.rebalance.latency.max", Fold::Max),
    ("consumer.coordinator.rebalance.latency.total", Fold::Sum),
    ("consumer.fetch.manager.fetch.latency.avg", Fold::Max),
    ("consumer.fetch.manager.fetch.latency.max", Fold::Max),
    ("consumer.node.request.latency.avg", Fold::Max),
    ("consumer.node.request.latency.max", Fold::Max),
    ("consumer.poll.idle.ratio.avg", Fold::Max),
    ("producer.connection.creation.rate", Fold::Sum),
    ("producer.connection.creation.total", Fold::Sum),
    ("producer.node.request.latency.avg", Fold::Max),
    ("producer.node.request.latency.max", Fold::Max),
    ("producer.produce.throttle.time.avg", Fold::Max),
    ("producer.produce.throttle.time.max", Fold::Max),
    ("producer.record.queue.time.avg", Fold::Max),
    ("producer.record.queue.time.max", Fold::Max),
    ("admin.connection.creation.rate", Fold::Sum),
    ("admin.connection.creation.total", Fold::Sum),
];

/// A client instance.
struct Instance {
    subscription: Subscription,
    /// When it last asked for its subscription, and last pushed; milliseconds of the monotonic clock.
    asked_ms: Option<u64>,
    pushed_ms: Option<u64>,
    /// It may ask again at once, as it was just told to.
    told_to_ask: bool,
    terminating: bool,
    /// By position in [`METRICS`].
    values: BTreeMap<usize, f64>,
}

impl Instance {
    /// True unless it has said good-bye, or is not heard of any more.
    fn is_there(&self, now_ms: u64) -> bool {
        let patience_ms = FORGOTTEN_AFTER_INTERVALS * u64::from(self.subscription.interval_ms);
        !self.terminating && now_ms.saturating_sub(self.heard_ms()) < patience_ms
    }

    fn heard_ms(&self) -> u64 {
        self.asked_ms.max(self.pushed_ms).unwrap_or(0)
    }
}

/// What a client is told.
pub(crate) struct Told {
    pub instance: Uuid,
    pub subscription_id: i32,
    pub interval_ms: i32,
    pub metrics: Vec<String>,
}

/// A push as it came.
pub(crate) struct Push<'a> {
    pub instance: Uuid,
    pub subscription_id: i32,
    pub terminating: bool,
    pub compression: i8,
    pub data: &'a [u8],
}

/// One metric over all client instances.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMetric {
    /// KIP-714's name.
    pub name: String,
    /// Instances that have sent it.
    pub instances: u64,
    /// Sum of their newest values.
    pub sum: f64,
    /// Largest of their newest values.
    pub max: f64,
}

/// See the module.
#[derive(Default)]
pub struct ClientTelemetry {
    enabled: bool,
    bytes_max: usize,
    instances: Mutex<HashMap<Uuid, Instance>>,
    /// What the clients that connected called their software, and its version.
    software: Mutex<HashMap<SocketAddr, (String, String)>>,
}

impl ClientTelemetry {
    /// On if the broker's settings name the receiver.
    pub(crate) fn new(configs: &BTreeMap<String, String>) -> Self {
        let reporters = configs.get("metric.reporters").map_or("", String::as_str);
        let bytes_max = configs.get("telemetry.max.bytes").and_then(|text| text.trim().parse().ok()).unwrap_or(1 << 20);
        Self {
            enabled: reporters.split(',').any(|name| name.trim() == RECEIVER),
            bytes_max,
            instances: Mutex::default(),
            software: Mutex::default(),
        }
    }

    /// Remembers what a client called its software, to match subscriptions by.
    pub(crate) fn note_software(&self, peer: SocketAddr, name: &str, version: &str) {
        if !self.enabled || name.len().max(version.len()) > SOFTWARE_BYTES_MAX {
            return;
        }
        let mut software = self.software.lock();
        if software.len() < SOFTWARE_MAX || software.contains_key(&peer) {
            software.insert(peer, (name.to_owned(), version.to_owned()));
        }
    }

    /// The connection from there has ended.
    pub(crate) fn forget_software(&self, peer: SocketAddr) {
        if self.enabled {
            self.software.lock().remove(&peer);
        }
    }

    /// What the client there called its software, and its version.
    pub(crate) fn software(&self, peer: SocketAddr) -> (String, String) {
        self.software.lock().get(&peer).cloned().unwrap_or_default()
    }

    /// True if clients may send metrics.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Most bytes of a push.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What the client is to send; `fresh` names an instance that has no id yet.
    pub(crate) fn subscribe(&self, image: &MetadataImage, facts: &ClientFacts<'_>, now_ms: u64) -> Result<Told, ResponseError> {
        let subscription = subscription_of(&image.client_metrics, facts);
        let mut instances = self.instances.lock();
        make_room(&mut instances, facts.instance, now_ms)?;
        let instance = instances.entry(facts.instance).or_insert_with(|| Instance {
            subscription: subscription.clone(),
            asked_ms: None,
            pushed_ms: None,
            told_to_ask: true,
            terminating: false,
            values: BTreeMap::new(),
        });
        let early = now_ms.saturating_sub(instance.heard_ms()) < u64::from(instance.subscription.interval_ms);
        if early && !instance.told_to_ask {
            return Err(ResponseError::ThrottlingQuotaExceeded);
        }
        instance.asked_ms = Some(now_ms);
        instance.told_to_ask = false;
        instance.subscription = subscription;
        let Subscription { id, interval_ms, ref metrics } = instance.subscription;
        let interval_ms = i32::try_from(interval_ms).unwrap_or(i32::MAX);
        Ok(Told { instance: facts.instance, subscription_id: id, interval_ms, metrics: metrics.clone() })
    }

    /// Takes in what a client sends.
    pub(crate) fn push(&self, image: &MetadataImage, facts: &ClientFacts<'_>, push: &Push<'_>, now_ms: u64) -> Result<(), ResponseError> {
        if push.instance.is_nil() {
            return Err(ResponseError::InvalidRequest);
        }
        let current = subscription_of(&image.client_metrics, facts);
        let mut instances = self.instances.lock();
        let instance = instances.get_mut(&push.instance).ok_or(ResponseError::UnknownSubscriptionId)?;
        if instance.terminating {
            return Err(ResponseError::InvalidRequest);
        }
        let early = |last: u64| now_ms.saturating_sub(last) < u64::from(instance.subscription.interval_ms);
        // The first push comes after a random part of the interval, the last one when the client ends.
        if !push.terminating && instance.pushed_ms.is_some_and(early) {
            return Err(ResponseError::ThrottlingQuotaExceeded);
        }
        if push.subscription_id != current.id {
            instance.told_to_ask = true;
            return Err(ResponseError::UnknownSubscriptionId);
        }
        instance.pushed_ms = Some(now_ms);
        instance.terminating = push.terminating;
        let codec = codec(push.compression).ok_or_else(|| {
            instance.told_to_ask = true;
            ResponseError::UnsupportedCompressionType
        })?;
        if push.data.len() > self.bytes_max {
            return Err(ResponseError::TelemetryTooLarge);
        }
        // What one client sends keeps no other waiting while it is inflated and read.
        let mut values = instance.values.clone();
        drop(instances);
        let inflated = match codec {
            None => std::borrow::Cow::Borrowed(push.data),
            Some(codec) => decompress(codec, push.data, INFLATED_BYTES_MAX).map(Into::into).map_err(|_| ResponseError::InvalidRecord)?,
        };
        let kept = keep(&mut values, &inflated);
        if let Some(instance) = self.instances.lock().get_mut(&push.instance) {
            instance.values = values;
        }
        kept
    }

    /// The metrics that clients have sent which are there at `now_ms` (of the monotonic clock).
    pub fn collected(&self, now_ms: u64) -> Vec<ClientMetric> {
        let instances = self.instances.lock();
        let of = |(index, (name, _)): (usize, &(&str, Fold))| {
            let there = instances.values().filter(|instance| instance.is_there(now_ms));
            let values = there.filter_map(|instance| instance.values.get(&index).copied());
            let (count, sum, max) = values.fold((0, 0.0, f64::MIN), |(count, sum, max), value| (count + 1, sum + value, value.max(max)));
            (count > 0).then(|| ClientMetric { name: format!("{PREFIX}{name}"), instances: count, sum, max })
        };
        METRICS.iter().enumerate().filter_map(of).collect()
    }

    /// Client instances that are there at `now_ms` (of the monotonic clock).
    pub fn instances(&self, now_ms: u64) -> usize {
        self.instances.lock().values().filter(|instance| instance.is_there(now_ms)).count()
    }
}

/// Forgets instances that have gone, if there is no room for a new one.
fn make_room(instances: &mut HashMap<Uuid, Instance>, new: Uuid, now_ms: u64) -> Result<(), ResponseError> {
    if instances.len() < INSTANCES_MAX || instances.contains_key(&new) {
        return Ok(());
    }
    instances.retain(|_, instance| instance.is_there(now_ms));
    if instances.len() < INSTANCES_MAX { Ok(()) } else { Err(ResponseError::ThrottlingQuotaExceeded) }
}

/// A codec by its number; outer `None` if there is no such.
fn codec(number: i8) -> Option<Option<Compression>> {
    match number {
        0 => Some(None),
        1 => Some(Some(Compression::Gzip)),
        2 => Some(Some(Compression::Snappy)),
        3 => Some(Some(Compression::Lz4)),
        4 => Some(Some(Compression::Zstd)),
        _ => None,
    }
}

/// Keeps the standard metrics of a push.
fn keep(values: &mut BTreeMap<usize, f64>, data: &[u8]) -> Result<(), ResponseError> {
    let mut seen: BTreeMap<usize, (f64, bool)> = BTreeMap::new();
    otlp::each_point(data, &mut |point| {
        let Some(name) = point.name.strip_prefix(PREFIX) else { return };
        let Some(index) = METRICS.iter().position(|(known, _)| *known == name) else { return };
        let entry = seen.entry(index).or_insert((if METRICS[index].1 == Fold::Sum { 0.0 } else { f64::MIN }, point.is_delta));
        entry.0 = if METRICS[index].1 == Fold::Sum { entry.0 + point.value } else { entry.0.max(point.value) };
    })
    .map_err(|_| ResponseError::InvalidRecord)?;
    for (index, (value, is_delta)) in seen {
        let before = if is_delta { values.get(&index).copied().unwrap_or(0.0) } else { 0.0 };
        values.insert(index, before + value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
