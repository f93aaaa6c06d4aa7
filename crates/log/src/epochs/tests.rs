use proptest::prelude::*;

use super::*;

fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
    LeaderEpochCache::from_entries(entries.iter().map(|&(epoch, start_offset)| EpochEntry { epoch, start_offset }))
}

fn pairs(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
    cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
}

#[test]
fn assigning_a_known_epoch_again_is_no_news() {
    let mut epochs = LeaderEpochCache::default();
    assert!(epochs.assign(2, 10));
    assert!(!epochs.assign(2, 10));
    assert!(!epochs.assign(2, 15));
    assert!(epochs.assign(3, 20));
    assert!(!epochs.assign(-1, 30));
    assert_eq!(pairs(&epochs), [(2, 10), (3, 20)]);
    assert_eq!(epochs.latest_epoch(), Some(3));
}

#[test]
fn assigning_drops_what_it_contradicts() {
    let mut epochs = cache(&[(2, 10), (3, 20), (5, 30)]);
    assert!(epochs.assign(4, 25));
    assert_eq!(pairs(&epochs), [(2, 10), (3, 20), (4, 25)]);
    // An epoch that wrote nothing gives way to the next one at the same offset.
    assert!(epochs.assign(6, 25));
    assert_eq!(pairs(&epochs), [(2, 10), (3, 20), (6, 25)]);
    assert!(epochs.assign(6, 5));
    assert_eq!(pairs(&epochs), [(6, 5)]);
}

#[test]
fn end_offsets_are_kafkas() {
    let epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
    assert_eq!(epochs.end_offset_for(7, 44), Some((7, 44)));
    assert_eq!(epochs.end_offset_for(8, 44), None);
    assert_eq!(epochs.end_offset_for(4, 44), Some((4, 30)));
    assert_eq!(epochs.end_offset_for(5, 44), Some((4, 30)));
    assert_eq!(epochs.end_offset_for(2, 44), Some((2, 20)));
    assert_eq!(epochs.end_offset_for(1, 44), Some((1, 10)));
    assert_eq!(epochs.end_offset_for(-1, 44), None);
    assert_eq!(LeaderEpochCache::default().end_offset_for(0, 44), None);
}

#[test]
fn offsets_find_their_epoch() {
    let epochs = cache(&[(2, 10), (4, 20)]);
    assert_eq!([9, 10, 19, 20, 99].map(|offset| epochs.epoch_for_offset(offset)), [None, Some(2), Some(2), Some(4), Some(4)]);
}

#[test]
fn truncating_from_either_end() {
    let entries = [(2, 10), (4, 20), (7, 30)];
    for (offset, want) in [(31, &entries[..]), (30, &entries[..2]), (21, &entries[..2]), (20, &entries[..1]), (0, &[])] {
        let mut epochs = cache(&entries);
        epochs.truncate_from_end(offset);
        assert_eq!(pairs(&epochs), want, "end {offset}");
    }
    for (offset, want) in [
        (5, vec![(2, 10), (4, 20), (7, 30)]),
        (10, vec![(2, 10), (4, 20), (7, 30)]),
        (15, vec![(2, 15), (4, 20), (7, 30)]),
        (20, vec![(4, 20), (7, 30)]),
        (99, vec![(7, 99)]),
    ] {
        let mut epochs = cache(&entries);
        epochs.truncate_from_start(offset);
        assert_eq!(pairs(&epochs), want, "start {offset}");
    }
}

#[test]
fn a_slice_is_clipped_to_its_base() {
    let epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
    let slice = |base, last| -> Vec<_> { epochs.slice(base, last).iter().map(|entry| (entry.epoch, entry.start_offset)).collect() };
    assert_eq!(slice(12, 25), [(2, 12), (4, 20)]);
    assert_eq!(slice(20, 29), [(4, 20)]);
    assert_eq!(slice(20, 30), [(4, 20), (7, 30)]);
    assert_eq!(slice(0, 9), []);
    assert_eq!(slice(5, 10), [(2, 10)]);
    assert_eq!(slice(12, 11), []);
}

#[test]
fn entries_out_of_order_are_left_out() {
    assert_eq!(pairs(&cache(&[(2, 10), (2, 11), (3, 10), (1, 40), (-1, 50), (4, 20)])), [(2, 10), (4, 20)]);
}

/// The epoch of every offset of a log, one by one.
#[derive(Default)]
struct Naive {
    start: i64,
    epochs: Vec<i32>,
}

impl Naive {
    fn end(&self) -> i64 {
        self.start + self.epochs.len() as i64
    }

    fn index(&self, offset: i64) -> usize {
        usize::try_from((offset - self.start).max(0)).map_or(0, |index| index.min(self.epochs.len()))
    }

    fn entries(&self) -> Vec<(i32, i64)> {
        let begins = |index: &usize| *index == 0 || self.epochs[*index] != self.epochs[*index - 1];
        (0..self.epochs.len()).filter(begins).map(|index| (self.epochs[index], self.start + index as i64)).collect()
    }

    fn end_offset_for(&self, epoch: i32) -> Option<(i32, i64)> {
        let latest = *self.epochs.last()?;
        if epoch >= latest {
            return (epoch == latest).then_some((epoch, self.end()));
        }
        let end = self.start + self.epochs.iter().position(|other| *other > epoch)? as i64;
        Some((self.epochs.iter().copied().rfind(|other| *other <= epoch).unwrap_or(epoch), end))
    }
}

proptest! {
    /// I16: the cache equals what a log scan gives.
    #[test]
    fn equals_a_scan_of_the_log(steps in prop::collection::vec((0u8..6, 0i64..8, 0i32..3), 1..80)) {
        let (mut epochs, mut naive, mut epoch) = (LeaderEpochCache::default(), Naive::default(), 0);
        for (kind, amount, bump) in steps {
            match kind {
                0..=3 => {
                    epoch += bump;
                    if amount > 0 {
                        epochs.assign(epoch, naive.end());
                        naive.epochs.extend(vec![epoch; usize::try_from(amount).unwrap_or(0)]);
                    }
                }
                4 => {
                    let to = (naive.end() - amount).max(naive.start);
                    naive.epochs.truncate(naive.index(to));
                    epochs.truncate_from_end(to);
                }
                _ => {
                    // The last record stays: an empty log still knows its last epoch in the cache, which a scan can't.
                    let to = (naive.start + amount).min(naive.end() - 1).max(naive.start);
                    naive.epochs.drain(..naive.index(to));
                    naive.start = to;
                    epochs.truncate_from_start(to);
                }
            }
            prop_assert_eq!(pairs(&epochs), naive.entries());
            for offset in naive.start..naive.end() {
                prop_assert_eq!(epochs.epoch_for_offset(offset), naive.epochs.get(naive.index(offset)).copied());
            }
            for asked in 0..=epoch + 1 {
                prop_assert_eq!(epochs.end_offset_for(asked, naive.end()), naive.end_offset_for(asked));
            }
        }
    }
}
