use proptest::prelude::*;

use super::*;
use crate::batch::BatchHeader;

/// A batch as it lies in the log.
fn header(producer_id: i64, epoch: i16, base_sequence: i32, records: i32, base_offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset,
        batch_length: 100,
        partition_leader_epoch: 0,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 0,
        max_timestamp: 1_000 + base_offset,
        producer_id,
        producer_epoch: epoch,
        base_sequence,
        record_count: records,
    }
}

fn transactional(header: BatchHeader) -> BatchHeader {
    BatchHeader { attributes: 0x10, ..header }
}

fn end(states: &mut ProducerStates, producer_id: i64, epoch: i16, offset: i64, commit: bool) -> Option<AbortedTxn> {
    let mut batch = EndTxnMarker { commit, coordinator_epoch: 8 }.to_batch(producer_id, epoch, 5);
    crate::batch::stamp(&mut batch, offset, 0);
    let header = BatchHeader::parse(&batch).unwrap();
    states.appended(&header, EndTxnMarker::from_batch(&header, &batch))
}

#[track_caller]
fn assert_out_of_order(result: Result<SequenceCheck, AppendError>, want: i32) {
    assert!(matches!(result, Err(AppendError::OutOfOrderSequence { expected, .. }) if expected == want), "{result:?}");
}

#[test]
fn batches_follow_in_sequence() {
    let mut states = ProducerStates::default();
    let first = header(5, 0, 0, 10, 100);
    assert_eq!(states.check(&first).unwrap(), SequenceCheck::Append);
    states.appended(&first, None);
    assert_eq!(states.check(&header(5, 0, 10, 1, 110)).unwrap(), SequenceCheck::Append);
    assert_out_of_order(states.check(&header(5, 0, 11, 1, 110)), 10);
    assert_out_of_order(states.check(&header(5, 0, 5, 1, 110)), 10);
    assert_eq!(states.check(&header(-1, -1, -1, 1, 110)).unwrap(), SequenceCheck::Append);
}

#[test]
fn a_retry_gets_the_original_offsets_as_long_as_it_is_among_the_last_five() {
    let mut states = ProducerStates::default();
    for i in 0..6 {
        states.appended(&header(5, 0, i * 2, 2, 100 + i64::from(i) * 2), None);
    }
    let duplicate = states.check(&header(5, 0, 2, 2, 0)).unwrap();
    assert_eq!(duplicate, SequenceCheck::Duplicate { base_offset: 102, last_offset: 103, timestamp_ms: 1_102 });
    assert!(matches!(states.check(&header(5, 0, 10, 2, 0)).unwrap(), SequenceCheck::Duplicate { base_offset: 110, .. }));
    // Sixth from the end, or cut otherwise than it was: no retry that we can answer.
    assert_out_of_order(states.check(&header(5, 0, 0, 2, 0)), 12);
    assert_out_of_order(states.check(&header(5, 0, 2, 4, 0)), 12);
}

#[test]
fn sequences_wrap_at_the_largest() {
    let mut states = ProducerStates::default();
    states.appended(&header(5, 0, i32::MAX - 1, 2, 0), None);
    assert_eq!(states.check(&header(5, 0, 0, 3, 2)).unwrap(), SequenceCheck::Append);
    let mut states = ProducerStates::default();
    let over = header(5, 0, i32::MAX - 1, 4, 0);
    states.appended(&over, None);
    assert_eq!(states.check(&header(5, 0, 2, 1, 4)).unwrap(), SequenceCheck::Append);
    assert!(matches!(states.check(&over).unwrap(), SequenceCheck::Duplicate { last_offset: 3, .. }));
}

#[test]
fn a_producer_new_here_begins_with_zero_so_that_the_client_retries_in_order() {
    // KAFKA-15591: the first batch met NOT_LEADER, the second must not be taken before it.
    let states = ProducerStates::default();
    assert_out_of_order(states.check(&header(5, 0, 10, 1, 0)), 0);
    assert_eq!(states.check(&header(5, 0, 0, 1, 0)).unwrap(), SequenceCheck::Append);
}

#[test]
fn a_producer_that_may_have_expired_here_goes_on_where_it_was() {
    let mut states = ProducerStates::default();
    states.appended(&header(5, 0, 0, 10, 0), None);
    states.expire(1_000_000, 10);
    assert_eq!(states.list().len(), 1, "it wrote since the last look");
    states.expire(1_000_000, 10);
    assert_eq!(states.list(), []);
    assert_eq!(states.check(&header(5, 0, 10, 1, 10)).unwrap(), SequenceCheck::Append);
    assert_out_of_order(states.check(&header(6, 0, 10, 1, 10)), 0);
}

#[test]
fn expiry_spares_the_young_and_open_transactions() {
    let mut states = ProducerStates::default();
    states.appended(&header(1, 0, 0, 1, 0), None);
    states.appended(&transactional(header(2, 0, 0, 1, 1)), None);
    states.appended(&header(3, 0, 0, 1, 900), None);
    states.expire(0, i64::MAX);
    states.expire(2_000, 500);
    assert_eq!(states.list().iter().map(|info| info.producer_id).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn epochs_only_rise_and_begin_with_sequence_zero() {
    let mut states = ProducerStates::default();
    states.appended(&header(5, 3, 0, 10, 0), None);
    assert!(matches!(states.check(&header(5, 2, 10, 1, 10)), Err(AppendError::InvalidProducerEpoch { current: 3, got: 2 })));
    assert_out_of_order(states.check(&header(5, 4, 10, 1, 10)), 0);
    assert_eq!(states.check(&header(5, 4, 0, 1, 10)).unwrap(), SequenceCheck::Append);
    states.appended(&header(5, 4, 0, 1, 10), None);
    // The old epoch's batches are no duplicates any more.
    assert!(matches!(states.check(&header(5, 3, 0, 10, 0)), Err(AppendError::InvalidProducerEpoch { .. })));
    assert_eq!(states.check(&header(5, 4, 1, 1, 11)).unwrap(), SequenceCheck::Append);
}

#[test]
fn an_abort_is_indexed_with_the_stable_offset_of_its_moment() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 5, 10)), None);
    states.appended(&transactional(header(2, 0, 0, 5, 15)), None);
    states.appended(&transactional(header(1, 0, 5, 5, 20)), None);
    assert_eq!(states.first_undecided_offset(), Some(10));
    let aborted = end(&mut states, 1, 0, 25, false).unwrap();
    assert_eq!(aborted, AbortedTxn { producer_id: 1, first_offset: 10, last_offset: 25, last_stable_offset: 15 });
    assert_eq!(states.first_undecided_offset(), Some(15));
    assert_eq!(end(&mut states, 2, 0, 26, true), None);
    assert_eq!(states.first_undecided_offset(), None);
    // An abort without data leaves no trace for readers.
    assert_eq!(end(&mut states, 1, 1, 27, false), None);
    let info = states.list()[0];
    assert_eq!((info.producer_epoch, info.coordinator_epoch, info.last_sequence), (1, 8, -1));
    // The bumped epoch begins anew.
    assert_eq!(states.check(&header(1, 1, 0, 1, 28)).unwrap(), SequenceCheck::Append);
    assert!(matches!(states.check(&header(1, 0, 10, 1, 28)), Err(AppendError::InvalidProducerEpoch { .. })));
}

#[test]
fn an_ended_transaction_is_unstable_until_its_marker_is_replicated() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 5, 10)), None);
    end(&mut states, 1, 0, 15, true);
    assert_eq!((states.first_undecided_offset(), states.first_unstable_offset()), (None, Some(10)));
    states.high_watermark_moved(15);
    assert_eq!(states.first_unstable_offset(), Some(10));
    states.high_watermark_moved(16);
    assert_eq!(states.first_unstable_offset(), None);
}

#[test]
fn a_plain_batch_within_a_transaction_is_refused() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 5, 10)), None);
    assert!(matches!(states.check(&header(1, 0, 5, 1, 15)), Err(AppendError::InvalidTxnState(_))));
    assert_eq!(states.check(&transactional(header(1, 0, 5, 1, 15))).unwrap(), SequenceCheck::Append);
}

#[test]
fn markers_read_as_kafka_writes_them() {
    let abort = EndTxnMarker { commit: false, coordinator_epoch: 7 };
    assert_eq!(EndTxnMarker::parse(&[0, 0, 0, 0], &[0, 0, 0, 0, 0, 7]), Some(abort));
    assert_eq!(EndTxnMarker::parse(&[0, 9, 0, 1, 5], &[0, 3, 0, 0, 0, 7, 1]), Some(EndTxnMarker { commit: true, ..abort }));
    // Another kind (leader change), cut short, a negative version.
    for (key, value) in [(&[0, 0, 0, 2][..], &[0; 6][..]), (&[0, 0, 0], &[0; 6]), (&[0; 4], &[0; 5]), (&[0xff, 0xff, 0, 1], &[0; 6])] {
        assert_eq!(EndTxnMarker::parse(key, value), None);
    }
    let batch = abort.to_batch(3, 1, 99);
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(header.is_control() && header.is_transactional() && header.base_sequence == -1);
    assert_eq!(EndTxnMarker::from_batch(&header, &batch), Some(abort));
}

fn sample() -> ProducerStates {
    let mut states = ProducerStates::default();
    states.appended(&header(2, 0, 0, 1, 1), None);
    states.expire(0, i64::MAX);
    states.expire(i64::MAX, 1);
    for i in 0..7 {
        states.appended(&header(5, 3, i, 1, 100 + i64::from(i)), None);
    }
    states.appended(&transactional(header(9, 1, 0, 4, 107)), None);
    end(&mut states, 11, 2, 111, false);
    states
}

#[test]
fn the_golden_snapshot_of_version_1_reads_for_ever() {
    let golden = include_bytes!("../../tests/golden/producers.v1.bin");
    assert_eq!(sample().snapshot(112), golden[..], "the format changed: give it a new version and keep reading this one");
    let (states, offset) = ProducerStates::load(golden).unwrap();
    assert_eq!(offset, 112);
    assert_eq!(states.list(), sample().list());
    assert_eq!(states.first_undecided_offset(), Some(107));
    assert_eq!(states.snapshot(112), golden[..]);
    assert!(matches!(states.check(&header(5, 3, 2, 1, 0)).unwrap(), SequenceCheck::Duplicate { base_offset: 102, .. }));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let good = sample().snapshot(112);
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert!(matches!(ProducerStates::load(&bad), Err(LogError::Corrupt { .. })), "byte {at}");
        assert!(matches!(ProducerStates::load(&good[..at]), Err(LogError::Corrupt { .. })), "cut at {at}");
    }
}

/// Everything that ever happened to one producer, and nothing clever.
#[derive(Default)]
struct Naive {
    epoch: i16,
    seen: bool,
    /// (epoch, first sequence, records, base offset)
    batches: Vec<(i16, i64, i64, i64)>,
}

impl Naive {
    fn check(&self, epoch: i16, sequence: i64, records: i64) -> &'static str {
        let in_epoch: Vec<_> = self.batches.iter().filter(|batch| batch.0 == self.epoch).collect();
        if self.seen && epoch == self.epoch && in_epoch.iter().rev().take(5).any(|batch| (batch.1, batch.2) == (sequence, records)) {
            return "duplicate";
        }
        if self.seen && epoch < self.epoch {
            return "epoch";
        }
        let expected = if epoch == self.epoch { in_epoch.last().map_or(0, |batch| (batch.1 + batch.2) % (1 << 31)) } else { 0 };
        if sequence == expected { "append" } else { "order" }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// I8, I17, I18: against the naive model, with a snapshot and reload at any point changing nothing.
    #[test]
    fn behaves_as_the_naive_model(steps in prop::collection::vec((0i64..3, -1i16..3, -6i64..3, 1i64..4, any::<bool>()), 1..120), near_wrap: bool) {
        let mut states = ProducerStates::default();
        let mut models: [Naive; 3] = Default::default();
        let mut offset = 0;
        if near_wrap {
            for (producer_id, model) in (0..).zip(&mut models) {
                states.appended(&header(producer_id, 0, i32::MAX - 3, 1, offset), None);
                *model = Naive { epoch: 0, seen: true, batches: vec![(0, i64::from(i32::MAX) - 3, 1, offset)] };
                offset += 1;
            }
        }
        for (producer_id, epoch_step, sequence_step, records, reload) in steps {
            let model = &mut models[usize::try_from(producer_id).unwrap()];
            let epoch = (model.epoch + epoch_step.min(1)).max(0);
            let next = model.batches.iter().rfind(|batch| batch.0 == model.epoch).map_or(0, |batch| batch.1 + batch.2);
            let sequence = if epoch == model.epoch { (next + sequence_step.min(0)).rem_euclid(1 << 31) } else { sequence_step.max(0) };
            let batch = header(producer_id, epoch, i32::try_from(sequence).unwrap(), i32::try_from(records).unwrap(), offset);
            let got = match states.check(&batch) {
                Ok(SequenceCheck::Append) => "append",
                Ok(SequenceCheck::Duplicate { base_offset, .. }) => {
                    prop_assert!(model.batches.contains(&(epoch, sequence, records, base_offset)));
                    "duplicate"
                }
                Err(AppendError::InvalidProducerEpoch { .. }) => "epoch",
                Err(AppendError::OutOfOrderSequence { .. }) => "order",
                Err(other) => panic!("{other}"),
            };
            prop_assert_eq!(got, model.check(epoch, sequence, records));
            if got == "append" {
                states.appended(&batch, None);
                model.batches.push((epoch, sequence, records, offset));
                model.epoch = epoch;
                model.seen = true;
                offset += records;
            }
            if reload {
                let snapshot = states.snapshot(offset);
                let (loaded, at) = ProducerStates::load(&snapshot).unwrap();
                prop_assert_eq!(at, offset);
                prop_assert_eq!(loaded.snapshot(offset), snapshot);
                states = loaded;
            }
        }
    }
}

fn begin(states: &mut ProducerStates, header: &BatchHeader, bumps_epoch: bool) -> Option<VerificationGuard> {
    states.begin_verification((header.producer_id, header.producer_epoch), header.base_sequence, bumps_epoch, 0)
}

#[test]
fn i20_a_transaction_begins_only_with_a_guard_that_is_in_force() {
    let mut states = ProducerStates::default();
    let first = transactional(header(1, 0, 0, 5, 10));
    assert!(matches!(states.check_verified(&first, None), Err(AppendError::InvalidTxnState(_))));
    let guard = begin(&mut states, &first, false).unwrap();
    assert!(matches!(states.check_verified(&first, None), Err(AppendError::InvalidTxnState(_))));
    assert_eq!(begin(&mut states, &first, false), Some(guard), "the same question");
    states.check_verified(&first, Some(guard)).unwrap();
    states.appended(&first, None);
    let second = transactional(header(1, 0, 5, 5, 15));
    assert_eq!(begin(&mut states, &second, false), None, "the transaction is open");
    states.check_verified(&second, None).unwrap();
    // Asked for in time, but the transaction ends before the append.
    let late = begin(&mut states, &transactional(header(2, 0, 0, 1, 20)), false).unwrap();
    end(&mut states, 2, 0, 20, false);
    let header = transactional(header(2, 0, 0, 1, 21));
    assert!(matches!(states.check_verified(&header, Some(late)), Err(AppendError::InvalidTxnState(_))));
    let again = begin(&mut states, &header, false).unwrap();
    assert_ne!(again, late, "a later transaction's guard is another one");
    assert!(matches!(states.check_verified(&header, Some(late)), Err(AppendError::InvalidTxnState(_))));
}

/// A version 2 client's next transaction is asked for while the marker of the one before, which bears the raised epoch, is still under way.
#[test]
fn i20_the_marker_of_the_transaction_before_leaves_the_next_ones_guard() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 5, 10)), None);
    let next = transactional(header(1, 1, 0, 5, 16));
    let guard = begin(&mut states, &next, true);
    end(&mut states, 1, 1, 15, true);
    states.check_verified(&next, guard).unwrap();
    // The next one's own marker takes it away, begun here or not.
    end(&mut states, 1, 2, 16, false);
    assert!(matches!(states.check_verified(&next, guard), Err(AppendError::InvalidTxnState(_))));
}

#[test]
fn a_guard_is_for_one_epoch_and_plain_batches_need_none() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 5, 10)), None);
    let newer = transactional(header(1, 1, 0, 5, 15));
    assert!(begin(&mut states, &newer, false).is_some(), "what is open is of an older epoch");
    assert!(matches!(states.check_verified(&newer, None), Err(AppendError::InvalidTxnState(_))));
    states.check_verified(&header(9, 0, 0, 1, 20), None).unwrap();
}

#[test]
fn the_lowest_sequence_that_was_asked_for_comes_first() {
    let mut states = ProducerStates::default();
    let at = |sequence| transactional(header(1, 0, sequence, 1, 10));
    states.appended(&header(1, 0, 0, 1, 9), None);
    let guard = begin(&mut states, &at(2), false);
    assert_eq!(begin(&mut states, &at(1), false), guard);
    assert_out_of_order_of(states.check_verified(&at(2), guard), 1);
    states.check_verified(&at(1), guard).unwrap();
    // A version 2 client begins every epoch at zero.
    let at = |sequence| transactional(header(5, 0, sequence, 1, 10));
    let guard = begin(&mut states, &at(3), true);
    assert_out_of_order_of(states.check_verified(&at(3), guard), 0);
    // Unless the partition remembers batches of that epoch.
    states.appended(&header(5, 0, 0, 3, 9), None);
    let guard = begin(&mut states, &at(3), true);
    states.check_verified(&at(3), guard).unwrap();
    // One of version 1 goes on where it was, though its batches were forgotten here.
    let at = |sequence| transactional(header(6, 0, sequence, 1, 10));
    let guard = begin(&mut states, &at(3), false);
    states.check_verified(&at(3), guard).unwrap();
}

fn assert_out_of_order_of(result: Result<(), AppendError>, expected: i32) {
    assert!(matches!(result, Err(AppendError::OutOfOrderSequence { expected: found, .. }) if found == expected), "{result:?}");
}

#[test]
fn i20_a_late_marker_does_not_end_a_later_transaction() {
    let mut states = ProducerStates::default();
    let marker = EndTxnMarker { commit: true, coordinator_epoch: 8 };
    let control = |epoch: i16| BatchHeader::parse(&marker.to_batch(1, epoch, 0)).unwrap();
    let check = |states: &ProducerStates, epoch, version| states.check_marker(&control(epoch), marker, version);
    check(&states, 0, 2).unwrap();
    states.appended(&transactional(header(1, 3, 0, 1, 10)), None);
    assert!(matches!(check(&states, 3, 2), Err(AppendError::InvalidProducerEpoch { current: 3, got: 3 })));
    check(&states, 3, 0).unwrap();
    check(&states, 4, 2).unwrap();
    end(&mut states, 1, 4, 11, true);
    check(&states, 4, 2).unwrap();
    assert!(matches!(check(&states, 3, 0), Err(AppendError::InvalidProducerEpoch { current: 4, got: 3 })));
    let zombie = EndTxnMarker { coordinator_epoch: 7, ..marker };
    let refused = states.check_marker(&control(4), zombie, 2);
    assert!(matches!(refused, Err(AppendError::CoordinatorFenced { current: 8, got: 7 })), "{refused:?}");
}

/// I17, I42: however many producer ids a client makes up, those that wrote longest ago go, by the log alone.
#[test]
fn the_producers_that_are_remembered_have_a_limit() {
    let mut states = ProducerStates::default();
    states.appended(&transactional(header(1, 0, 0, 1, 0)), None);
    states.appended(&header(2, 0, 0, 1, 1), None);
    for id in 3..=PRODUCERS_MAX as i64 {
        states.appended(&header(id, 0, 0, 1, id), None);
    }
    assert_eq!(states.list().len(), PRODUCERS_MAX);
    let (mut loaded, _) = ProducerStates::load(&states.snapshot(20_000)).unwrap();
    for states in [&mut states, &mut loaded] {
        for id in 20_000..50_000 {
            states.appended(&header(id, 0, 0, 1, id), None);
        }
    }
    assert_eq!(states.snapshot(50_000), loaded.snapshot(50_000), "a replay from a snapshot forgets the same");
    let known: Vec<_> = states.list().iter().map(|info| info.producer_id).collect();
    assert!(known.len() <= PRODUCERS_MAX && known.contains(&49_999));
    assert!(known.contains(&1), "its transaction is open");
    assert!(!known.contains(&2));
    assert_eq!(states.check(&header(2, 0, 7, 1, 50_000)).unwrap(), SequenceCheck::Append, "as if it had expired");
    end(&mut states, 1, 0, 50_000, false).unwrap();
}
