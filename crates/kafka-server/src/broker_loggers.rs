//! The loggers of this broker as a resource with settings (KIP-412): name and level, kept until the process ends.

use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use siltstone_common::log_levels::{Level, LogLevels, ROOT, installed};
use siltstone_metadata::MetadataError;
use siltstone_metadata::api::ConfigOp;

use crate::settings::ConfigSource;
use crate::topic_lookup::text;

/// Every logger with its level.
pub(crate) fn describe() -> Vec<DescribeConfigsResourceResult> {
    let levels = installed().map(|levels| levels.all()).unwrap_or_default();
    let one = |(logger, level): (String, Level)| {
        DescribeConfigsResourceResult::default()
            .with_name(text(logger))
            .with_value(Some(text(level.name())))
            .with_config_source(ConfigSource::DynamicBrokerLogger as i8)
            .with_documentation(None)
    };
    levels.into_iter().map(one).collect()
}

/// Changes levels, all or none.
pub(crate) fn alter(ops: &[ConfigOp], validate_only: bool) -> Result<(), MetadataError> {
    let levels = installed().ok_or_else(|| MetadataError::Unavailable("this process keeps no log levels".to_owned()))?;
    let changes = ops.iter().map(|op| change(&*levels, op)).collect::<Result<Vec<_>, _>>()?;
    if validate_only {
        return Ok(());
    }
    for (logger, level) in changes {
        levels.set(logger, level).map_err(MetadataError::Unavailable)?;
        tracing::info!(logger, level = level.map_or("inherited", Level::name), "log level changed");
    }
    Ok(())
}

fn change<'a>(levels: &dyn LogLevels, op: &'a ConfigOp) -> Result<(&'a str, Option<Level>), MetadataError> {
    let known = |logger: &str| {
        let missing = || MetadataError::InvalidConfig(format!("Logger {logger} does not exist!"));
        levels.all().contains_key(logger).then_some(()).ok_or_else(missing)
    };
    match op {
        ConfigOp::Set(logger, word) => {
            known(logger)?;
            let level = Level::parse(word).ok_or_else(|| {
                MetadataError::InvalidConfig(format!(
                    "Cannot set the log level of {logger} to {word} as it is not a supported log level. Valid log levels are DEBUG, \
                     ERROR, FATAL, INFO, TRACE, WARN"
                ))
            })?;
            Ok((logger, Some(level)))
        }
        ConfigOp::Delete(logger) if logger == ROOT => {
            Err(MetadataError::InvalidRequest(format!("Removing the log level of the {ROOT} logger is not allowed")))
        }
        ConfigOp::Delete(logger) => known(logger).map(|()| (logger.as_str(), None)),
        ConfigOp::Append(..) => {
            Err(MetadataError::InvalidRequest("APPEND operation is not allowed for the BROKER_LOGGER resource".to_owned()))
        }
        ConfigOp::Subtract(..) => {
            Err(MetadataError::InvalidRequest("SUBTRACT operation is not allowed for the BROKER_LOGGER resource".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Fixed;

    impl LogLevels for Fixed {
        fn all(&self) -> BTreeMap<String, Level> {
            BTreeMap::from([(ROOT.to_owned(), Level::Info), ("a".to_owned(), Level::Info)])
        }

        fn set(&self, _: &str, _: Option<Level>) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn levels_of_known_loggers_change_and_nothing_else_does() {
        let set = |logger: &str, word: &str| ConfigOp::Set(logger.to_owned(), word.to_owned());
        assert_eq!(change(&Fixed, &set("a", "DEBUG")).expect("known"), ("a", Some(Level::Debug)));
        assert_eq!(change(&Fixed, &ConfigOp::Delete("a".to_owned())).expect("known"), ("a", None));
        for bad in
            [set("b", "DEBUG"), set("a", "LOUD"), ConfigOp::Delete(ROOT.to_owned()), ConfigOp::Append("a".to_owned(), "INFO".to_owned())]
        {
            assert!(change(&Fixed, &bad).is_err(), "{bad:?}");
        }
    }
}
