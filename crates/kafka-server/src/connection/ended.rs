//! Why a connection ended, and whose fault that is.

use std::io;

use thiserror::Error;

use super::inbound::FrameError;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum Ended {
    #[error("the client closed the connection")]
    ByClient,
    #[error("the server stops")]
    Shutdown,
    #[error("the connection was idle")]
    Idle,
    #[error("a request did not come in within its time")]
    TooSlow,
    #[error("the client did not read its answers")]
    NotReading,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("request with key {0}, which this broker does not serve")]
    UnknownApi(i16),
    #[error("{name} request in version {version}, which this broker does not serve")]
    UnsupportedVersion { name: &'static str, version: i16 },
    #[error("malformed {name} request, version {version}: {reason}")]
    Malformed { name: &'static str, version: i16, reason: String },
    #[error("{name} request: {reason}")]
    Refused { name: &'static str, reason: String },
    #[error("i/o error: {0}")]
    Io(#[from] io::Error),
}

impl Ended {
    /// True if the client did what no client should do.
    pub(crate) fn is_violation(&self) -> bool {
        match self {
            Ended::ByClient | Ended::Shutdown | Ended::Idle | Ended::Io(_) => false,
            Ended::TooSlow
            | Ended::NotReading
            | Ended::Frame(_)
            | Ended::UnknownApi(_)
            | Ended::UnsupportedVersion { .. }
            | Ended::Malformed { .. }
            | Ended::Refused { .. } => true,
        }
    }
}
