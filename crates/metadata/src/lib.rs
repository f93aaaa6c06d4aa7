//! The metadata service: store port and providers, controller, image, segment map, HTTP API and its client.

pub mod acls;
pub mod api;
pub mod configs;
mod controller;
pub mod features;
mod follower;
pub mod http;
pub mod image;
pub mod quotas;
mod rows;
pub mod segments;
mod service;
pub mod store;

pub use api::{MetadataApi, MetadataError};
pub use controller::TOPIC_PARTITIONS_MAX;
pub use follower::ImageDelta;
pub use http::{HttpMetadata, HttpMetadataConfig, router};
pub use image::{BrokerImage, ImageChange, MetadataImage, PartitionImage, TopicImage};
pub use segments::index::{IndexObjectError, IndexObjects, index_object_owner};
pub use segments::{RemoteExtent, SegmentRow, SegmentState};
pub use service::{MetadataService, MetadataServiceConfig};
pub use store::{MemoryStore, MetadataStore, RedbStore};
