//! One client connection: one task that reads frames, runs their requests, and sends the answers.
//!
//! Overview: the task is a single poll function over three parts: `Inbound` (bytes to frames), the pipeline (requests under way, oldest first) and
//! `Outbound` (answers to the socket). No channel and no second task lie between a frame and its answer.
//!
//! Order: answers leave in the order of their requests. A Produce request starts as soon as the one before it has appended (so batches stand
//! in the log in the order sent) while earlier ones still wait for their acknowledgement; every other request starts when all before it are
//! answered and mostly sent, as in Kafka.
//!
//! Limits: requests in the pipeline, bytes not yet sent, bytes held by unfinished frames (the common budget). At any of them the connection stops
//! reading, and TCP holds the client back. A client that does not read its answers keeps them until it is idle, or until all such answers
//! together are too much memory.
//!
//! Cancellation: when the client goes away, in whatever way, its socket is closed and its place given to another at once (behind a wait with much
//! more from the client after it, or with what breaks the rules, after some seconds, when the reaper has it looked for); waits (of Produce, Fetch,
//! JoinGroup and SyncGroup) are dropped, while appends and other requests run to their end behind it. When the server stops, requests under way
//! get a while to end. The reaper ends connections whose frame does not come in or that are idle.

mod ended;
mod inbound;
mod outbound;
mod watch;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use siltstone_common::clock::Clock;
use siltstone_log::LogSlice;
use tokio::net::TcpStream;

pub(crate) use ended::Ended;
pub(crate) use inbound::InboundFrame;
pub(crate) use watch::{Crowded, Verdict, Watch};

use crate::answer::Answer;
use crate::api_table::{self, Row};
use crate::budget::Charge;
use crate::connection::inbound::Inbound;
use crate::connection::outbound::Outbound;
use crate::dispatch::{Appended, Incoming, Work};
use crate::guard::{self, Malformed};
use crate::handlers::api_versions;
use crate::limits::{OUTBOUND_BYTES_MAX, PIPELINE_MAX};
use crate::quotas::Taken;
use crate::server::{Admission, Shared};
use crate::session::Session;

/// A client that pipelines behind a waiting request may send so many bytes ahead; reading them also shows that it is still there.
const READ_BEHIND_WAIT_BYTES: usize = 16 * 1024;
/// Turns of the poll loop before other tasks of the thread have their turn.
const TURNS_MAX: usize = 32;
const PRODUCE_KEY: i16 = 0;
const API_VERSIONS_KEY: i16 = 18;

struct Slot {
    row: Row,
    version: i16,
    work: Work,
    /// Time that threads have spent on it, if that counts.
    busy: Duration,
    started_at: Duration,
    request_bytes: usize,
    /// Held until the answer is queued.
    _charge: Charge,
}

/// What is known of a request that is answered.
struct Answered {
    row: Row,
    version: i16,
    request_bytes: usize,
    busy: Duration,
}

/// A wait, and when it ends.
struct Mute {
    until: Duration,
    wait: BoxFuture<'static, ()>,
}

/// Polls, and adds the time that this takes to `busy` if it counts.
fn poll_timed<T>(clock: &dyn Clock, timed: bool, busy: &mut Duration, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    if !timed {
        return poll();
    }
    let begun = clock.monotonic();
    let outcome = poll();
    *busy += clock.monotonic().saturating_sub(begun);
    outcome
}

/// See the module.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// `None` once the client has gone.
    stream: Option<TcpStream>,
    admission: Admission,
    inbound: Inbound,
    pipeline: VecDeque<Slot>,
    outbound: Outbound,
    watch: Arc<Watch>,
    client_id: Option<Arc<str>>,
    /// The client is over a quota: nothing is read before this ends.
    muted: Option<Mute>,
    /// Whether the time that requests take counts for a quota.
    timed: bool,
    /// Memory of answers that the socket did not take, as counted in the server's metrics, bytes.
    unsent_bytes: usize,
    /// The socket was read from, as far as it had something: what is missing of a frame is missing for the client's sake.
    reads: bool,
    /// A violation that ends the connection once the requests before it are answered, as in Kafka.
    ending: Option<Ended>,
    /// Why the client is gone, while requests of its run on.
    left: Option<Ended>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, watch: Arc<Watch>, admission: Admission) -> Self {
        let inbound = Inbound::new(shared.limits.request_bytes_max, shared.budget.charge());
        let outbound = Outbound::new(shared.env.tasks.clone(), Arc::clone(&shared.metrics));
        Self {
            shared,
            session: Session::anonymous(peer),
            stream: Some(stream),
            admission,
            inbound,
            pipeline: VecDeque::new(),
            outbound,
            watch,
            client_id: None,
            muted: None,
            timed: false,
            unsent_bytes: 0,
            reads: false,
            ending: None,
            left: None,
        }
    }

    /// Serves the client until either side ends it.
    pub(crate) async fn run(mut self) -> Ended {
        match poll_fn(|cx| self.poll(cx)).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, Ended>> {
        self.watch.register(cx.waker());
        match self.verdict() {
            Some(Ended::Shutdown) => return Poll::Ready(Err(Ended::Shutdown)),
            Some(ended) => self.leave(ended),
            None => {}
        }
        for _ in 0..TURNS_MAX {
            let progress = self.turn(cx).unwrap_or_else(|ended| {
                self.leave(ended);
                true
            });
            if self.pipeline.is_empty()
                && self.outbound.queued_bytes() == 0
                && let Some(ended) = self.ending.take()
            {
                return Poll::Ready(Err(ended));
            }
            if self.is_over() {
                return Poll::Ready(Err(self.left.take().unwrap_or(Ended::Shutdown)));
            }
            if !progress {
                self.watch.set_deaf(self.is_deaf());
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends, moves requests on, starts others; whether anything of that was done. An error is the end of the client, not yet of its requests.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let sent = self.poll_send(cx)?;
        let answered = self.poll_pipeline(cx)?;
        Ok(self.take_in(cx)? || sent || answered)
    }

    /// Closes the socket, gives the connection's place to another, and drops what nobody needs once the client has gone.
    fn leave(&mut self, reason: Ended) {
        if self.left.is_some() {
            return;
        }
        self.left = Some(reason);
        self.stream = None;
        self.admission.release();
        self.muted = None;
        self.watch.frame_paused();
        self.outbound = Outbound::new(self.shared.env.tasks.clone(), Arc::clone(&self.shared.metrics));
        self.note_unsent(0);
        self.pipeline.retain(|slot| matches!(slot.work, Work::Appending(_) | Work::Running(_)));
    }

    /// Starts and reads requests, unless one has broken the rules.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if self.ending.is_some() || !self.may_begin() || self.is_muted(cx) {
            return Ok(false);
        }
        match self.start_requests(cx).and_then(|started| Ok(started | self.poll_read(cx)?)) {
            Ok(progress) => {
                self.time_frame()?;
                Ok(progress)
            }
            Err(ended) if ended.is_violation() => {
                self.ending = Some(ended);
                Ok(true)
            }
            Err(ended) => Err(ended),
        }
    }

    /// False for a client that was turned out: what it had sent is not begun any more.
    fn may_begin(&self) -> bool {
        !self.watch.is_draining() && !self.left.as_ref().is_some_and(Ended::is_violation)
    }

    /// A frame's time runs while its bytes are missing: not while it waits for a request before it, nor while nothing is read for our sake.
    fn time_frame(&self) -> Result<(), Ended> {
        let ours_to_finish = self.pipeline.back().is_some_and(|slot| !matches!(slot.work, Work::Waiting(_)));
        if self.reads && self.inbound.has_partial_frame() && !ours_to_finish && self.inbound.peek()?.is_none() {
            self.watch.frame_began(self.shared.coarse_now());
        } else {
            self.watch.frame_paused();
        }
        Ok(())
    }

    /// True while the client is held back for a quota.
    fn is_muted(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mute) = &mut self.muted else { return false };
        if mute.wait.as_mut().poll(cx).is_pending() {
            // The time of a frame that is held back is not the client's.
            self.watch.frame_paused();
            return true;
        }
        self.muted = None;
        false
    }

    /// Reads nothing more for this long.
    fn mute(&mut self, wait: Duration) {
        let clock = &self.shared.env.clock;
        let until = clock.monotonic() + wait;
        if wait > Duration::ZERO && self.left.is_none() && self.muted.as_ref().is_none_or(|mute| mute.until < until) {
            self.muted = Some(Mute { until, wait: clock.sleep(wait) });
        }
    }

    /// Counts an answered request for the quotas, and queues its answer; the bytes of the answer.
    fn send(&mut self, slot: &Answered, mut pieces: Vec<LogSlice>) -> usize {
        let response_bytes = pieces.iter().map(LogSlice::len).sum();
        let &Answered { row, version, request_bytes, busy } = slot;
        let client_id = self.client_id.as_deref();
        let taken = Taken { key: row.api().key, client_id, request_bytes, response_bytes, busy };
        let wait = self.shared.dispatch.hold_back(row, version, &taken, &mut pieces);
        self.mute(wait);
        if self.left.is_some() {
            return response_bytes;
        }
        self.outbound.push(pieces)
    }

    fn verdict(&self) -> Option<Ended> {
        match self.watch.verdict() {
            Verdict::Go => None,
            // A long wait of ours (Fetch, JoinGroup) is no idleness of the client's.
            Verdict::Idle if self.muted.is_some() || (!self.pipeline.is_empty() && self.outbound.queued_bytes() == 0) => {
                self.watch.pardon(self.shared.coarse_now());
                None
            }
            Verdict::Look => {
                self.watch.seen();
                self.stream.as_ref().is_some_and(inbound::has_ended).then_some(Ended::ByClient)
            }
            Verdict::Idle => Some(Ended::Idle),
            Verdict::TooSlow => Some(Ended::TooSlow),
            Verdict::NotReading => Some(Ended::NotReading),
            Verdict::Stop => Some(Ended::Shutdown),
        }
    }

    /// True if nothing is read while a wait goes on that may take as long as the client says: its end does not come by itself then.
    fn is_deaf(&self) -> bool {
        let waits = self.pipeline.back().is_some_and(|slot| matches!(slot.work, Work::Reading(_)));
        self.ending.is_some() || (waits && !self.reads)
    }

    /// True once the client has gone, or the server stops, and nothing is left that must be finished.
    fn is_over(&self) -> bool {
        // To a client that has gone nothing needs to be sent; one that the server leaves gets its answers.
        let client_gone = self.left.is_some();
        if !client_gone && !self.watch.is_draining() {
            return false;
        }
        let more = || self.may_begin() && self.ending.is_none() && matches!(self.inbound.peek(), Ok(Some((key, _))) if self.may_start(key));
        if client_gone && more() {
            return false;
        }
        let must_finish = |slot: &Slot| match slot.work {
            Work::Appending(_) | Work::Running(_) => true,
            Work::Waiting(_) | Work::Done(_) => !client_gone,
            Work::Reading(_) => false,
        };
        !self.pipeline.iter().any(must_finish) && (client_gone || self.outbound.queued_bytes() == 0)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.outbound.queued_bytes() > 0) else { return Ok(false) };
        let mut sent = 0;
        let outcome = self.outbound.poll_flush(stream, cx, &mut sent);
        if sent > 0 {
            self.watch.progress(self.shared.coarse_now());
        }
        self.note_unsent(sent);
        match outcome {
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(sent > 0),
        }
    }

    /// Counts the memory that waits for the client to read; costs nothing while the socket takes all.
    fn note_unsent(&mut self, sent: usize) {
        let unsent_bytes = self.outbound.memory_bytes();
        if unsent_bytes != self.unsent_bytes {
            let total = &self.shared.metrics.unsent_bytes;
            total.fetch_add(unsent_bytes as u64, Ordering::Relaxed);
            total.fetch_sub(self.unsent_bytes as u64, Ordering::Relaxed);
            self.unsent_bytes = unsent_bytes;
        }
        if self.outbound.queued_bytes() > 0 {
            self.watch.answers_wait(self.shared.coarse_now(), sent);
        } else {
            self.watch.answers_sent();
        }
    }

    /// Moves requests on; queues the answers of those at the front that are ready.
    fn poll_pipeline(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let mut progress = false;
        // Only the youngest request can be appending: nothing starts behind it.
        if let Some(slot) = self.pipeline.back_mut()
            && let Work::Appending(appending) = &mut slot.work
            && let Poll::Ready(appended) = poll_timed(&*self.shared.env.clock, self.timed, &mut slot.busy, || appending.as_mut().poll(cx))
        {
            slot.work = match appended {
                Appended::Done(answer) => Work::Done(answer),
                Appended::Waiting(waiting) => Work::Waiting(waiting),
            };
            progress = true;
        }
        while let Some(slot) = self.pipeline.front_mut() {
            if let Work::Waiting(future) | Work::Reading(future) | Work::Running(future) = &mut slot.work {
                let polled = poll_timed(&*self.shared.env.clock, self.timed, &mut slot.busy, || future.as_mut().poll(cx));
                let Poll::Ready(answer) = polled else { break };
                slot.work = Work::Done(answer);
            }
            let Some(Slot { work: Work::Done(answer), row, version, busy, started_at, request_bytes, .. }) =
                self.pipeline.pop_front_if(|slot| matches!(slot.work, Work::Done(_)))
            else {
                break;
            };
            progress = true;
            let answered = Answered { row, version, request_bytes, busy };
            let response_bytes = match answer {
                Answer::Nothing => self.send(&answered, Vec::new()),
                Answer::Frame(pieces) => self.send(&answered, pieces),
                Answer::Close(reason) => return Err(Ended::Refused { name: row.api().name, reason }),
            };
            let latency = self.shared.env.clock.monotonic().saturating_sub(started_at);
            self.shared.metrics.api(row).answered(request_bytes, response_bytes, latency);
            self.watch.progress(self.shared.coarse_now());
        }
        Ok(progress)
    }

    /// Starts complete frames as far as the order allows.
    fn start_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let mut progress = false;
        while !self.watch.is_draining()
            && self.muted.is_none()
            && let Some((key, version)) = self.inbound.peek()?
            && self.may_start(key)
            && let Some((frame, charge)) = self.inbound.take_frame()?
        {
            progress = true;
            self.start(key, version, frame, charge)?;
            self.poll_pipeline(cx)?;
        }
        Ok(progress)
    }

    fn may_start(&self, key: i16) -> bool {
        if self.outbound.queued_bytes() > OUTBOUND_BYTES_MAX {
            return false;
        }
        match self.pipeline.back().map(|slot| &slot.work) {
            None => true,
            Some(Work::Waiting(_) | Work::Done(_)) => key == PRODUCE_KEY && self.pipeline.len() < PIPELINE_MAX,
            Some(Work::Appending(_) | Work::Reading(_) | Work::Running(_)) => false,
        }
    }

    fn start(&mut self, key: i16, version: i16, frame: InboundFrame, charge: Charge) -> Result<(), Ended> {
        let row = api_table::find(key).ok_or(Ended::UnknownApi(key))?;
        let (api, request_bytes) = (row.api(), frame.bytes.len());
        if !(api.min_version..=api.max_version).contains(&version) {
            if key == API_VERSIONS_KEY {
                let correlation_id = guard::correlation_id(&frame.bytes).unwrap_or_default();
                self.push(row, version, Work::Done(api_versions::unsupported_version(correlation_id)), request_bytes, charge);
                return Ok(());
            }
            return Err(Ended::UnsupportedVersion { name: api.name, version });
        }
        let mut charge = charge;
        match self.route(row, version, frame, &mut charge) {
            Ok(work) => {
                self.push(row, version, work, request_bytes, charge);
                Ok(())
            }
            Err(reason) => {
                self.shared.metrics.api(row).refused();
                Err(Ended::Malformed { name: api.name, version, reason })
            }
        }
    }

    /// Checks and decodes the request and makes its future.
    fn route(&mut self, row: Row, version: i16, frame: InboundFrame, charge: &mut Charge) -> Result<Work, String> {
        let api = row.api();
        let malformed = |error: Malformed| error.to_string();
        let head = guard::request_head(&frame.bytes, (api.header_version)(version)).map_err(malformed)?;
        let (correlation_id, body_start) = (head.correlation_id, head.body_start);
        if self.client_id.as_deref() != head.client_id {
            self.client_id = head.client_id.map(Arc::from);
        }
        charge.raise_to(frame.bytes.len());
        let (client_id, session) = (self.client_id.clone(), Arc::clone(&self.session));
        let incoming = Incoming { row, version, correlation_id, client_id, session, frame, body_start };
        Arc::clone(&self.shared.dispatch).dispatch(incoming, charge)
    }

    fn push(&mut self, row: Row, version: i16, work: Work, request_bytes: usize, charge: Charge) {
        let started_at = self.shared.env.clock.monotonic();
        self.timed = self.shared.dispatch.measures_time();
        let busy = Duration::ZERO;
        self.pipeline.push_back(Slot { row, version, work, busy, started_at, request_bytes, _charge: charge });
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        self.reads = !self.watch.is_draining() && self.may_read(cx);
        let Some(stream) = self.stream.as_mut().filter(|_| self.reads) else { return Ok(false) };
        match self.inbound.poll_fill(stream, cx) {
            Poll::Ready(Ok(())) if self.inbound.is_eof() => Err(Ended::ByClient),
            Poll::Ready(Ok(())) => {
                self.watch.received(self.shared.coarse_now(), self.inbound.buffered());
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => {
                self.reads = !self.inbound.waits_for_room();
                Ok(false)
            }
        }
    }

    fn may_read(&self, cx: &Context<'_>) -> bool {
        if self.outbound.queued_bytes() > OUTBOUND_BYTES_MAX {
            return false;
        }
        match self.pipeline.back().map(|slot| &slot.work) {
            None => true,
            Some(Work::Waiting(_) | Work::Done(_)) if self.pipeline.len() < PIPELINE_MAX => self.shared.budget.has_room(cx.waker()),
            Some(_) => self.inbound.buffered() < READ_BEHIND_WAIT_BYTES,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.metrics.unsent_bytes.fetch_sub(self.unsent_bytes as u64, Ordering::Relaxed);
        self.shared.dispatch.gone(self.session.peer);
    }
}

#[cfg(test)]
mod tests;
