//! One connection to one broker: a request, its answer, in the highest version that both know.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ClientError;

/// A larger answer is refused.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long a broker may take to accept, as Kafka's clients have it (`socket.connection.setup.timeout.ms`).
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// And to answer, or to go on with an answer (`default.api.timeout.ms`).
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// What `io` comes to, if that is soon enough.
async fn in_time<T>(limit: Duration, io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, io).await.unwrap_or_else(|_elapsed| Err(late()))
}

#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    stream: TcpStream,
    versions: HashMap<i16, (i16, i16)>,
    correlation_id: i32,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Io { address: address.to_owned(), source };
        let stream = in_time(CONNECT_TIME, TcpStream::connect(address)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Self { address: address.to_owned(), stream, versions: HashMap::new(), correlation_id: 0 };
        let software = StrBytes::from_static_str("siltstone");
        let version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
        let request = ApiVersionsRequest::default().with_client_software_name(software).with_client_software_version(version);
        let answer = connection.exchange(request, 3).await?;
        super::check("ApiVersions", answer.error_code, None)?;
        connection.versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(connection)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn call<R: Request>(&mut self, request: R) -> Result<R::Response, ClientError> {
        let ours = R::VERSIONS;
        let unserved = || self.protocol(format!("API {} is not served in a version that this client knows", R::KEY));
        let (min, max) = self.versions.get(&R::KEY).copied().ok_or_else(unserved)?;
        let version = max.min(ours.max);
        if version < min.max(ours.min) {
            return Err(unserved());
        }
        self.exchange(request, version).await
    }

    async fn exchange<R: Request>(&mut self, request: R, version: i16) -> Result<R::Response, ClientError> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("siltstone-cli")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let encoded = header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        encoded.map_err(|error| self.protocol(error.to_string()))?;
        let length = i32::try_from(frame.len() - 4).map_err(|_| self.protocol("the request is too large".to_owned()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        in_time(ANSWER_TIME, self.stream.write_all(&frame)).await.map_err(|error| self.io(error))?;
        let mut answer = self.read_frame().await?;
        let decoded = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        let header = decoded.map_err(|error| self.protocol(error.to_string()))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.protocol("an answer to another request".to_owned()));
        }
        R::Response::decode(&mut answer, version).map_err(|error| self.protocol(error.to_string()))
    }

    async fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        let mut length = [0; 4];
        in_time(ANSWER_TIME, self.stream.read_exact(&mut length)).await.map_err(|error| self.io(error))?;
        let length = usize::try_from(length.as_slice().get_i32()).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let length = length.ok_or_else(|| self.protocol("not a Kafka answer".to_owned()))?;
        let mut frame = BytesMut::new();
        while frame.len() < length {
            let missing = length - frame.len();
            let mut rest = (&mut self.stream).take(missing as u64);
            let read = in_time(ANSWER_TIME, rest.read_buf(&mut frame)).await.map_err(|error| self.io(error))?;
            if read == 0 {
                return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(frame.freeze())
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }

    fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol { address: self.address.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next of several addresses must have its turn.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let refused = Connection::open(&address).await.err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains(&address) && error.contains("no answer within")));
    }
}
