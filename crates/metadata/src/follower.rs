//! Moves the image forward by the store's watch, and keeps the recent steps for those who follow from elsewhere.
//!
//! Invariants: the image and its revision only move forward (I46); after a gap in the watch the rows are listed anew before anything is
//! decided on them. Crash consistency: holds no state that is not in the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use tokio::sync::watch;

use crate::api::MetadataError;
use crate::image::{ImageChange, MetadataImage};
use crate::rows;
use crate::store::{MetadataStore, Range, StoreError, StoreEvent, StoreWatch};

/// Most steps kept.
const KEPT_DELTAS_MAX: usize = 1024;
/// Most changed partitions and other items in the steps kept, which bounds their memory.
const KEPT_ITEMS_MAX: usize = 50_000;

/// A step of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDelta {
    /// The image's revision after it.
    pub revision: u64,
    /// What changed, in order.
    pub changes: Vec<ImageChange>,
}

impl ImageDelta {
    fn items(&self) -> usize {
        let of = |change: &ImageChange| match change {
            ImageChange::Topic(topic) => topic.partitions.len(),
            ImageChange::Partitions { partitions, .. } => partitions.len(),
            _ => 0,
        };
        1 + self.changes.iter().map(|change| 1 + of(change)).sum::<usize>()
    }
}

#[derive(Debug, Default)]
struct Kept {
    deltas: VecDeque<Arc<ImageDelta>>,
    items: usize,
    /// Every step after this revision is in `deltas`.
    compacted: u64,
}

/// The image now and the steps that led to it.
#[derive(Debug)]
pub(crate) struct DeltaLog {
    image: watch::Sender<Arc<MetadataImage>>,
    /// Revision of the store up to which everything is in the image.
    seen: watch::Sender<u64>,
    kept: Mutex<Kept>,
}

impl DeltaLog {
    pub(crate) fn new(image: MetadataImage, seen: u64) -> Arc<Self> {
        let kept = Mutex::new(Kept { compacted: image.revision, ..Kept::default() });
        Arc::new(Self { image: watch::Sender::new(Arc::new(image)), seen: watch::Sender::new(seen), kept })
    }

    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.image.subscribe()
    }

    /// Waits until the image shows everything up to `revision` of the store.
    pub(crate) async fn reached(&self, revision: u64) -> Result<(), MetadataError> {
        let reached = self.seen.subscribe().wait_for(|seen| *seen >= revision).await.map(|_| ());
        reached.map_err(|_| MetadataError::Unavailable("the metadata service is stopping".into()))
    }

    /// Steps after `revision`; `None` if they are not all kept any more, or that revision is yet to come.
    pub(crate) fn after(&self, revision: u64) -> Option<Vec<Arc<ImageDelta>>> {
        let kept = self.kept.lock();
        let head = kept.deltas.back().map_or(kept.compacted, |delta| delta.revision);
        if revision < kept.compacted || revision > head {
            return None;
        }
        let first = kept.deltas.partition_point(|delta| delta.revision <= revision);
        Some(kept.deltas.range(first..).cloned().collect())
    }

    /// Takes one step.
    fn step(&self, image: MetadataImage, delta: ImageDelta) {
        debug_assert!(delta.revision > self.image.borrow().revision, "the image moves forward (I46)");
        let mut kept = self.kept.lock();
        kept.items += delta.items();
        kept.deltas.push_back(Arc::new(delta));
        while kept.deltas.len() > KEPT_DELTAS_MAX || kept.items > KEPT_ITEMS_MAX {
            let Some(oldest) = kept.deltas.pop_front() else { break };
            kept.items -= oldest.items();
            kept.compacted = oldest.revision;
        }
        self.image.send_replace(Arc::new(image));
    }

    /// Starts anew from a listed image: those who follow must list too.
    fn restart(&self, image: MetadataImage) {
        let mut kept = self.kept.lock();
        *kept = Kept { compacted: image.revision, ..Kept::default() };
        self.image.send_replace(Arc::new(image));
    }
}

/// Follows the store.
pub(crate) struct Follower {
    store: Arc<dyn MetadataStore>,
    env: Env,
    deltas: Arc<DeltaLog>,
    watch: StoreWatch,
}

impl Follower {
    /// Lists the image.
    pub(crate) async fn open(store: Arc<dyn MetadataStore>, env: Env) -> Result<Self, MetadataError> {
        let (image, watch, seen) = list(&*store).await?;
        Ok(Self { store, env, deltas: DeltaLog::new(image, seen), watch })
    }

    pub(crate) fn deltas(&self) -> Arc<DeltaLog> {
        self.deltas.clone()
    }

    /// Follows until the process stops.
    pub(crate) async fn run(mut self) {
        let tasks = self.env.tasks.clone();
        tokio::select! {
            () = self.follow() => {}
            () = tasks.stopped() => {}
        }
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
        loop {
            let stepped = match self.watch.next().await {
                Ok(events) => self.step(&events),
                Err(error) => Err(error.into()),
            };
            let Err(error) = stepped else {
                backoff.reset();
                continue;
            };
            tracing::warn!(%error, revision = self.deltas.image().revision, "the watch of the metadata store broke; listing anew");
            match list(&*self.store).await {
                Ok((image, watch, seen)) => {
                    self.watch = watch;
                    self.deltas.restart(image);
                    self.deltas.seen.send_replace(seen);
                }
                Err(error) => {
                    tracing::error!(%error, "could not list the metadata store");
                    self.env.clock.sleep(backoff.next_delay(&*self.env.entropy)).await;
                }
            }
        }
    }

    fn step(&self, events: &[StoreEvent]) -> Result<(), MetadataError> {
        let Some(last) = events.last() else { return Ok(()) };
        if events.iter().any(|event| event.rows.iter().any(|(key, _)| of_image(key))) {
            let mut image = MetadataImage::clone(&self.deltas.image());
            let changes = fold(&mut image, events)?;
            if !changes.is_empty() {
                let revision = image.revision;
                self.deltas.step(image, ImageDelta { revision, changes });
            }
        }
        self.deltas.seen.send_replace(last.revision);
        Ok(())
    }
}

/// Applies transactions to an image; what changed.
fn fold(image: &mut MetadataImage, events: &[StoreEvent]) -> Result<Vec<ImageChange>, MetadataError> {
    let mut changes = Vec::new();
    for event in events {
        for (key, value) in event.rows.iter().filter(|(key, _)| of_image(key)) {
            if let Some(change) = rows::change_of(key, value.as_deref(), image)? {
                image.apply(&change);
                image.revision = event.revision;
                changes.push(change);
            }
        }
    }
    Ok(changes)
}

fn of_image(key: &[u8]) -> bool {
    rows::IMAGE_PREFIXES.iter().any(|prefix| key.starts_with(prefix.as_bytes()))
}

/// The image as the store has it, a watch from there, and the store's revision it shows.
async fn list(store: &dyn MetadataStore) -> Result<(MetadataImage, StoreWatch, u64), MetadataError> {
    loop {
        match list_once(store).await {
            Err(ListError::Again) => {}
            Err(ListError::Failed(error)) => return Err(error),
            Ok(listed) => return Ok(listed),
        }
    }
}

enum ListError {
    /// The store moved on too far meanwhile.
    Again,
    Failed(MetadataError),
}

impl<E: Into<MetadataError>> From<E> for ListError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn list_once(store: &dyn MetadataStore) -> Result<(MetadataImage, StoreWatch, u64), ListError> {
    let mut image = MetadataImage { controller_id: -1, ..MetadataImage::default() };
    let (mut first, mut last_revision) = (None, 0);
    for prefix in rows::IMAGE_PREFIXES {
        let mut range = Range::prefix(prefix.as_bytes());
        loop {
            let page = store.range(range.clone()).await?;
            first.get_or_insert(page.revision);
            last_revision = page.revision;
            for row in &page.rows {
                if let Some(change) = rows::change_of(&row.key, Some(&row.value), &image)? {
                    image.apply(&change);
                }
            }
            let Some(last) = page.rows.last().filter(|_| page.more) else { break };
            range.from = [&last.key[..], &[0]].concat().into();
        }
    }
    let mut seen = first.unwrap_or(0);
    let mut watch = store.watch(seen).await.map_err(again_if_compacted)?;
    // Pages are no single point in time: with all that happened while they were read, the image is the one of the last page.
    while seen < last_revision {
        let events = watch.next().await.map_err(again_if_compacted)?;
        fold(&mut image, &events)?;
        seen = events.last().map_or(last_revision, |event| event.revision);
    }
    image.revision = seen;
    Ok((image, watch, seen))
}

fn again_if_compacted(error: StoreError) -> ListError {
    match error {
        StoreError::Compacted(_) => ListError::Again,
        other => ListError::Failed(other.into()),
    }
}
