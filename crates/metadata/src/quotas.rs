//! Quotas: how much of a broker a user, a client or an address may take (KIP-13, KIP-124, KIP-546, KIP-599, KIP-612).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::MetadataError;

/// Bytes per second that producers may send.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes per second that consumers may fetch.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Share of a thread's time that requests may take, in percent.
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Partitions per second that may be created or deleted.
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
/// New connections per second from an address.
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// Entity type of users.
pub const USER: &str = "user";
/// Entity type of client ids.
pub const CLIENT_ID: &str = "client-id";
/// Entity type of addresses.
pub const IP: &str = "ip";

/// Longest name of an entity, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// Whom quotas are for: by entity type a name, or `None` for the default of that type.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuotaEntity(pub BTreeMap<String, Option<String>>);

impl QuotaEntity {
    /// An entity of these types and names.
    pub fn of<'a>(parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Self {
        Self(parts.into_iter().map(|(kind, name)| (kind.to_owned(), name.map(str::to_owned))).collect())
    }
}

/// A quota's value. Equal when the bits are.
#[derive(Copy, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuotaValue(pub f64);

impl PartialEq for QuotaValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for QuotaValue {}

impl fmt::Debug for QuotaValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The quotas of an entity, by name.
pub type Quotas = BTreeMap<String, QuotaValue>;

/// The quotas of `entity` after `ops`, or why that can't be.
pub(crate) fn altered(entity: &QuotaEntity, current: &Quotas, ops: BTreeMap<String, Option<f64>>) -> Result<Quotas, MetadataError> {
    check_entity(entity)?;
    let mut quotas = current.clone();
    for (name, value) in ops {
        let known = known_quotas(entity);
        match value {
            None if known.contains(&name.as_str()) => drop(quotas.remove(&name)),
            Some(value) if known.contains(&name.as_str()) => {
                check_value(&name, value)?;
                quotas.insert(name, QuotaValue(value));
            }
            _ => return Err(MetadataError::InvalidRequest(format!("Invalid configuration key {name}"))),
        }
    }
    Ok(quotas)
}

fn check_entity(entity: &QuotaEntity) -> Result<(), MetadataError> {
    let refuse = |reason: String| Err(MetadataError::InvalidRequest(reason));
    if entity.0.is_empty() {
        return refuse("Invalid empty client quota entity".to_owned());
    }
    for (kind, name) in &entity.0 {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return refuse(format!("Unhandled client quota entity type: {kind}"));
        }
        match name {
            Some(name) if name.is_empty() => return refuse(format!("Empty {kind} not supported")),
            Some(name) if name.len() > NAME_BYTES_MAX => {
                return refuse(format!("a quota's {kind} has at most {NAME_BYTES_MAX} bytes"));
            }
            Some(name) if kind == IP && name.parse::<std::net::IpAddr>().is_err() => {
                return refuse(format!("{name} is not a valid IP or resolvable host."));
            }
            _ => {}
        }
    }
    if entity.0.contains_key(IP) && entity.0.len() > 1 {
        return refuse(format!("Invalid quota entity combination, ip entity should not be combined with other entity types: {entity:?}"));
    }
    Ok(())
}

fn known_quotas(entity: &QuotaEntity) -> &'static [&'static str] {
    if entity.0.contains_key(IP) {
        &[CONNECTION_CREATION_RATE]
    } else {
        &[PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE]
    }
}

fn check_value(name: &str, value: f64) -> Result<(), MetadataError> {
    let refuse = |reason: &str| Err(MetadataError::InvalidRequest(reason.to_owned()));
    if value.is_nan() || value <= 0.0 {
        return refuse(&format!("Quota {name} must be greater than 0"));
    }
    let whole = [PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, CONNECTION_CREATION_RATE].contains(&name);
    let largest = if name == CONNECTION_CREATION_RATE { f64::from(i32::MAX) } else { 9.2e18 };
    if whole && value > largest {
        return refuse(&format!("Proposed value for {name} is too large for its type."));
    }
    if whole && (value - value.round()).abs() > 1e-6 {
        return refuse(&format!("Proposed value for {name} can't be a fraction."));
    }
    if value.is_infinite() {
        return refuse(&format!("Quota {name} must be finite"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alter(parts: &[(&str, Option<&str>)], name: &str, value: Option<f64>) -> Result<Quotas, MetadataError> {
        altered(&QuotaEntity::of(parts.iter().copied()), &Quotas::new(), BTreeMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn quotas_are_set_and_taken_away() {
        let user = [(USER, Some("alice"))];
        let set = alter(&user, PRODUCER_BYTE_RATE, Some(1024.0)).expect("valid");
        assert_eq!(set.get(PRODUCER_BYTE_RATE), Some(&QuotaValue(1024.0)));
        let entity = QuotaEntity::of(user);
        let none = altered(&entity, &set, BTreeMap::from([(PRODUCER_BYTE_RATE.to_owned(), None)])).expect("valid");
        assert!(none.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        let client = [(CLIENT_ID, Some("c"))];
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.5, 1e300] {
            assert!(alter(&client, PRODUCER_BYTE_RATE, Some(value)).is_err(), "{value}");
        }
        assert!(alter(&client, CONTROLLER_MUTATION_RATE, Some(1.5)).is_ok(), "rates of changes may be fractions");
        assert!(alter(&client, CONNECTION_CREATION_RATE, Some(1.0)).is_err(), "only addresses have it");
        assert!(alter(&[(IP, Some("10.0.0.1"))], CONNECTION_CREATION_RATE, Some(1.0)).is_ok());
        assert!(alter(&[(IP, Some("nowhere"))], CONNECTION_CREATION_RATE, Some(1.0)).is_err());
        assert!(alter(&[(IP, None), (USER, None)], CONNECTION_CREATION_RATE, Some(1.0)).is_err());
        assert!(alter(&[], PRODUCER_BYTE_RATE, Some(1.0)).is_err());
        assert!(alter(&[("planet", None)], PRODUCER_BYTE_RATE, Some(1.0)).is_err());
        assert!(alter(&[(USER, Some(""))], PRODUCER_BYTE_RATE, Some(1.0)).is_err());
    }
}
