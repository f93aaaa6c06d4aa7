//! Creation, growth and deletion of topics, by Kafka's rules and with its words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use siltstone_common::TopicId;

use super::placement::place;
use super::{Decision, TOPIC_PARTITIONS_MAX, View};
use crate::api::{CreateTopic, MetadataError};
use crate::configs;
use crate::image::{ImageChange, METADATA_TOPIC, MetadataImage, PartitionImage, TopicImage, is_internal};

const NAME_LENGTH_MAX: usize = 249;

/// Checks a topic's name.
pub(crate) fn check_name(name: &str) -> Result<(), MetadataError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > NAME_LENGTH_MAX && name.chars().count() > NAME_LENGTH_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}")
        }
        _ if !name.chars().all(legal) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        METADATA_TOPIC => return Err(MetadataError::InvalidRequest(format!("Creation of internal topic {METADATA_TOPIC} is prohibited."))),
        _ => return Ok(()),
    };
    Err(MetadataError::InvalidTopic(format!("Topic name is invalid: {reason}")))
}

/// '.' and '_' are the same in the names of metrics, so two topics must not differ by them only.
fn check_collision(image: &MetadataImage, name: &str) -> Result<(), MetadataError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let unified = name.replace('.', "_");
    let before = &name[..name.find(['.', '_']).unwrap_or(0)];
    // Names that collide agree up to the first of the two characters.
    let mut candidates = image.topic_ids.range(before.to_owned()..).map(|(other, _)| other).take_while(|other| other.starts_with(before));
    match candidates.find(|other| other.len() == name.len() && other.replace('.', "_") == unified) {
        Some(other) => Err(MetadataError::InvalidTopic(format!("Topic '{name}' collides with existing topic: {other}"))),
        None => Ok(()),
    }
}

/// Makes a topic. `id` is new, `seed` random.
pub(crate) fn create_topic(
    view: View<'_>,
    mut topic: CreateTopic,
    id: TopicId,
    seed: u64,
) -> Result<Decision<Arc<TopicImage>>, MetadataError> {
    if view.image.topic_ids.contains_key(&topic.name) {
        return Err(MetadataError::TopicExists(topic.name));
    }
    check_name(&topic.name)?;
    check_collision(view.image, &topic.name)?;
    for (name, value) in &topic.configs {
        configs::validate_topic_config(name, value).map_err(MetadataError::InvalidConfig)?;
    }
    configs::validate_topic_configs_together(&topic.configs).map_err(MetadataError::InvalidConfig)?;
    if topic.configs.get("remote.storage.enable").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        let checked = configs::validate_remote_storage_change(&BTreeMap::new(), &topic.configs, view.is_tiering_enabled());
        checked.map_err(MetadataError::InvalidConfig)?;
    }
    if is_internal(&topic.name) {
        // Whoever makes it: what coordinators keep there must not be deleted by its age (I20, I21).
        topic.configs.entry("cleanup.policy".to_owned()).or_insert_with(|| "compact".to_owned());
    }
    let replicas = if topic.assignments.is_empty() { automatic(view, &topic, seed)? } else { manual(view, &topic)? };
    let partitions = replicas.into_iter().enumerate().map(|(index, replicas)| new_partition(view, index, replicas));
    let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
    let image = Arc::new(TopicImage { id, name: topic.name, partitions, configs: topic.configs });
    let changes = if topic.validate_only { Vec::new() } else { vec![ImageChange::Topic(image.clone())] };
    Ok(Decision::new(changes, image))
}

fn automatic(view: View<'_>, topic: &CreateTopic, seed: u64) -> Result<Vec<Vec<i32>>, MetadataError> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let text = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(MetadataError::InvalidReplicationFactor(text.into()));
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        return Err(MetadataError::InvalidPartitions("Number of partitions was set to an invalid non-positive value.".into()));
    }
    let partitions = if topic.partitions == -1 { view.broker_config("num.partitions", 1) } else { topic.partitions };
    let replication_factor = if topic.replication_factor == -1 {
        i16::try_from(view.broker_config("default.replication.factor", 1)).unwrap_or(1)
    } else {
        topic.replication_factor
    };
    place(view, 0, checked_count(partitions)?, replication_factor, seed)
}

fn checked_count(partitions: i32) -> Result<usize, MetadataError> {
    match usize::try_from(partitions) {
        Ok(count) if partitions <= TOPIC_PARTITIONS_MAX => Ok(count),
        _ => Err(MetadataError::PolicyViolation("Excessively large number of partitions per request.".into())),
    }
}

fn manual(view: View<'_>, topic: &CreateTopic) -> Result<Vec<Vec<i32>>, MetadataError> {
    let invalid = |text: &str| Err(MetadataError::InvalidRequest(text.to_owned()));
    if topic.replication_factor != -1 {
        return invalid("A manual partition assignment was specified, but replication factor was not set to -1.");
    }
    if topic.partitions != -1 {
        return invalid("A manual partition assignment was specified, but numPartitions was not set to -1.");
    }
    checked_count(i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX))?;
    let mut replication_factor = None;
    for (index, replicas) in &topic.assignments {
        check_assignment(view, *index, replicas, replication_factor)?;
        replication_factor = Some(replicas.len());
    }
    if !topic.assignments.keys().zip(0..).all(|(index, expected)| *index == expected) {
        let text = "partitions should be a consecutive 0-based integer sequence";
        return Err(MetadataError::InvalidReplicaAssignment(text.into()));
    }
    Ok(topic.assignments.values().cloned().collect())
}

fn check_assignment(view: View<'_>, index: i32, replicas: &[i32], replication_factor: Option<usize>) -> Result<(), MetadataError> {
    let refuse = |text: String| Err(MetadataError::InvalidReplicaAssignment(text));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".into());
    }
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if !view.image.brokers.contains_key(broker) {
            return refuse(format!("The manual partition assignment includes broker {broker}, but no such broker is registered."));
        }
        if !seen.insert(broker) {
            return refuse(format!("The manual partition assignment includes the broker {broker} more than once."));
        }
    }
    if let Some(expected) = replication_factor.filter(|expected| *expected != replicas.len()) {
        return refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with previous \
             partitions, which have {expected} replica(s).",
            replicas.len()
        ));
    }
    if !replicas.iter().any(|broker| view.is_active(*broker)) {
        return refuse(format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled shutdown."
        ));
    }
    Ok(())
}

fn new_partition(view: View<'_>, index: usize, replicas: Vec<i32>) -> Result<PartitionImage, MetadataError> {
    if replicas.len() > view.replicas_max {
        return Err(MetadataError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {} time(s): brokers of this cluster keep {} replica(s) of a partition, as they do not copy from \
             each other yet. Use a replication factor of {}; what is sealed is kept by the object store.",
            replicas.len(),
            view.replicas_max,
            view.replicas_max
        )));
    }
    let isr: Vec<i32> = replicas.iter().copied().filter(|broker| view.is_active(*broker)).collect();
    if isr.is_empty() {
        return Err(MetadataError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {} time(s): All brokers are currently fenced or in controlled shutdown. (partition {index})",
            replicas.len()
        )));
    }
    Ok(PartitionImage::new(replicas, isr))
}

/// Raises the number of partitions to `count`.
pub(crate) fn create_partitions(
    view: View<'_>,
    id: TopicId,
    count: i32,
    assignments: Vec<Vec<i32>>,
    validate_only: bool,
    seed: u64,
) -> Result<Decision<()>, MetadataError> {
    let topic = view.image.topic_by_id(id).ok_or(MetadataError::UnknownTopicId(id))?;
    let have = topic.partitions.len();
    let current = i32::try_from(have).unwrap_or(i32::MAX);
    if count == current {
        return Err(MetadataError::InvalidPartitions(format!("Topic already has {have} partition(s).")));
    }
    if count < current {
        return Err(MetadataError::InvalidPartitions(format!(
            "The topic {} currently has {have} partition(s); {count} would not be an increase.",
            topic.name
        )));
    }
    let added = checked_count(count)? - have;
    let replication_factor = topic.partitions.first().map_or(1, |first| first.replicas.len());
    let replicas = if assignments.is_empty() {
        place(view, have, added, i16::try_from(replication_factor).unwrap_or(i16::MAX), seed)?
    } else {
        if assignments.len() != added {
            return Err(MetadataError::InvalidReplicaAssignment(format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            )));
        }
        for (index, replicas) in (current..).zip(&assignments) {
            check_assignment(view, index, replicas, Some(replication_factor))?;
        }
        assignments
    };
    let mut partitions = BTreeMap::new();
    for (index, replicas) in (current..).zip(replicas) {
        partitions.insert(index, new_partition(view, usize::try_from(index).unwrap_or(0), replicas)?);
    }
    let changes = if validate_only { Vec::new() } else { vec![ImageChange::Partitions { topic: id, partitions }] };
    Ok(Decision::new(changes, ()))
}

/// Deletes a topic.
pub(crate) fn delete_topic(view: View<'_>, id: TopicId) -> Result<Decision<()>, MetadataError> {
    view.image.topic_by_id(id).ok_or(MetadataError::UnknownTopicId(id))?;
    Ok(Decision::new(vec![ImageChange::TopicDeleted(id)], ()))
}
