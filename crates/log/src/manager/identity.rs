//! Whose data directory this is: `meta.properties`, as Kafka calls it.

use std::io;
use std::path::Path;

use siltstone_common::fs::{FileLock, FileSystem};

use crate::error::LogError;
use crate::manifest::write_durably;
use crate::segment::read_whole;

/// Takes the directory's lock.
pub(super) fn lock(fs: &dyn FileSystem, dir: &Path) -> Result<Box<dyn FileLock>, LogError> {
    let path = dir.join(".lock");
    fs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked(dir.display().to_string()),
        _ => LogError::io(&path, error),
    })
}

/// Makes sure that the directory belongs to `cluster_id`; an empty one does from now on.
pub(super) fn check_cluster(fs: &dyn FileSystem, dir: &Path, cluster_id: &str) -> Result<(), LogError> {
    let path = dir.join("meta.properties");
    let found = match read_whole(fs, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("version=1\ncluster.id={cluster_id}\n");
            return write_durably(fs, &path, text.as_bytes()).map(drop).map_err(|error| LogError::io(&path, error));
        }
        Err(error) => return Err(LogError::io(&path, error)),
    };
    let text = String::from_utf8_lossy(&found);
    let found = text.lines().find_map(|line| line.strip_prefix("cluster.id=")).map(str::trim);
    match found {
        Some(found) if found == cluster_id => Ok(()),
        Some(found) => {
            Err(LogError::WrongCluster { path: dir.display().to_string(), found: found.to_owned(), expected: cluster_id.to_owned() })
        }
        None => Err(LogError::Corrupt { path: path.display().to_string(), reason: "it names no cluster.id".to_owned() }),
    }
}
