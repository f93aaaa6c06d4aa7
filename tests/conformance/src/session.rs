//! A scenario's connections to one broker, and the notes it takes.

use crate::debug_json;
use crate::normalise::{Normaliser, now_ms};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, GroupId, MetadataRequest, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::messages::{list_offsets_request as lo, metadata_request as md};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a broker may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a topic may take to become usable.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer a scenario expects.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a raw frame met.
pub enum Answer {
    /// A response frame, correlation id included.
    Frame(Bytes),
    /// The broker closed the connection.
    Closed,
    /// Nothing within the limit.
    Silence,
}

/// One raw connection.
pub struct Conn {
    addr: SocketAddr,
    from: Option<IpAddr>,
    stream: TcpStream,
    correlation: i32,
    /// Client id of the request header.
    pub client_id: Option<StrBytes>,
}

impl Conn {
    /// Connects to the broker.
    pub fn open(addr: SocketAddr) -> Result<Conn> {
        Self::open_from(addr, None)
    }

    /// Connects to the broker from one of this machine's addresses.
    fn open_from(addr: SocketAddr, from: Option<IpAddr>) -> Result<Conn> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect(&addr.into()).with_context(|| format!("connecting to {addr}"))?;
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let client_id = Some(StrBytes::from_static_str("conformance"));
        Ok(Conn { addr, from, stream, correlation: 0, client_id })
    }

    fn reopen(&mut self) -> Result<()> {
        let client_id = self.client_id.take();
        *self = Conn { client_id, ..Conn::open_from(self.addr, self.from)? };
        Ok(())
    }

    /// The frame (without its length) of `request` at `version`.
    pub fn frame<R: Request>(&mut self, version: i16, request: &R) -> Result<BytesMut> {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(self.client_id.clone());
        header.encode(&mut frame, R::header_version(version))?;
        let api = ApiKey::try_from(R::KEY);
        request.encode(&mut frame, version).with_context(|| format!("{api:?} version {version}"))?;
        Ok(frame)
    }

    /// Sends `request` without waiting for its answer.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        let frame = self.frame(version, request)?;
        self.send_frame(&frame)
    }

    /// Sends `frame` with its true length before it.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let mut bytes = BytesMut::new();
        bytes.put_i32(frame.len() as i32);
        bytes.extend_from_slice(frame);
        self.send_bytes(&bytes)
    }

    /// Sends `bytes` as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if !is_closed(&error) => Err(error.into()),
            _ => Ok(()), // a peer that closed early shows when its answer is read
        }
    }

    /// Sends a frame begun by [`raw_header`], whose answer may be heard as that of a normal request.
    pub fn send_raw(&mut self, frame: &[u8]) -> Result<()> {
        self.correlation = RAW_CORRELATION_ID;
        self.send_frame(frame)
    }

    /// Reads one answer.
    pub fn answer(&mut self, limit: Duration) -> Result<Answer> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut length = [0; 4];
        let mut read = || -> std::io::Result<Bytes> {
            self.stream.read_exact(&mut length)?;
            let length = i32::from_be_bytes(length);
            let length = usize::try_from(length).ok().filter(|l| *l <= ANSWER_BYTES_MAX);
            let mut frame = vec![0; length.ok_or(ErrorKind::InvalidData)?];
            self.stream.read_exact(&mut frame)?;
            Ok(frame.into())
        };
        match read() {
            Ok(frame) => Ok(Answer::Frame(frame)),
            Err(error) if is_closed(&error) => Ok(Answer::Closed),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Answer::Silence),
            Err(error) => Err(error).context("reading an answer"),
        }
    }

    /// Sends `request` and returns its answer, noting nothing.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.send(version, request)?;
        self.hear_answer::<R>(version)
    }

    /// Returns the answer to a request of type `R` that was sent before, noting nothing.
    pub fn hear_answer<R: Request>(&mut self, version: i16) -> Result<R::Response> {
        match self.answer(ANSWER_TIMEOUT)? {
            Answer::Frame(frame) => Ok(self.decode::<R>(version, frame)?.0),
            Answer::Closed => bail!("the broker closed the connection"),
            Answer::Silence => bail!("no answer within {ANSWER_TIMEOUT:?}"),
        }
    }

    /// Waits until `done`, for a limited time.
    pub fn wait_for(&mut self, mut done: impl FnMut(&mut Conn) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !done(self)? {
            ensure!(Instant::now() < deadline, "still waiting after {READY_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The response, and whether its bytes are what our codec would write (so: no default tagged field on the wire).
    fn decode<R: Request>(&self, version: i16, mut frame: Bytes) -> Result<(R::Response, bool)> {
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))?;
        let expected = self.correlation;
        ensure!(header.correlation_id == expected, "correlation id {} instead of {expected}", header.correlation_id);
        let body = frame.clone();
        let response = R::Response::decode(&mut frame, version)?;
        ensure!(!frame.has_remaining(), "{} bytes after the answer", frame.remaining());
        let mut again = BytesMut::new();
        let canonical = response.encode(&mut again, version).is_ok() && again == body;
        Ok((response, canonical))
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// One run of one scenario on one broker.
pub struct Session {
    addr: SocketAddr,
    name: &'static str,
    normaliser: Normaliser,
    steps: Vec<Value>,
    only_own: bool,
    /// The scenario's time origin in ms, an hour before it runs: batches carry times a little after it.
    pub start_ms: i64,
}

impl Session {
    /// A session of scenario `name` with the broker at `addr`.
    pub fn new(addr: SocketAddr, name: &'static str) -> Session {
        let start_ms = now_ms() - 3_600_000;
        let normaliser = Normaliser::new(start_ms);
        Session { addr, name, normaliser, steps: Vec::new(), only_own: false, start_ms }
    }

    /// The notes taken.
    pub fn into_steps(self) -> Vec<Value> {
        self.steps
    }

    /// Opens one more connection.
    pub fn connect(&self) -> Result<Conn> {
        Conn::open(self.addr)
    }

    /// Opens a connection from another address: a client that ACLs can tell from others, before it authenticates itself.
    pub fn connect_from(&self, from: [u8; 4]) -> Result<Conn> {
        Conn::open_from(self.addr, Some(from.into()))
    }

    /// Name of a topic, group or client of this scenario.
    pub fn own(&self, short: &str) -> StrBytes {
        StrBytes::from_string(format!("{}.{short}", self.name))
    }

    /// Name of a topic of this scenario.
    pub fn topic(&self, short: &str) -> TopicName {
        TopicName(self.own(short))
    }

    /// Name of a group of this scenario.
    pub fn group(&self, short: &str) -> GroupId {
        GroupId(self.own(short))
    }

    /// From now on, lists of topics and groups are noted without those of other scenarios.
    pub fn note_only_own(&mut self) {
        self.only_own = true;
    }

    /// Sends `request`, notes the answer as `step` and returns it; a default one when there was none.
    pub fn ask<R: Request>(&mut self, conn: &mut Conn, step: &str, version: i16, request: &R) -> Result<R::Response>
    where
        R::Response: Debug + Default,
    {
        conn.send(version, request)?;
        self.hear::<R>(conn, step, version)
    }

    /// Notes the answer to a request of type `R` sent before.
    pub fn hear<R: Request>(&mut self, conn: &mut Conn, step: &str, version: i16) -> Result<R::Response>
    where
        R::Response: Debug + Default,
    {
        let api = format!("{} v{version}", api_name(R::KEY));
        let (note, response) = match conn.answer(ANSWER_TIMEOUT)? {
            Answer::Frame(frame) => match conn.decode::<R>(version, frame) {
                Ok((response, canonical)) => {
                    let mut note = self.normalise(debug_json::to_json(&response)?);
                    if !canonical {
                        note["canonical"] = false.into();
                    }
                    (note, response)
                }
                Err(error) => (json!(format!("undecodable: {error:#}")), R::Response::default()),
            },
            Answer::Closed => (json!("closed"), R::Response::default()),
            Answer::Silence => (json!("silence"), R::Response::default()),
        };
        if note.is_string() {
            conn.reopen()?;
        }
        self.note(step, &api, note)?;
        Ok(response)
    }

    /// Notes what a raw frame met: `closed`, `silence`, or the bytes after the correlation id.
    pub fn hear_raw(&mut self, conn: &mut Conn, step: &str, limit: Duration) -> Result<Answer> {
        let answer = conn.answer(limit)?;
        let note = match &answer {
            Answer::Frame(frame) => {
                let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
                json!({"bytes": frame.len(), "frame": hex})
            }
            Answer::Closed => json!("closed"),
            Answer::Silence => json!("silence"),
        };
        self.note(step, "raw frame", note)?;
        Ok(answer)
    }

    /// Notes a decoded answer, normalised.
    pub fn note_json(&mut self, step: &str, api: &str, answer: Value) -> Result<()> {
        let answer = self.normalise(answer);
        self.note(step, api, answer)
    }

    /// Notes `answer` as it is.
    pub fn note(&mut self, step: &str, api: &str, answer: Value) -> Result<()> {
        let taken = self.steps.iter().any(|s| s["step"] == step);
        ensure!(!taken, "step {step:?} is noted twice");
        self.steps.push(json!({"step": step, "api": api, "answer": answer}));
        Ok(())
    }

    fn normalise(&mut self, mut answer: Value) -> Value {
        if self.only_own {
            for list in ["topics", "groups"] {
                if let Some(Value::Array(items)) = answer.get_mut(list) {
                    items.retain(|item| {
                        let name = item.get("name").or(item.get("group_id"));
                        name.and_then(Value::as_str).is_none_or(|n| n.starts_with(self.name))
                    });
                }
            }
        }
        self.normaliser.apply(answer)
    }

    /// Creates a topic with one replica and waits until every partition takes requests; gives its id.
    pub fn create_topic(&self, conn: &mut Conn, short: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<Uuid> {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.to_string()))
                .with_value(Some(StrBytes::from_string(value.to_string())))
        };
        let topic = CreatableTopic::default()
            .with_name(self.topic(short))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(15_000);
        let answer = conn.call(7, &request)?;
        let result = answer.topics.first().context("no topic in the answer")?;
        ensure!(result.error_code == 0, "creating {short}: error {} {:?}", result.error_code, result.error_message);
        self.wait_for_topic(conn, short, partitions)
    }

    /// Waits until every partition of a topic takes requests; gives the topic's id.
    pub fn wait_for_topic(&self, conn: &mut Conn, short: &str, partitions: i32) -> Result<Uuid> {
        let name = self.topic(short);
        let metadata =
            MetadataRequest::default().with_topics(Some(vec![md::MetadataRequestTopic::default().with_name(Some(name.clone()))]));
        let latest = |index| lo::ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1);
        let offsets = kafka_protocol::messages::ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![lo::ListOffsetsTopic::default().with_name(name).with_partitions((0..partitions).map(latest).collect())]);
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = conn.call(12, &metadata)?;
            let topic = answer.topics.first().filter(|t| t.error_code == 0 && t.partitions.len() == partitions as usize);
            if let Some(topic) = topic {
                let answer = conn.call(7, &offsets)?;
                let mut parts = answer.topics.iter().flat_map(|t| &t.partitions);
                if parts.all(|p| p.error_code == 0) {
                    return Ok(topic.topic_id);
                }
            }
            ensure!(Instant::now() < deadline, "{short} is not ready: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Kafka's name of an API.
pub fn api_name(key: i16) -> String {
    let name = ApiKey::try_from(key).map(|k| format!("{k:?}"));
    name.unwrap_or_else(|()| format!("key {key}"))
}

/// The start of a request frame written by hand: for versions and keys the codec does not know.
pub fn raw_header(key: i16, version: i16, flexible: bool) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(RAW_CORRELATION_ID);
    frame.put_i16(3);
    frame.extend_from_slice(b"raw");
    if flexible {
        frame.put_u8(0);
    }
    frame
}

/// The correlation id of [`raw_header`].
pub const RAW_CORRELATION_ID: i32 = 77;
