//! The Kafka listener as a component: `Server::bind`, `Server::run`.
//!
//! Overview: one accept loop spawns a task per connection; a reaper looks at all connections once a second and ends those that are idle or whose
//! frame does not come in. When the tasks' group is asked to stop, nothing new is accepted or begun, requests under way get [`DRAIN_TIME`], then
//! every connection is closed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};

use crate::budget::MemoryBudget;
use crate::connection::{Connection, Crowded, Ended, Verdict, Watch};
use crate::context::Services;
use crate::dispatch::{Dispatch, Handlers};
use crate::limits::{ConnectionLimits, DRAIN_TIME, Limits};
use crate::metrics::ServerMetrics;

/// How often the reaper looks, and the grain of the coarse clock.
const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left, mostly).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 1024;
/// Longest time that a connection waits which comes too early.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Sockets that are kept waiting; those beyond are closed at once.
const HELD_MAX: usize = 1_000;
/// How often a draining server looks whether its connections are gone.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What all connections share.
pub(crate) struct Shared {
    pub env: Env,
    pub dispatch: Arc<dyn Dispatch>,
    pub limits: Limits,
    pub metrics: Arc<ServerMetrics>,
    pub budget: Arc<MemoryBudget>,
    /// Milliseconds of the monotonic clock, moved once a second: good enough for deadlines, and free to read.
    coarse_now_ms: AtomicU64,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    limits: ConnectionLimits,
    /// Sockets of addresses that connect too often, kept waiting before they are closed.
    held: usize,
    next_id: u64,
    /// Those whose client is there.
    present: usize,
    /// Without an address: clients that have gone, and whose requests run on.
    by_id: HashMap<u64, (Option<IpAddr>, Arc<Watch>)>,
    by_ip: HashMap<IpAddr, usize>,
}

impl Shared {
    pub(crate) fn coarse_now(&self) -> u64 {
        self.coarse_now_ms.load(Ordering::Relaxed)
    }

    fn move_clock(&self) {
        let now = self.env.clock.monotonic();
        self.coarse_now_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a new connection in; `None` at a limit.
    fn admit(&self, ip: IpAddr) -> Option<(u64, Arc<Watch>)> {
        let mut open = self.open.lock();
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        // Requests of clients that have gone hold no place, yet may not be any number.
        let crowded = open.present >= open.limits.all || open.by_id.len() >= open.limits.all.saturating_mul(2);
        if crowded || from_ip >= open.limits.of(ip) {
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        let watch = Arc::new(Watch::new(self.coarse_now()));
        open.by_id.insert(id, (Some(ip), Arc::clone(&watch)));
        *open.by_ip.entry(ip).or_insert(0) += 1;
        open.present += 1;
        self.metrics.connections.store(open.present as u64, Ordering::Relaxed);
        Some((id, watch))
    }

    /// Gives a connection's place to another.
    fn release(&self, id: u64) {
        let mut open = self.open.lock();
        let Some(ip) = open.by_id.get_mut(&id).and_then(|(ip, _)| ip.take()) else { return };
        if let Some(count) = open.by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&ip);
            }
        }
        open.present -= 1;
        self.metrics.connections.store(open.present as u64, Ordering::Relaxed);
    }

    fn forget(&self, id: u64) {
        self.release(id);
        self.open.lock().by_id.remove(&id);
    }

    fn for_each_open(&self, visit: impl Fn(&Watch)) -> usize {
        let open = self.open.lock();
        open.by_id.values().for_each(|(_, watch)| visit(watch));
        open.by_id.len()
    }
}

/// Takes the connection out of the books however its task ends.
pub(crate) struct Admission {
    shared: Arc<Shared>,
    id: u64,
}

impl Admission {
    /// The client has gone: another may have its place, although requests of its run on.
    pub(crate) fn release(&self) {
        self.shared.release(self.id);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

/// A socket that listens; connections wait in the kernel until a [`Server`] runs on it.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundListener {
    /// Binds `listen` ("host:port"; port 0 for any free one). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The name does not resolve, or the address can't be bound.
    pub async fn bind(listen: &str) -> io::Result<Self> {
        let mut last_error = io::Error::new(io::ErrorKind::InvalidInput, format!("'{listen}' names no address"));
        for address in tokio::net::lookup_host(listen).await? {
            match listen_on(address) {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    return Ok(Self { listener, address });
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The Kafka listener.
pub struct Server {
    listener: BoundListener,
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Server {
    /// A server on a bound socket; it serves once [`Server::run`] is called. Limits come from the broker's settings.
    pub fn new(listener: BoundListener, services: Arc<Services>, tasks: Tasks) -> Self {
        let limits = Limits::from_configs(&services.config.broker_configs);
        Self::with_limits(listener, services, tasks, limits)
    }

    /// As [`Server::new`], with limits of the caller's.
    pub fn with_limits(listener: BoundListener, services: Arc<Services>, tasks: Tasks, limits: Limits) -> Self {
        let metrics = Arc::new(ServerMetrics::new(limits.queued_request_bytes_max));
        let env = services.env.clone();
        let dispatch = Handlers::new(services, &limits, &metrics);
        Self::over(listener, dispatch, env, tasks, limits, metrics)
    }

    pub(crate) fn over(
        listener: BoundListener,
        dispatch: Arc<dyn Dispatch>,
        env: Env,
        tasks: Tasks,
        limits: Limits,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        let budget = Arc::clone(&metrics.budget);
        let fixed = ConnectionLimits { all: limits.connections_max, per_ip: limits.connections_per_ip_max, ..ConnectionLimits::default() };
        let open = Mutex::new(OpenConnections { limits: fixed, ..OpenConnections::default() });
        let shared = Shared { env, dispatch, limits, metrics, budget, coarse_now_ms: AtomicU64::new(0), open };
        shared.move_clock();
        Self { listener, shared: Arc::new(shared), tasks }
    }

    /// Binds `listen` and makes a server on it.
    ///
    /// # Errors
    /// As [`BoundListener::bind`].
    pub async fn bind(listen: &str, services: Arc<Services>, tasks: Tasks) -> io::Result<Self> {
        Ok(Self::new(BoundListener::bind(listen).await?, services, tasks))
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.address
    }

    /// The server's counters.
    pub fn metrics(&self) -> Arc<ServerMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Accepts and serves until the tasks' group is asked to stop; returns when every connection is closed.
    pub async fn run(self) {
        let shared = Arc::clone(&self.shared);
        let reaper = async {
            loop {
                shared.env.clock.sleep(REAP_INTERVAL).await;
                shared.move_clock();
                if let Some(limits) = shared.dispatch.connection_limits() {
                    shared.open.lock().limits = limits;
                }
                let now = shared.coarse_now();
                let crowded = Crowded {
                    requests: shared.budget.is_full(),
                    answers: shared.metrics.unsent_bytes.load(Ordering::Relaxed) > shared.limits.unread_bytes_max as u64,
                };
                shared.for_each_open(|watch| {
                    watch.judge(now, shared.limits.idle_max, crowded);
                });
            }
        };
        tokio::select! {
            () = self.accept_all() => {}
            () = reaper => {}
            () = self.tasks.stopped() => {}
        }
        drop(self.listener);
        drain(&self.shared).await;
    }

    async fn accept_all(&self) {
        loop {
            match self.listener.listener.accept().await {
                Ok((stream, peer)) => {
                    // An IPv4 address on a listener for both kinds is the same as on one of its own: rules name it in one way.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let (all, address) = self.shared.dispatch.too_early(peer.ip());
                    if address > Duration::ZERO {
                        self.turn_away(stream, address);
                        continue;
                    }
                    if all > Duration::ZERO {
                        self.shared.env.clock.sleep(all.min(ACCEPT_PAUSE_MAX)).await;
                    }
                    self.accepted(stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    self.shared.env.clock.sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Closes a connection that comes too early, after a while, so that its client does not try again at once (KIP-612).
    fn turn_away(&self, stream: TcpStream, early: Duration) {
        self.shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
        let mut open = self.shared.open.lock();
        if open.held >= HELD_MAX {
            return;
        }
        open.held += 1;
        drop(open);
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn("connection-held", async move {
            shared.env.clock.sleep(early.min(ACCEPT_PAUSE_MAX)).await;
            drop(stream);
            shared.open.lock().held -= 1;
        });
    }

    fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        let Some((id, watch)) = self.shared.admit(peer.ip()) else {
            self.shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "connection refused: max.connections or max.connections.per.ip is reached");
            return;
        };
        self.shared.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { shared: Arc::clone(&self.shared), id };
        let options = stream.set_nodelay(true).and_then(|()| socket2::SockRef::from(&stream).set_keepalive(true));
        if let Err(error) = options {
            tracing::debug!(%peer, %error, "could not set socket options");
        }
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn("connection", async move {
            let ended = Connection::new(Arc::clone(&shared), stream, peer, watch, admission).run().await;
            note_end(&shared, peer, &ended);
        });
    }
}

fn note_end(shared: &Shared, peer: SocketAddr, ended: &Ended) {
    if ended.is_violation() {
        shared.metrics.violations.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%peer, reason = %ended, "closed a connection");
    } else {
        if matches!(ended, Ended::Idle) {
            shared.metrics.idle_closed.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(%peer, reason = %ended, "connection ended");
    }
}

/// Lets requests under way end, then closes all.
async fn drain(shared: &Shared) {
    let clock = &shared.env.clock;
    let deadline = clock.monotonic() + DRAIN_TIME;
    while shared.for_each_open(Watch::drain) > 0 && clock.monotonic() < deadline {
        clock.sleep(DRAIN_POLL).await;
    }
    let hard_deadline = clock.monotonic() + DRAIN_TIME;
    while shared.for_each_open(|watch| watch.end(Verdict::Stop)) > 0 && clock.monotonic() < hard_deadline {
        clock.sleep(DRAIN_POLL).await;
    }
}
