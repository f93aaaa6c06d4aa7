//! The metadata service: store port and providers, controller, image, segment map, HTTP API and its client.

pub mod api;
pub mod configs;
pub mod image;
pub mod segments;

pub use api::{MetadataApi, MetadataError};
pub use image::{BrokerImage, MetadataImage, PartitionImage, TopicImage};
pub use segments::{RemoteExtent, SegmentRow, SegmentState};
