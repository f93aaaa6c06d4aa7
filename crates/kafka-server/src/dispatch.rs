//! From an admitted frame to the work that answers it. The connection knows only the [`Dispatch`] port; the handlers stand behind it.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::answer::Answer;
use crate::api_table::{Route, Row};
use crate::budget::Charge;
use crate::connection::InboundFrame;
use crate::context::{RequestContext, Services};
use crate::guard;
use crate::handlers::fetch::FetchSessions;
use crate::handlers::{fetch, produce};
use crate::limits::Limits;
use crate::metrics::ServerMetrics;

/// A request whose header has been read, in a version that is served.
pub(crate) struct Incoming {
    pub row: Row,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Arc<str>>,
    pub peer: SocketAddr,
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
    /// Fetch: nobody misses it when its client is gone.
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
        u64::try_from(self.services.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Dispatch for Handlers {
    fn dispatch(self: Arc<Self>, incoming: Incoming, charge: &mut Charge) -> Result<Work, String> {
        let Incoming { row, version, correlation_id, client_id, peer, frame, body_start } = incoming;
        let api = row.api();
        let mut admit = |frame: InboundFrame| {
            let estimate = guard::admit(&frame.bytes, body_start, api.key, version).map_err(|error| error.to_string())?;
            charge.add(estimate);
            Ok::<_, String>(frame.bytes.freeze().slice(body_start..))
        };
        match api.route {
            Route::Produce => {
                let appending = produce::decode(self, frame, body_start, correlation_id, version)?;
                Ok(Work::Appending(Box::pin(appending)))
            }
            Route::Fetch => {
                let reading = fetch::decode(self, admit(frame)?, correlation_id, version)?;
                Ok(Work::Reading(Box::pin(reading)))
            }
            Route::Typed(handler) => {
                let body = admit(frame)?;
                let services = Arc::clone(&self.services);
                handler(RequestContext { services, api_version: version, client_id, peer }, correlation_id, body).map(Work::Running)
            }
        }
    }
}
