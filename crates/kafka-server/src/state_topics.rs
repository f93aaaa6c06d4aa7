//! The topics that the coordinators keep their state in: how they are made, and who leads what of them, after the metadata image.

use std::sync::Arc;

use siltstone_common::Env;
use siltstone_coordinator::Leadership;
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataApi, MetadataError, MetadataImage};

use crate::context::Services;

/// The topic of groups and offsets.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// The topic of transactional ids.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";

/// How a coordinator's topic is made.
pub(crate) struct StateTopic {
    pub(crate) name: &'static str,
    /// What the names of its broker settings begin with.
    pub(crate) settings: &'static str,
    /// Its settings beside `cleanup.policy` and `segment.bytes`.
    pub(crate) configs: &'static [(&'static str, &'static str)],
}

impl StateTopic {
    /// Makes the topic if there is none, as Kafka does at the first FindCoordinator: with one replica each, which is what brokers keep until
    /// they copy from each other, whatever the setting `replication.factor` asks for. True if there was none.
    ///
    /// # Errors
    /// What the metadata service says.
    pub(crate) async fn ensure(&self, services: &Services) -> Result<bool, MetadataError> {
        if services.metadata.image().topic(self.name).is_some() {
            return Ok(false);
        }
        let segment_bytes = services.broker_setting(&format!("{}.segment.bytes", self.settings)).unwrap_or(104_857_600i32).to_string();
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", &segment_bytes)];
        let topic = CreateTopic {
            name: self.name.to_owned(),
            partitions: services.broker_setting(&format!("{}.num.partitions", self.settings)).unwrap_or(50),
            replication_factor: 1,
            configs: configs.iter().chain(self.configs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..CreateTopic::default()
        };
        match services.metadata.create_topic(topic).await {
            Ok(_) | Err(MetadataError::TopicExists(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What a broker leads of the topic.
    pub(crate) fn leadership(&self, image: &MetadataImage, broker_id: i32) -> Leadership {
        let Some(topic) = image.topic(self.name) else { return Leadership::default() };
        let states = topic.partitions.iter().zip(0..).filter(|(state, _)| state.leader == broker_id);
        Leadership {
            partition_count: Some(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)),
            led: states.map(|(state, index)| (index, state.leader_epoch)).collect(),
        }
    }
}

/// Calls `on_image` with the image as it is, and with each newer one until `env`'s tasks stop.
pub(crate) fn follow(
    task: &'static str,
    env: &Env,
    metadata: &Arc<dyn MetadataApi>,
    mut on_image: impl FnMut(Arc<MetadataImage>) + Send + 'static,
) {
    let (tasks, mut images) = (env.tasks.clone(), metadata.watch());
    env.tasks.spawn(task, async move {
        let following = async {
            loop {
                let image = Arc::clone(&images.borrow_and_update());
                on_image(image);
                if images.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = tasks.stopped() => {}
            () = following => {}
        }
    });
}
