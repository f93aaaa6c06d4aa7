//! A store in memory, for tests and simulations: keeps nothing across processes, but its handle can be opened anew by another service.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use siltstone_common::Env;

use super::events::EventLog;
use super::lease::Leases;
use super::{
    LeaseId, MetadataStore, PAGE_ROWS_MAX, Page, Precondition, Range, Row, StoreError, StoreEvent, StoreWatch, Txn, TxnOutcome, Write,
};

#[derive(Debug)]
struct Value {
    bytes: Bytes,
    revision: u64,
    lease: Option<LeaseId>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Bytes, Value>,
    revision: u64,
    leases: Leases,
}

/// See the module. Clones share the rows.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    events: Arc<EventLog>,
    env: Env,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(env: Env) -> Self {
        Self { state: Arc::default(), events: EventLog::new(0), env }
    }

    fn end_lease(state: &Mutex<State>, events: &EventLog, lease: LeaseId) {
        let mut state = state.lock();
        state.leases.end(lease);
        let keys: Vec<_> = state.rows.iter().filter(|(_, value)| value.lease == Some(lease)).map(|(key, _)| key.clone()).collect();
        state.apply(keys.into_iter().map(Write::Delete).collect(), events);
    }
}

impl State {
    fn row(&self, key: &[u8]) -> Option<Row> {
        let (key, value) = self.rows.get_key_value(key)?;
        Some(Row { key: key.clone(), value: value.bytes.clone(), revision: value.revision })
    }

    fn holds(&self, condition: &Precondition) -> bool {
        match condition {
            Precondition::Revision(key, revision) => self.rows.get(key).map_or(0, |value| value.revision) == *revision,
            Precondition::Exists(key) => self.rows.contains_key(key),
        }
    }

    fn apply(&mut self, writes: Vec<Write>, events: &EventLog) -> u64 {
        if writes.is_empty() {
            return self.revision;
        }
        self.revision += 1;
        let revision = self.revision;
        let mut rows = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    self.rows.insert(key.clone(), Value { bytes: value.clone(), revision, lease });
                    rows.push((key, Some(value)));
                }
                Write::Delete(key) => {
                    self.rows.remove(&key);
                    rows.push((key, None));
                }
            }
        }
        events.append([StoreEvent { revision, rows: Arc::new(rows) }]);
        revision
    }
}

#[async_trait]
impl MetadataStore for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.state.lock().row(key))
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Row>>, StoreError> {
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.row(key)).collect())
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        let state = self.state.lock();
        let mut page = Page { revision: state.revision, ..Page::default() };
        if range.from >= range.to {
            return Ok(page);
        }
        let limit = range.limit.min(PAGE_ROWS_MAX);
        let rows = state.rows.range::<Bytes, _>((Bound::Included(&range.from), Bound::Excluded(&range.to)));
        let row = |(key, value): (&Bytes, &Value)| Row { key: key.clone(), value: value.bytes.clone(), revision: value.revision };
        page.rows =
            if range.reverse { rows.rev().take(limit + 1).map(row).collect() } else { rows.take(limit + 1).map(row).collect::<Vec<_>>() };
        page.more = page.rows.len() > limit;
        page.rows.truncate(limit);
        Ok(page)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        let mut state = self.state.lock();
        let now = self.env.clock.monotonic();
        for write in &txn.then {
            if let Write::Put { lease: Some(lease), .. } = write
                && !state.leases.alive(*lease, now)
            {
                return Err(StoreError::LeaseOver);
            }
        }
        if !txn.when.iter().all(|condition| state.holds(condition)) {
            return Ok(TxnOutcome::Conflict);
        }
        Ok(TxnOutcome::Committed(state.apply(txn.then, &self.events)))
    }

    async fn watch(&self, revision: u64) -> Result<StoreWatch, StoreError> {
        self.events.watch(revision)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.state.lock().leases.grant(self.env.clock.monotonic(), ttl);
        let (state, events, env) = (Arc::downgrade(&self.state), self.events.clone(), self.env.clone());
        self.env.tasks.spawn("metadata-lease", async move {
            while let Some(left) = left(&state, lease, env.clock.monotonic()) {
                tokio::select! {
                    () = env.clock.sleep(left) => {}
                    () = env.tasks.stopped() => return,
                }
            }
            if let Some(state) = state.upgrade() {
                Self::end_lease(&state, &events, lease);
            }
        });
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let alive = self.state.lock().leases.keep_alive(lease, self.env.clock.monotonic());
        if alive { Ok(()) } else { Err(StoreError::LeaseOver) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        Self::end_lease(&self.state, &self.events, lease);
        Ok(())
    }
}

fn left(state: &Weak<Mutex<State>>, lease: LeaseId, now: Duration) -> Option<Duration> {
    state.upgrade()?.lock().leases.left(lease, now)
}
