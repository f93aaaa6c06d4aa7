//! A small Kafka client for the command line: plain types in and out, one connection per broker, no background work.

mod admin;
mod connection;
mod data;

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::Request;
use thiserror::Error;

pub use admin::{GroupDescription, GroupListing, GroupMember, GroupOffset, NewTopic, PartitionDescription, TopicDescription};
use connection::Connection;
pub use data::{ConsumedRecord, Consumption, ProducedRecord, StartAt};

use crate::topic_lookup::topic_name;

/// A call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error("{address}: {source}")]
    Io {
        /// Who was called.
        address: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The broker's bytes make no sense, or it does not serve what is needed.
    #[error("{address}: {reason}")]
    Protocol {
        /// Who was called.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The broker refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's error and the broker's words.
        message: String,
    },
}

impl ClientError {
    fn refused(what: impl ToString, code: i16, message: Option<&str>) -> Self {
        let error = ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), |error| format!("{error:?}"));
        let message = message.filter(|message| !message.is_empty()).map_or_else(|| error.clone(), |text| format!("{error}: {text}"));
        Self::Refused { what: what.to_string(), message }
    }
}

/// `Ok` for code 0.
fn check(what: impl ToString, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    if code == 0 { Ok(()) } else { Err(ClientError::refused(what, code, message)) }
}

/// A client of a cluster.
#[derive(Debug)]
pub struct Client {
    bootstrap: Connection,
    brokers: HashMap<i32, Connection>,
    addresses: BTreeMap<i32, String>,
}

impl Client {
    /// Connects to the first of the comma-separated `bootstrap` addresses that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn connect(bootstrap: &str) -> Result<Self, ClientError> {
        let mut last = None;
        for address in bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match Connection::open(address).await {
                Ok(bootstrap) => return Ok(Self { bootstrap, brokers: HashMap::new(), addresses: BTreeMap::new() }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Protocol { address: bootstrap.to_owned(), reason: "no address given".to_owned() }))
    }

    async fn call<R: Request>(&mut self, request: R) -> Result<R::Response, ClientError> {
        self.bootstrap.call(request).await
    }

    /// Calls broker `id`, of which the last metadata told the address.
    async fn call_broker<R: Request>(&mut self, id: i32, request: R) -> Result<R::Response, ClientError> {
        if !self.brokers.contains_key(&id) {
            let unknown =
                || ClientError::Protocol { address: self.bootstrap.address().to_owned(), reason: format!("no leader known (broker {id})") };
            let connection = Connection::open(self.addresses.get(&id).ok_or_else(unknown)?).await?;
            self.brokers.insert(id, connection);
        }
        match self.brokers.get_mut(&id) {
            Some(connection) => connection.call(request).await,
            None => Err(ClientError::Protocol { address: id.to_string(), reason: "connection lost".to_owned() }),
        }
    }

    /// Metadata of `topics`, or of all; notes the brokers' addresses.
    async fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> Result<MetadataResponse, ClientError> {
        let names =
            topics.map(|names| names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect());
        let request = MetadataRequest::default().with_topics(names).with_allow_auto_topic_creation(create);
        let response = self.call(request).await?;
        self.addresses =
            response.brokers.iter().map(|broker| (broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port))).collect();
        Ok(response)
    }
}
