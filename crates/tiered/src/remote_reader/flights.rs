//! Single flight: work that many wait for is done once, in a task of its own, and goes on when nobody waits any more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone_common::Env;
use tokio::sync::watch;

use crate::store::StoreError;

type Outcome<V> = Option<Result<V, StoreError>>;

/// The flights of one kind under way.
pub(super) struct Flights<K, V> {
    name: &'static str,
    env: Env,
    under_way: Arc<Mutex<HashMap<K, watch::Receiver<Outcome<V>>>>>,
}

/// A seat in a flight.
pub(super) enum Seat<V> {
    /// It was there already.
    Ready(V),
    /// Somebody is on the way.
    Pending(watch::Receiver<Outcome<V>>),
}

impl<V: Clone> Seat<V> {
    /// Waits for the outcome. Dropping the future does not stop the work.
    pub(super) async fn wait(self) -> Result<V, StoreError> {
        let mut receiver = match self {
            Seat::Ready(value) => return Ok(value),
            Seat::Pending(receiver) => receiver,
        };
        let outcome = receiver.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(StoreError::Unavailable("loading was given up".to_owned())))
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    pub(super) fn new(name: &'static str, env: Env) -> Self {
        Self { name, env, under_way: Arc::default() }
    }

    /// Joins the flight for `key`, or starts it with `work`. `present` is asked again once no flight is under way: `work` makes its result
    /// present before its flight ends.
    pub(super) fn join<W, F>(&self, key: &K, present: impl FnOnce() -> Option<V>, work: W) -> Seat<V>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<V, StoreError>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(receiver) = under_way.get(key) {
            return Seat::Pending(receiver.clone());
        }
        if let Some(value) = present() {
            return Seat::Ready(value);
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver.clone());
        drop(under_way);
        // Leaves the map however the task ends, a panic included.
        let landing = Landing { key: key.clone(), under_way: Arc::clone(&self.under_way) };
        let work = work();
        let tasks = self.env.tasks.clone();
        self.env.tasks.spawn(self.name, async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = tasks.stopped() => Err(StoreError::Unavailable("the broker stops".to_owned())),
            };
            drop(landing);
            let _ = sender.send(Some(outcome));
        });
        Seat::Pending(receiver)
    }
}

struct Landing<K: Eq + Hash, V> {
    key: K,
    under_way: Arc<Mutex<HashMap<K, watch::Receiver<Outcome<V>>>>>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}
