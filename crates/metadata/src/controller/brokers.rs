//! Registration, fencing and unfencing of brokers.

use std::sync::Arc;

use super::partitions::{Cause, settle_all};
use super::{Decision, View};
use crate::api::{MetadataError, RegisterBroker};
use crate::image::{BrokerImage, ImageChange};

/// A broker presents itself: it hands over what it led, leaves ISR and ELR if it stopped uncleanly (I14), and gets a new epoch, which fences the
/// process that had the id before. While that one's session lasts only its successor on the same data directory gets in: two processes
/// with one id would both lead (I9).
pub(crate) fn register(view: View<'_>, broker: RegisterBroker) -> Result<Decision<i64>, MetadataError> {
    if broker.id < 0 {
        return Err(MetadataError::InvalidRequest(format!("broker id {} is negative", broker.id)));
    }
    if broker.host.is_empty() || broker.port == 0 {
        return Err(MetadataError::InvalidRequest("a broker needs an advertised host and port".into()));
    }
    let id = broker.id;
    let is_successor = |known: &BrokerImage| !broker.directory.is_nil() && known.directory == broker.directory;
    if view.image.brokers.get(&id).is_some_and(|known| !known.fenced && !is_successor(known)) {
        return Err(MetadataError::DuplicateBroker);
    }
    let active = |other: i32| view.is_active(other);
    let unclean = (!broker.clean_shutdown).then_some(id);
    let cause = Cause { active: &active, unclean, leaving: Some(id) };
    // Partitions first: if only they are written, the broker registers again; the other way round its unclean stop would be forgotten.
    let mut changes = settle_all(view, cause, |p| p.leader == id || p.isr.contains(&id) || p.elr.contains(&id));
    // The revision of the last registration is at most the image's, so epochs rise for ever.
    let epoch = i64::try_from(view.image.revision).unwrap_or(i64::MAX - 1) + 1;
    debug_assert!(view.image.brokers.get(&id).is_none_or(|known| known.epoch < epoch), "broker epochs rise (KIP-903)");
    let RegisterBroker { host, port, rack, directory, .. } = broker;
    changes.push(ImageChange::Broker(Arc::new(BrokerImage { id, epoch, host, port, rack, fenced: true, directory })));
    Ok(Decision::new(changes, epoch))
}

/// A sign of life of a broker: unfences it, or with `stopping` fences it.
pub(crate) fn heartbeat(view: View<'_>, id: i32, epoch: i64, stopping: bool) -> Result<Decision<()>, MetadataError> {
    let broker = view.image.brokers.get(&id).ok_or(MetadataError::UnknownBroker(id))?;
    if broker.epoch != epoch {
        return Err(MetadataError::StaleBrokerEpoch);
    }
    if stopping {
        return Ok(fence(view, id));
    }
    if !broker.fenced {
        return Ok(Decision::new(Vec::new(), ()));
    }
    let mut changes = vec![ImageChange::Broker(Arc::new(BrokerImage { fenced: false, ..(**broker).clone() }))];
    let active = |other: i32| other == id || view.is_active(other);
    let cause = Cause { active: &active, unclean: None, leaving: None };
    changes.extend(settle_all(view, cause, |p| p.leader < 0 && p.replicas.contains(&id)));
    Ok(Decision::new(changes, ()))
}

/// A broker's session is over, or it is stopping: it leads nothing any more.
pub(crate) fn fence(view: View<'_>, id: i32) -> Decision<()> {
    let Some(broker) = view.image.brokers.get(&id).filter(|broker| !broker.fenced) else {
        return Decision::new(Vec::new(), ());
    };
    let mut changes = vec![ImageChange::Broker(Arc::new(BrokerImage { fenced: true, ..(**broker).clone() }))];
    let active = |other: i32| other != id && view.is_active(other);
    let cause = Cause { active: &active, unclean: None, leaving: Some(id) };
    changes.extend(settle_all(view, cause, |p| p.leader == id || p.isr.contains(&id)));
    Decision::new(changes, ())
}

/// What a service that takes over finishes for one that stopped between two transactions: no fenced broker leads or is in sync,
/// whoever can lead does, and no ELR outlives a lowered `min.insync.replicas`.
pub(crate) fn repair(view: View<'_>) -> Decision<()> {
    let mut changes = Vec::new();
    let active = |other: i32| view.is_active(other);
    let fenced: Vec<i32> = view.image.brokers.values().filter(|broker| broker.fenced).map(|broker| broker.id).collect();
    let mut image = view.image.clone();
    for leaving in fenced.into_iter().map(Some).chain([None]) {
        let now = View { image: &image, ..view };
        let cause = Cause { active: &active, unclean: None, leaving };
        let step = match leaving {
            Some(id) => settle_all(now, cause, |p| p.leader == id || p.isr.contains(&id)),
            None => settle_all(now, cause, |p| p.leader < 0 || !p.elr.is_empty()),
        };
        step.iter().for_each(|change| image.apply(change));
        changes.extend(step);
    }
    Decision::new(changes, ())
}
