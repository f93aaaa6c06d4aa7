//! Feature levels (KIP-584, KIP-1022): what of Kafka's versioned behaviour this cluster has, and at which level it runs.
//!
//! A new cluster runs every feature at its highest level. A level that an operator has changed is a row of the store; the others follow
//! the release. Only what is really served is in the table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::MetadataError;

/// `metadata.version`, which names a release of Kafka as a whole.
const METADATA_VERSION: &str = "metadata.version";

/// A feature and the levels that this release knows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FeatureDef {
    /// Kafka's name.
    pub name: &'static str,
    /// Lowest level.
    pub min: i16,
    /// Highest level, at which a new cluster runs.
    pub max: i16,
}

/// Every feature, by name.
pub const FEATURES: &[FeatureDef] = &[
    FeatureDef { name: "eligible.leader.replicas.version", min: 0, max: 1 },
    // Consumer groups (KIP-848).
    FeatureDef { name: "group.version", min: 0, max: 1 },
    // Behaves as Kafka 4.3-IV0; Kafka 4 knows 3.3-IV3 and later.
    FeatureDef { name: METADATA_VERSION, min: 7, max: 30 },
    // Clients choose by it how they run transactions (KIP-890).
    FeatureDef { name: "transaction.version", min: 0, max: 2 },
];

/// What a level may do to get where it is asked to be.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeType {
    /// Only rise.
    Upgrade,
    /// Fall, if nothing is lost.
    SafeDowngrade,
    /// Fall.
    UnsafeDowngrade,
}

/// A level to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureUpdate {
    /// Kafka's name.
    pub name: String,
    /// The level; 0 switches the feature off.
    pub level: i16,
    /// How it may get there.
    pub upgrade: UpgradeType,
}

/// The level at which `def` runs, where `set` holds the levels that were changed.
pub fn level(set: &BTreeMap<String, i16>, def: &FeatureDef) -> i16 {
    set.get(def.name).copied().unwrap_or(def.max).clamp(def.min, def.max)
}

/// The changed levels after `updates`, all or none.
pub(crate) fn updated(
    set: &BTreeMap<String, i16>,
    updates: &[FeatureUpdate],
    controller: i32,
) -> Result<BTreeMap<String, i16>, MetadataError> {
    let mut next = set.clone();
    for update in updates {
        let FeatureUpdate { name, level: wanted, upgrade } = update;
        let refuse =
            |reason: String| Err(MetadataError::InvalidFeature(format!("Invalid update version {wanted} for feature {name}. {reason}")));
        let Some(def) = FEATURES.iter().find(|def| def.name == name) else {
            return refuse(format!("Local controller {controller} does not support this feature."));
        };
        if *wanted < 0 {
            return refuse("A feature version cannot be less than 0.".to_owned());
        }
        if !(def.min..=def.max).contains(wanted) && (*wanted != 0 || name == METADATA_VERSION) {
            return refuse(format!("Local controller {controller} only supports versions {}-{}", def.min, def.max));
        }
        let now = level(set, def);
        if *wanted < now && *upgrade == UpgradeType::Upgrade {
            return refuse(
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
                    .to_owned(),
            );
        }
        if *wanted > now && *upgrade != UpgradeType::Upgrade {
            return refuse("Can't downgrade to a newer version.".to_owned());
        }
        if name == METADATA_VERSION && *wanted < now {
            return Err(MetadataError::InvalidFeature(format!(
                "Unsupported metadata.version downgrade from {now} to {wanted}. Refusing to perform the requested downgrade because it \
                 might delete metadata information."
            )));
        }
        next.insert(name.clone(), *wanted);
    }
    next.retain(|name, level| FEATURES.iter().any(|def| def.name == name && def.max != *level));
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &str, level: i16, upgrade: UpgradeType) -> Result<BTreeMap<String, i16>, MetadataError> {
        updated(&BTreeMap::new(), &[FeatureUpdate { name: name.to_owned(), level, upgrade }], 0)
    }

    #[test]
    fn levels_rise_and_fall_as_asked() {
        let elr = "eligible.leader.replicas.version";
        assert_eq!(update(elr, 1, UpgradeType::Upgrade).expect("already there"), BTreeMap::new());
        let off = update(elr, 0, UpgradeType::SafeDowngrade).expect("may fall");
        assert_eq!(off, BTreeMap::from([(elr.to_owned(), 0)]));
        let on = [FeatureUpdate { name: elr.to_owned(), level: 1, upgrade: UpgradeType::Upgrade }];
        assert_eq!(updated(&off, &on, 0).expect("may rise"), BTreeMap::new());
    }

    #[test]
    fn what_is_not_known_or_would_lose_something_is_refused() {
        assert!(update("no.such.feature", 1, UpgradeType::Upgrade).is_err());
        assert!(update("eligible.leader.replicas.version", 2, UpgradeType::Upgrade).is_err());
        assert!(update("eligible.leader.replicas.version", -1, UpgradeType::UnsafeDowngrade).is_err());
        assert!(update("eligible.leader.replicas.version", 0, UpgradeType::Upgrade).is_err());
        assert!(update(METADATA_VERSION, 21, UpgradeType::SafeDowngrade).is_err());
    }
}
