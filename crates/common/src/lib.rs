//! What every other crate stands on: ids, and the ports through which the outside world is reached
//! (clock, randomness, files, tasks). Product code goes through [`Env`]; only this crate touches the
//! operating system's clock, entropy, threads and file system, so that a simulation can stand in for all of them.

#![allow(clippy::disallowed_methods, reason = "this crate is the door that the lint points to")]

pub mod bell;
pub mod clock;
pub mod entropy;
pub mod env;
pub mod fault;
pub mod fs;
pub mod ids;
pub mod limits;
pub mod log_levels;
pub mod retry;
pub mod tasks;

pub use env::Env;
pub use ids::{BrokerId, TopicId, TopicIdPartition};
