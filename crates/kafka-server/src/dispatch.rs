//! From an admitted frame to the work that answers it. The connection knows only the [`Dispatch`] port; the handlers stand behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use siltstone_log::LogSlice;

use crate::answer::Answer;
use crate::api_table::{Route, Row};
use crate::budget::Charge;
use crate::connection::InboundFrame;
use crate::context::{RequestContext, Services};
use crate::guard;
use crate::handlers::fetch::FetchSessions;
use crate::handlers::{fetch, produce};
use crate::limits::{ConnectionLimits, Limits};
use crate::metrics::ServerMetrics;
use crate::quotas::{ClientQuotas, Taken, read_throttle, write_throttle};
use crate::session::Session;
use crate::settings::broker_values;

/// A request whose header has been read, in a version that is served.
pub(crate) struct Incoming {
    pub row: Row,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Arc<str>>,
    pub session: Arc<Session>,
    pub frame: InboundFrame,
    /// Where the body begins in the frame.
    pub body_start: usize,
}

/// How far a request is.
pub(crate) enum Work {
    /// Produce, before its batches stand in the logs: nothing may overtake it.
    Appending(BoxFuture<'static, Appended>),
    /// Produce, waiting for its acknowledgement: the next Produce may start.
    Waiting(BoxFuture<'static, Answer>),
    /// Fetch, and what only waits for others: nobody misses it when its client is gone.
    Reading(BoxFuture<'static, Answer>),
    /// Anything else: runs to its end.
    Running(BoxFuture<'static, Answer>),
    /// At its end.
    Done(Answer),
}

/// What a Produce request came to once its batches stand in the logs.
pub(crate) enum Appended {
    /// Nothing to wait for.
    Done(Answer),
    /// The acknowledgement is still to come.
    Waiting(BoxFuture<'static, Answer>),
}

/// Who answers requests.
pub(crate) trait Dispatch: Send + Sync {
    /// Checks and decodes a request and makes the work that answers it; `charge` grows by the memory that it takes.
    /// The error says why the request is malformed; it ends the connection.
    fn dispatch(self: Arc<Self>, incoming: Incoming, charge: &mut Charge) -> Result<Work, String>;

    /// True if the time that threads spend on requests counts for anybody's quota.
    fn measures_time(&self) -> bool {
        false
    }

    /// Counts what an answered request has taken, and tells its client in the answer for how long it is held back.
    fn hold_back(&self, _row: Row, _version: i16, _taken: &Taken<'_>, _answer: &mut Vec<LogSlice>) -> Duration {
        Duration::ZERO
    }

    /// The limits of connections now, if they can change.
    fn connection_limits(&self) -> Option<ConnectionLimits> {
        None
    }

    /// The connection from there has ended.
    fn gone(&self, _peer: SocketAddr) {}

    /// How much too early a new connection comes: for the listener as a whole (it waits), and for its address (it is turned away).
    fn too_early(&self, _ip: IpAddr) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}

/// The broker's handlers and what they need beyond a request's context.
pub(crate) struct Handlers {
    pub services: Arc<Services>,
    pub fetch_sessions: FetchSessions,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: usize,
}

impl Handlers {
    pub(crate) fn new(services: Arc<Services>, limits: &Limits, metrics: &Arc<ServerMetrics>) -> Arc<Self> {
        let fetch_sessions = FetchSessions::new(limits.fetch_sessions_max, Arc::clone(metrics));
        Arc::new(Self { services, fetch_sessions, fetch_bytes_max: limits.fetch_bytes_max })
    }

    /// Milliseconds of the monotonic clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.services.now_ms()
    }
}

/// Answers of these tell of a quota of their own: Metadata, CreateTopics, DeleteTopics, CreatePartitions.
const CHANGES_OF_TOPICS: [i16; 4] = [3, 19, 20, 37];

/// Futures of these only wait for the other members, for as long as their clients say; the group's part of it goes on without them: JoinGroup, SyncGroup.
const WAITS: [i16; 2] = [11, 14];

impl Dispatch for Handlers {
    fn measures_time(&self) -> bool {
        ClientQuotas::measures_time(&self.services.metadata.image())
    }

    fn hold_back(&self, row: Row, version: i16, taken: &Taken<'_>, answer: &mut Vec<LogSlice>) -> Duration {
        let header = (row.api().response_header_version)(version);
        let own = self.services.quotas.throttle(&self.services.metadata.image(), taken, self.now_ms());
        let told = match CHANGES_OF_TOPICS.contains(&taken.key) {
            true => Duration::from_millis(read_throttle(taken.key, version, header, answer).into()),
            false => Duration::ZERO,
        };
        if own > told {
            write_throttle(taken.key, version, header, answer, u32::try_from(own.as_millis()).unwrap_or(u32::MAX));
        }
        own.max(told)
    }

    fn connection_limits(&self) -> Option<ConnectionLimits> {
        let image = self.services.metadata.image();
        let value = |name: &str| broker_values(&self.services, &image, name).first().map(|(_, value)| (*value).to_owned());
        Some(ConnectionLimits::from_values(value))
    }

    fn gone(&self, peer: SocketAddr) {
        self.services.telemetry.forget_software(peer);
    }

    fn too_early(&self, ip: IpAddr) -> (Duration, Duration) {
        let rate = self.services.broker_setting("max.connection.creation.rate").unwrap_or(f64::MAX);
        let now_ms = self.now_ms();
        let all = self.services.quotas.listener_connection(rate, now_ms);
        (all, self.services.quotas.connection(&self.services.metadata.image(), &ip.to_string(), now_ms))
    }

    fn dispatch(self: Arc<Self>, incoming: Incoming, charge: &mut Charge) -> Result<Work, String> {
        let Incoming { row, version, correlation_id, client_id, session, frame, body_start } = incoming;
        let api = row.api();
        let mut admit = |frame: InboundFrame| {
            let estimate = guard::admit(&frame.bytes, body_start, api.key, version).map_err(|error| error.to_string())?;
            charge.add(estimate);
            Ok::<_, String>(frame.bytes.freeze().slice(body_start..))
        };
        match api.route {
            Route::Produce => {
                let appending = produce::decode(self, session, frame, body_start, correlation_id, version, charge)?;
                Ok(Work::Appending(Box::pin(appending)))
            }
            Route::Fetch => {
                let bytes_max = self.services.quotas.fetch_bytes_max(&self.services.metadata.image(), client_id.as_deref());
                let bytes_max = bytes_max.min(self.fetch_bytes_max);
                let reading = fetch::decode(self, session, admit(frame)?, (correlation_id, version), bytes_max)?;
                Ok(Work::Reading(Box::pin(reading)))
            }
            Route::Typed(handler) => {
                let body = admit(frame)?;
                let services = Arc::clone(&self.services);
                let work = if WAITS.contains(&api.key) { Work::Reading } else { Work::Running };
                handler(RequestContext { services, api_version: version, client_id, session }, correlation_id, body).map(work)
            }
        }
    }
}
