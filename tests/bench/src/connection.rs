//! A blocking connection: frames out, frames in.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

const TOPIC_ALREADY_EXISTS: i16 = 36;
const CREATE_VERSION: i16 = 5;

/// One frame with its length prefix.
pub fn frame<R: Request + Encodable + HeaderVersion>(correlation_id: i32, version: i16, request: &R) -> anyhow::Result<BytesMut> {
    let mut frame = BytesMut::new();
    frame.put_u32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("siltstone-bench")));
    header.encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let len = u32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    Ok(frame)
}

/// Reads one frame into `buffer`, which is reused.
pub fn read_frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).context("the broker closed the connection")?;
    buffer.resize(u32::from_be_bytes(prefix) as usize, 0);
    stream.read_exact(buffer)?;
    Ok(())
}

/// Decodes an answer.
pub fn decode<R: Request>(frame: &[u8], version: i16) -> anyhow::Result<R::Response> {
    let mut bytes = Bytes::copy_from_slice(frame);
    bytes.advance(4);
    if <R::Response as HeaderVersion>::header_version(version) >= 1 {
        bytes.advance(1);
    }
    <R::Response as Decodable>::decode(&mut bytes, version)
}

/// The topic that a load needs.
pub struct Topic<'a> {
    pub name: &'a str,
    pub partitions: i32,
    /// Settings by name.
    pub configs: Vec<(&'a str, String)>,
}

/// Connects and makes sure that the topic is there.
pub fn connect(broker: &str, topic: &Topic<'_>) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).with_context(|| format!("connecting to {broker}"))?;
    stream.set_nodelay(true)?;
    let text = |value: &str| StrBytes::from_string(value.to_owned());
    let config = |(name, value): &(&str, String)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let creatable = CreatableTopic::default()
        .with_name(topic_name(topic.name))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(1)
        .with_configs(topic.configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(30_000);
    stream.write_all(&frame(0, CREATE_VERSION, &request)?)?;
    let mut buffer = Vec::new();
    read_frame(&mut stream, &mut buffer)?;
    let answer = decode::<CreateTopicsRequest>(&buffer, CREATE_VERSION)?;
    match answer.topics.first().map(|topic| topic.error_code) {
        Some(0 | TOPIC_ALREADY_EXISTS) => Ok(stream),
        code => bail!("could not create the topic: {code:?}"),
    }
}

/// The codec's form of a name.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
