//! The newest offset of each key, in bounded memory: keys are kept as 128-bit hashes, 24 bytes an entry as in Kafka's `SkimpyOffsetMap`.
//!
//! Two keys with one hash would lose a record. Kafka trusts MD5, for which such keys can be made; here the hash is SipHash, twice, with
//! secrets drawn for each map, so nobody can choose keys that meet.

use std::hash::{DefaultHasher, Hasher};

/// Bytes of an entry.
const SLOT_BYTES: usize = size_of::<Slot>();
/// Tables from this many slots on are split, so that growing one never holds two whole ones.
const SPLIT_SLOTS_MIN: usize = 1 << 16;
const SHARDS: usize = 64;
/// Slots of a table at first.
const FIRST_SLOTS: usize = 64;
/// How full a table that may still grow gets.
const LOAD_WHILE_GROWING: f64 = 0.7;
/// Above this, probing takes too long.
const LOAD_MAX: f64 = 0.95;
/// No key has an offset below 0.
const EMPTY: i64 = -1;

#[derive(Copy, Clone, Debug)]
struct Slot {
    hash: (u64, u64),
    offset: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    shards: Vec<Shard>,
    secrets: [u64; 4],
    len: usize,
    len_max: usize,
    slots_max_per_shard: usize,
    load_max: f64,
    latest_offset: i64,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    len: usize,
}

impl OffsetMap {
    /// A map of at most `bytes_max` bytes that counts as full at `load_factor` of that.
    pub(crate) fn new(bytes_max: usize, load_factor: f64, secrets: [u64; 4]) -> Self {
        let slots_max = (bytes_max / SLOT_BYTES).max(2);
        let shards = if slots_max >= SPLIT_SLOTS_MIN { SHARDS } else { 1 };
        let load_max = load_factor.clamp(0.01, LOAD_MAX);
        Self {
            shards: std::iter::repeat_with(Shard::default).take(shards).collect(),
            secrets,
            len: 0,
            len_max: ((slots_max as f64 * load_max) as usize).max(1),
            slots_max_per_shard: slots_max / shards,
            load_max,
            latest_offset: EMPTY,
        }
    }

    /// True if no key may be added, nor a newer offset of one that is here.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.len_max
    }

    /// Notes that `key` is at `offset`, which is above all that were noted.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) {
        debug_assert!(offset >= 0 && !self.is_full());
        let hash = self.hash(key);
        let (slots_max, load_max) = (self.slots_max_per_shard, self.load_max);
        let shard = self.shard_of(hash);
        let is_new = self.shards[shard].put(Slot { hash, offset }, slots_max, load_max);
        self.len += usize::from(is_new);
        self.latest_offset = self.latest_offset.max(offset);
    }

    /// The newest offset of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let hash = self.hash(key);
        self.shards[self.shard_of(hash)].get(hash)
    }

    /// The last offset that was looked at; -1 if none.
    pub(crate) fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    /// Notes that everything up to `offset` was looked at.
    pub(crate) fn seen(&mut self, offset: i64) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    /// Keys in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The share of the keys that it may hold.
    pub(crate) fn utilization(&self) -> f64 {
        self.len as f64 / self.len_max as f64
    }

    fn shard_of(&self, hash: (u64, u64)) -> usize {
        // The first word finds the slot, the second the shard.
        (hash.1 % self.shards.len() as u64) as usize
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let [a, b, c, d] = self.secrets;
        let word = |first: u64, second: u64| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(first);
            hasher.write_u64(second);
            hasher.write(key);
            hasher.finish()
        };
        (word(a, b), word(c, d))
    }
}

impl Shard {
    fn get(&self, hash: (u64, u64)) -> Option<i64> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = &self.slots[self.find(hash)];
        (slot.offset != EMPTY).then_some(slot.offset)
    }

    /// True if the key is new.
    fn put(&mut self, slot: Slot, slots_max: usize, load_max: f64) -> bool {
        let load = if self.slots.len() < slots_max { LOAD_WHILE_GROWING.min(load_max) } else { 1.0 };
        if (self.len + 1) as f64 > self.slots.len() as f64 * load {
            self.grow(slots_max);
        }
        let at = self.find(slot.hash);
        let is_new = self.slots[at].offset == EMPTY;
        self.slots[at] = slot;
        self.len += usize::from(is_new);
        is_new
    }

    /// Where the key is, or the free slot where it belongs.
    fn find(&self, hash: (u64, u64)) -> usize {
        let slots = self.slots.len();
        let mut at = ((u128::from(hash.0) * slots as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset == EMPTY || slot.hash == hash {
                return at;
            }
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
    }

    fn grow(&mut self, slots_max: usize) {
        // One slot always stays free, so that every search ends; hashes that gather in one shard may take a few more than its share.
        let wanted = (self.slots.len() * 2).max(FIRST_SLOTS).min(slots_max).max(self.len + 2);
        let empty = Slot { hash: (0, 0), offset: EMPTY };
        let old = std::mem::replace(&mut self.slots, vec![empty; wanted]);
        for slot in old.into_iter().filter(|slot| slot.offset != EMPTY) {
            let at = self.find(slot.hash);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SECRETS: [u64; 4] = [1, 2, 3, 4];

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map_until_it_is_full(keys in prop::collection::vec(0u16..400, 0..900), bytes_max in 24usize..20_000) {
            let mut map = OffsetMap::new(bytes_max, 0.9, SECRETS);
            let mut model = HashMap::new();
            for (offset, key) in keys.iter().enumerate() {
                if map.is_full() {
                    prop_assert!(model.len() >= (bytes_max / 24) * 9 / 10 || model.len() == 1);
                    break;
                }
                map.put(&key.to_be_bytes(), offset as i64);
                model.insert(*key, offset as i64);
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0u16..400 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn a_large_map_stays_within_its_bytes() {
        let bytes_max = 4 << 20;
        let mut map = OffsetMap::new(bytes_max, 0.9, SECRETS);
        let mut offset = 0i64;
        while !map.is_full() {
            map.put(&offset.to_be_bytes(), offset);
            offset += 1;
        }
        let held: usize = map.shards.iter().map(|shard| shard.slots.capacity() * SLOT_BYTES).sum();
        assert!(held <= bytes_max, "{held}");
        assert_eq!(map.len(), bytes_max / 24 * 9 / 10);
        assert!((0..offset).all(|offset| map.get(&offset.to_be_bytes()) == Some(offset)));
    }
}
