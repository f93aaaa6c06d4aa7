//! Whose data directory this is, and which: `meta.properties`, as Kafka calls it.

use std::io;
use std::path::Path;

use siltstone_common::Env;
use siltstone_common::fs::{FileLock, FileSystem};
use uuid::Uuid;

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

/// What `meta.properties` says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Given to the directory when it was made.
    pub(crate) directory: Uuid,
    /// See [`super::LogManager::set_returned`].
    pub(crate) returned: bool,
}

/// Makes sure that the directory belongs to `cluster_id`; an empty one does from now on.
pub(super) fn identify(env: &Env, dir: &Path, cluster_id: &str) -> Result<Identity, LogError> {
    let path = dir.join("meta.properties");
    let text = match read_whole(env.fs.as_ref(), &path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("cluster.id={cluster_id}\n"),
        Err(error) => return Err(LogError::io(&path, error)),
    };
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::trim);
    match value("cluster.id") {
        Some(found) if found == cluster_id => {}
        Some(found) => {
            let found = found.to_owned();
            return Err(LogError::WrongCluster { path: dir.display().to_string(), found, expected: cluster_id.to_owned() });
        }
        None => return Err(LogError::Corrupt { path: path.display().to_string(), reason: "it names no cluster.id".to_owned() }),
    }
    let returned = value("returned") == Some("true");
    match value("directory.id").map(Uuid::parse_str) {
        Some(Ok(directory)) => Ok(Identity { directory, returned }),
        Some(Err(error)) => Err(LogError::Corrupt { path: path.display().to_string(), reason: format!("directory.id: {error}") }),
        None => {
            let identity = Identity { directory: env.entropy.uuid(), returned };
            write(env.fs.as_ref(), dir, cluster_id, identity).map(|()| identity)
        }
    }
}

/// Writes `meta.properties` durably.
pub(super) fn write(fs: &dyn FileSystem, dir: &Path, cluster_id: &str, identity: Identity) -> Result<(), LogError> {
    let path = dir.join("meta.properties");
    let Identity { directory, returned } = identity;
    let text = format!("version=1\ncluster.id={cluster_id}\ndirectory.id={directory}\nreturned={returned}\n");
    write_durably(fs, &path, text.as_bytes()).map(drop).map_err(|error| LogError::io(&path, error))
}
