//! A broker's settings, typed.

use std::collections::BTreeMap;

use super::{broker_config, validate, validate_broker_config};

/// The settings of one broker as they are now: dynamic for this broker, else dynamic for all, else static, else default.
#[derive(Clone, Debug, Default)]
pub struct BrokerConfig {
    values: BTreeMap<String, String>,
}

impl BrokerConfig {
    /// Only static settings. The error is a sentence about the first one that is not known or not valid.
    pub fn new(static_broker: &BTreeMap<String, String>) -> Result<Self, String> {
        static_broker.iter().try_for_each(|(name, value)| validate_broker_config(name, value))?;
        Ok(Self { values: static_broker.clone() })
    }

    /// With dynamic settings of all brokers and of this one. They are known to be valid; one that isn't counts as unset.
    pub fn resolve(
        static_broker: &BTreeMap<String, String>,
        dynamic_all: &BTreeMap<String, String>,
        dynamic_one: &BTreeMap<String, String>,
    ) -> Self {
        let valid = |(name, value): &(&String, &String)| validate_broker_config(name, value).is_ok();
        let layers = [static_broker, dynamic_all, dynamic_one];
        let values = layers.into_iter().flatten().filter(valid).map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { values }
    }

    /// The value as text; `None` for null and for names that don't exist.
    pub fn text(&self, name: &str) -> Option<&str> {
        let set = self.values.get(name).map(|value| value.trim());
        set.or_else(|| broker_config(name).and_then(|def| def.default))
    }

    /// A number; `None` for null and for settings that are no integers.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// A number that is known to have a default; 0 if it has none.
    pub fn int(&self, name: &str) -> i32 {
        debug_assert!(broker_config(name).is_some_and(|def| def.default.is_some()), "{name} has a default");
        self.number(name).map_or(0, |number| i32::try_from(number).unwrap_or(i32::MAX))
    }

    /// A number that is known to have a default; 0 if it has none.
    pub fn long(&self, name: &str) -> i64 {
        debug_assert!(broker_config(name).is_some_and(|def| def.default.is_some()), "{name} has a default");
        self.number(name).unwrap_or(0)
    }

    /// A floating-point number; `None` for null.
    pub fn double(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// True if the value is `true`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The items of a list; none for null.
    pub fn list(&self, name: &str) -> Vec<String> {
        validate::items(self.text(name).unwrap_or("")).map(str::to_owned).collect()
    }
}
