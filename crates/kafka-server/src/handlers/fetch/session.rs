//! Incremental fetch sessions (KIP-227): a client names its partitions once, then only what changes; the answer names only partitions that have
//! something to say.
//!
//! Overview: the cache maps session ids to sessions, each behind a lock of its own, held only while the request is taken in and while its answer
//! is put together, never while the Fetch waits. A session's epoch counts its requests: a request with another epoch than the next one is refused,
//! so a client and the broker never disagree about what the session holds.
//!
//! Fairness: a partition that returned records moves to the end of the order, so that one busy partition can't use up every answer's bytes.
//!
//! Bounds: sessions (`max.incremental.fetch.session.cache.slots`) and partitions of all sessions; beyond them a client gets no session, and sends
//! its whole list each time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use siltstone_common::TopicId;
use siltstone_common::entropy::Entropy;

use crate::metrics::ServerMetrics;

/// A session may give way to a larger one, or to any if it was unused for so long, after this time, ms (Kafka's value).
const EVICTION_AGE_MS: u64 = 120_000;
/// Partitions in all sessions together: about 100 MB.
const PARTITIONS_MAX: usize = 1_000_000;
/// Room that a session may keep beyond twice what it uses.
const SLACK: usize = 32;

/// "No session" on the wire.
pub(crate) const NO_SESSION: i32 = 0;
/// Epoch of a request that names all its partitions and asks for a session.
const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that names all its partitions and wants no session.
const FINAL_EPOCH: i32 = -1;

/// A topic as the client named it: by name up to version 12, by id (and an empty name) from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TopicRef {
    pub name: Arc<str>,
    pub id: TopicId,
}

/// What a client asks of one partition. `topic` is a position in the list of topics that goes with it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub topic: u32,
    pub partition: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// What an answer says about one partition, as far as a session looks at it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_records: bool,
    pub has_error: bool,
    pub diverges: bool,
}

/// A request's part in the protocol of sessions.
#[derive(Clone, Debug)]
pub(crate) struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    /// Topics are named by id.
    pub by_id: bool,
    pub topics: Vec<TopicRef>,
    pub asked: Vec<Asked>,
    /// Partitions to be dropped from the session.
    pub forgotten: Vec<(TopicRef, i32)>,
}

/// What a request comes to: the partitions to read, and what is to be done with the answer.
pub(crate) struct FetchContext {
    pub topics: Arc<Vec<TopicRef>>,
    pub asked: Vec<Asked>,
    kind: ContextKind,
    by_id: bool,
}

enum ContextKind {
    Sessionless,
    /// A session is to be made of the answer.
    Full,
    /// The session, and the epoch it must still have when the answer is there.
    Incremental(Arc<Entry>, i32),
}

/// The session's side of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub session_id: i32,
    /// By position in `asked`: whether the partition is in the answer.
    pub included: Vec<bool>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Cached {
    fetch_offset: i64,
    max_bytes: i32,
    current_leader_epoch: i32,
    last_fetched_epoch: i32,
    high_watermark: i64,
    log_start_offset: i64,
}

/// What was never told to the client.
const NEVER_TOLD: i64 = -1;

impl Cached {
    fn new(asked: &Asked) -> Self {
        Self {
            fetch_offset: asked.fetch_offset,
            max_bytes: asked.max_bytes,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            high_watermark: NEVER_TOLD,
            log_start_offset: NEVER_TOLD,
        }
    }

    /// Takes a new request in; what the client was told stays.
    fn ask(&mut self, asked: &Asked) {
        *self = Self { high_watermark: self.high_watermark, log_start_offset: self.log_start_offset, ..Self::new(asked) };
    }

    /// Notes what the client is told; whether there is anything to tell.
    fn tell(&mut self, told: &Told) -> bool {
        let news = told.has_records
            || told.has_error
            || told.diverges
            || self.high_watermark != told.high_watermark
            || self.log_start_offset != told.log_start_offset;
        // After an error the partition is told again once the error is gone.
        self.high_watermark = if told.has_error { NEVER_TOLD } else { told.high_watermark };
        self.log_start_offset = told.log_start_offset;
        news
    }
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    topics: Arc<Vec<TopicRef>>,
    topic_positions: HashMap<TopicRef, u32>,
    partitions: IndexMap<(u32, i32), Cached>,
}

#[derive(Debug)]
struct Entry {
    id: i32,
    created_ms: u64,
    last_used_ms: AtomicU64,
    partitions: AtomicUsize,
    session: Mutex<Session>,
}

impl Session {
    fn topic_position(&mut self, topic: &TopicRef) -> u32 {
        if let Some(position) = self.topic_positions.get(topic) {
            return *position;
        }
        let position = u32::try_from(self.topics.len()).unwrap_or(u32::MAX);
        Arc::make_mut(&mut self.topics).push(topic.clone());
        self.topic_positions.insert(topic.clone(), position);
        position
    }

    fn update(&mut self, request: &SessionRequest) {
        for asked in &request.asked {
            let Some(topic) = request.topics.get(asked.topic as usize) else { continue };
            let position = self.topic_position(topic);
            self.partitions.entry((position, asked.partition)).and_modify(|cached| cached.ask(asked)).or_insert_with(|| Cached::new(asked));
        }
        if !request.forgotten.is_empty() {
            let forgotten: HashSet<(u32, i32)> =
                request.forgotten.iter().filter_map(|(topic, partition)| Some((*self.topic_positions.get(topic)?, *partition))).collect();
            self.partitions.retain(|key, _| !forgotten.contains(key));
            self.release();
        }
    }

    /// Lets go of what forgotten partitions have left: topics without partitions, and room. Positions of topics change.
    fn release(&mut self) {
        let live: HashSet<u32> = self.partitions.keys().map(|(topic, _)| *topic).collect();
        let loose = |held: usize, used: usize| held > 2 * used + SLACK;
        if !loose(self.topics.len(), live.len()) && !loose(self.partitions.capacity(), self.partitions.len()) {
            return;
        }
        let (old, partitions) = (std::mem::take(&mut self.topics), std::mem::take(&mut self.partitions));
        self.topic_positions = HashMap::with_capacity(live.len());
        self.partitions = IndexMap::with_capacity(partitions.len());
        for ((topic, partition), cached) in partitions {
            let Some(topic) = old.get(topic as usize) else { continue };
            let position = self.topic_position(topic);
            self.partitions.insert((position, partition), cached);
        }
    }

    fn asked(&self) -> Vec<Asked> {
        let asked = |(&(topic, partition), cached): (&(u32, i32), &Cached)| Asked {
            topic,
            partition,
            fetch_offset: cached.fetch_offset,
            max_bytes: cached.max_bytes,
            current_leader_epoch: cached.current_leader_epoch,
            last_fetched_epoch: cached.last_fetched_epoch,
        };
        self.partitions.iter().map(asked).collect()
    }

    /// Notes the answer; which partitions it names.
    fn tell(&mut self, asked: &[Asked], told: &[Told]) -> Vec<bool> {
        let mut with_records = HashSet::new();
        let mut tell = |(asked, told): (&Asked, &Told)| {
            let key = (asked.topic, asked.partition);
            if told.has_records {
                with_records.insert(key);
            }
            self.partitions.get_mut(&key).is_none_or(|cached| cached.tell(told))
        };
        let included = asked.iter().zip(told).map(&mut tell).collect();
        self.rotate(&with_records);
        included
    }

    /// Moves partitions that returned records to the end, unless they are there already.
    fn rotate(&mut self, moved: &HashSet<(u32, i32)>) {
        let tail_begin = self.partitions.len().saturating_sub(moved.len());
        if moved.is_empty() || self.partitions.keys().skip(tail_begin).all(|key| moved.contains(key)) {
            return;
        }
        let partitions = std::mem::take(&mut self.partitions);
        let (to_end, kept): (Vec<_>, Vec<_>) = partitions.into_iter().partition(|(key, _)| moved.contains(key));
        self.partitions = kept.into_iter().chain(to_end).collect();
    }
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    /// Most partitions of all sessions together.
    partitions_max: usize,
    sessions: Mutex<HashMap<i32, Arc<Entry>>>,
    metrics: Arc<ServerMetrics>,
}

impl FetchSessions {
    pub(crate) fn new(slots: usize, metrics: Arc<ServerMetrics>) -> Self {
        Self { slots, partitions_max: PARTITIONS_MAX, sessions: Mutex::default(), metrics }
    }

    fn remove(&self, id: i32) {
        let mut sessions = self.sessions.lock();
        sessions.remove(&id);
        self.metrics.fetch_sessions.store(sessions.len() as u64, Ordering::Relaxed);
    }

    /// Partitions of all sessions.
    fn held(&self) -> usize {
        held(&self.sessions.lock())
    }

    /// Takes a request in. A session that grows past the limit of all ends: its client goes on with full requests.
    pub(crate) fn begin(&self, request: SessionRequest, now_ms: u64) -> Result<FetchContext, ResponseError> {
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            // A full request ends the session that it names.
            if request.session_id != NO_SESSION {
                self.remove(request.session_id);
            }
            let kind = if request.session_epoch == FINAL_EPOCH { ContextKind::Sessionless } else { ContextKind::Full };
            let SessionRequest { topics, asked, by_id, .. } = request;
            return Ok(FetchContext { topics: Arc::new(topics), asked: without_repeats(asked), kind, by_id });
        }
        let entry = self.sessions.lock().get(&request.session_id).cloned().ok_or(ResponseError::FetchSessionIdNotFound)?;
        let mut session = entry.session.lock();
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_id != request.by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        session.update(&request);
        let by_id = session.by_id;
        if session.partitions.is_empty() {
            drop(session);
            self.remove(entry.id);
            return Ok(FetchContext { topics: Arc::default(), asked: Vec::new(), kind: ContextKind::Sessionless, by_id });
        }
        let grown = session.partitions.len() > entry.partitions.swap(session.partitions.len(), Ordering::Relaxed);
        if grown && self.held() > self.partitions_max {
            drop(session);
            self.remove(entry.id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        session.epoch = next_epoch(session.epoch);
        entry.last_used_ms.store(now_ms, Ordering::Relaxed);
        let (topics, asked, epoch) = (Arc::clone(&session.topics), session.asked(), session.epoch);
        drop(session);
        Ok(FetchContext { topics, asked, kind: ContextKind::Incremental(entry, epoch), by_id })
    }

    /// Notes what the answer says (`told` by position in the context's `asked`): the session's id, and which partitions the answer names.
    pub(crate) fn settle(
        &self,
        context: &FetchContext,
        told: &[Told],
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Result<Settled, ResponseError> {
        debug_assert_eq!(context.asked.len(), told.len());
        let all = || vec![true; told.len()];
        match &context.kind {
            ContextKind::Sessionless => Ok(Settled { session_id: NO_SESSION, included: all() }),
            ContextKind::Full => Ok(Settled { session_id: self.create(context, told, now_ms, entropy), included: all() }),
            ContextKind::Incremental(entry, epoch) => {
                let mut session = entry.session.lock();
                if session.epoch != *epoch {
                    return Err(ResponseError::InvalidFetchSessionEpoch);
                }
                Ok(Settled { session_id: entry.id, included: session.tell(&context.asked, told) })
            }
        }
    }

    /// Makes a session if there is room, or if another has to give way.
    fn create(&self, context: &FetchContext, told: &[Told], now_ms: u64, entropy: &dyn Entropy) -> i32 {
        let size = context.asked.len();
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.slots && !self.evict_one(&mut sessions, size, now_ms) {
            return NO_SESSION;
        }
        if held(&sessions) + size > self.partitions_max {
            return NO_SESSION;
        }
        let id = loop {
            let id = i32::try_from(entropy.below(i32::MAX as u64)).unwrap_or_default();
            if id != NO_SESSION && !sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            by_id: context.by_id,
            topics: Arc::clone(&context.topics),
            topic_positions: context.topics.iter().cloned().zip(0..).collect(),
            partitions: context.asked.iter().map(|asked| ((asked.topic, asked.partition), Cached::new(asked))).collect(),
        };
        session.tell(&context.asked, told);
        let entry = Entry {
            id,
            created_ms: now_ms,
            last_used_ms: AtomicU64::new(now_ms),
            partitions: AtomicUsize::new(size),
            session: Mutex::new(session),
        };
        sessions.insert(id, Arc::new(entry));
        self.metrics.fetch_sessions.store(sessions.len() as u64, Ordering::Relaxed);
        id
    }

    /// Removes the session unused for longest if that is long, else the smallest of those that are old, if it is smaller than the new one.
    fn evict_one(&self, sessions: &mut HashMap<i32, Arc<Entry>>, new_size: usize, now_ms: u64) -> bool {
        let old = |since_ms: u64| now_ms.saturating_sub(since_ms) > EVICTION_AGE_MS;
        let unused = sessions.values().min_by_key(|entry| entry.last_used_ms.load(Ordering::Relaxed));
        let victim = match unused {
            Some(entry) if old(entry.last_used_ms.load(Ordering::Relaxed)) => Some(entry.id),
            _ => {
                let size = |entry: &&Arc<Entry>| entry.partitions.load(Ordering::Relaxed);
                let smallest = sessions.values().filter(|entry| old(entry.created_ms)).min_by_key(size);
                smallest.filter(|entry| size(entry) < new_size).map(|entry| entry.id)
            }
        };
        let Some(id) = victim else { return false };
        self.metrics.fetch_session_evictions.fetch_add(1, Ordering::Relaxed);
        sessions.remove(&id).is_some()
    }
}

fn held(sessions: &HashMap<i32, Arc<Entry>>) -> usize {
    sessions.values().map(|entry| entry.partitions.load(Ordering::Relaxed)).sum()
}

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        ..0 => FINAL_EPOCH,
        _ => epoch + 1,
    }
}

/// A partition named twice counts as it was named last.
fn without_repeats(asked: Vec<Asked>) -> Vec<Asked> {
    if asked.len() < 2 {
        return asked;
    }
    let mut by_partition: IndexMap<(u32, i32), Asked> = IndexMap::with_capacity(asked.len());
    for asked in asked {
        by_partition.insert((asked.topic, asked.partition), asked);
    }
    by_partition.into_values().collect()
}

#[cfg(test)]
mod tests;
