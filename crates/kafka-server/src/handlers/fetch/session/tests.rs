use siltstone_common::entropy::SmallEntropy;

use super::*;

fn topic(name: &str) -> TopicRef {
    TopicRef { name: name.into(), id: TopicId::ZERO }
}

fn asked(partition: i32, fetch_offset: i64) -> Asked {
    Asked { topic: 0, partition, fetch_offset, max_bytes: 100, current_leader_epoch: -1, last_fetched_epoch: -1 }
}

fn told(high_watermark: i64, has_records: bool) -> Told {
    Told { high_watermark, log_start_offset: 0, has_records, has_error: false, diverges: false }
}

fn request(session_id: i32, session_epoch: i32, asked: Vec<Asked>) -> SessionRequest {
    SessionRequest { session_id, session_epoch, by_id: false, topics: vec![topic("t")], asked, forgotten: Vec::new() }
}

struct Client {
    sessions: FetchSessions,
    entropy: SmallEntropy,
    now_ms: u64,
}

impl Client {
    fn new(slots: usize) -> Self {
        Self { sessions: FetchSessions::new(slots, Arc::new(ServerMetrics::new(1))), entropy: SmallEntropy::seeded(1), now_ms: 0 }
    }

    /// One request and its answer: partitions read in order, and the settled answer.
    fn fetch(&self, request: SessionRequest, answer: impl Fn(i32) -> Told) -> Result<(Vec<i32>, Settled), ResponseError> {
        let context = self.sessions.begin(request, self.now_ms)?;
        let told: Vec<Told> = context.asked.iter().map(|asked| answer(asked.partition)).collect();
        let order = context.asked.iter().map(|asked| asked.partition).collect();
        Ok((order, self.sessions.settle(&context, &told, self.now_ms, &self.entropy)?))
    }

    fn create(&self, partitions: i32) -> i32 {
        let asked = (0..partitions).map(|partition| asked(partition, 0)).collect();
        self.fetch(request(0, 0, asked), |_| told(5, false)).expect("creates").1.session_id
    }
}

#[test]
fn a_session_tells_only_news_and_keeps_what_was_asked() {
    let client = Client::new(10);
    let id = client.create(3);
    assert_ne!(id, NO_SESSION);
    let (order, settled) = client.fetch(request(id, 1, vec![]), |_| told(5, false)).expect("incremental");
    assert_eq!((order, settled.included), (vec![0, 1, 2], vec![false; 3]));
    let (_, settled) = client.fetch(request(id, 2, vec![]), |part| told(if part == 1 { 6 } else { 5 }, false)).expect("incremental");
    assert_eq!(settled.included, [false, true, false], "a moved high watermark is news");
    let (_, settled) = client.fetch(request(id, 3, vec![]), |part| told(if part == 1 { 6 } else { 5 }, part == 2)).expect("incremental");
    assert_eq!(settled.included, [false, false, true], "records are news");
}

#[test]
fn an_error_is_told_each_time_and_its_end_too() {
    let client = Client::new(10);
    let id = client.create(1);
    let error = Told { has_error: true, ..told(-1, false) };
    for epoch in 1..3 {
        assert_eq!(client.fetch(request(id, epoch, vec![]), |_| error).expect("incremental").1.included, [true]);
    }
    assert_eq!(client.fetch(request(id, 3, vec![]), |_| told(5, false)).expect("incremental").1.included, [true]);
    assert_eq!(client.fetch(request(id, 4, vec![]), |_| told(5, false)).expect("incremental").1.included, [false]);
}

#[test]
fn partitions_that_returned_records_go_to_the_end() {
    let client = Client::new(10);
    let id = client.create(4);
    client.fetch(request(id, 1, vec![]), |part| told(5, part == 0 || part == 2)).expect("incremental");
    let (order, _) = client.fetch(request(id, 2, vec![]), |_| told(5, false)).expect("incremental");
    assert_eq!(order, [1, 3, 0, 2]);
    client.fetch(request(id, 3, vec![]), |part| told(5, part == 2)).expect("incremental");
    assert_eq!(client.fetch(request(id, 4, vec![]), |_| told(5, false)).expect("incremental").0, [1, 3, 0, 2]);
}

#[test]
fn partitions_are_added_changed_and_forgotten() {
    let client = Client::new(10);
    let id = client.create(2);
    let mut change = request(id, 1, vec![asked(7, 70), asked(1, 11)]);
    change.forgotten = vec![(topic("t"), 0), (topic("unknown"), 1)];
    let context = client.sessions.begin(change, 0).expect("incremental");
    let read: Vec<_> = context.asked.iter().map(|asked| (asked.partition, asked.fetch_offset)).collect();
    assert_eq!(read, [(1, 11), (7, 70)]);
}

#[test]
fn wrong_ids_and_epochs_are_refused_and_a_full_request_ends_the_session() {
    let client = Client::new(10);
    let id = client.create(1);
    let fails = |session_id, epoch| client.fetch(request(session_id, epoch, vec![]), |_| told(5, false)).err();
    assert_eq!(fails(id, 2), Some(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(fails(0, 1), Some(ResponseError::FetchSessionIdNotFound));
    assert_eq!(fails(id.wrapping_add(1), 1), Some(ResponseError::FetchSessionIdNotFound));
    assert_eq!(fails(id, 1), None);
    assert_eq!(fails(id, 1), Some(ResponseError::InvalidFetchSessionEpoch), "an epoch counts once");
    let by_id = SessionRequest { by_id: true, ..request(id, 2, vec![]) };
    assert_eq!(client.fetch(by_id, |_| told(5, false)).err(), Some(ResponseError::FetchSessionTopicIdError));
    let (_, settled) = client.fetch(request(id, -1, vec![asked(0, 0)]), |_| told(5, false)).expect("sessionless");
    assert_eq!(settled.session_id, NO_SESSION);
    assert_eq!(fails(id, 2), Some(ResponseError::FetchSessionIdNotFound));
    assert_eq!(client.sessions.sessions.lock().len(), 0);
}

#[test]
fn an_overtaken_answer_is_refused() {
    let client = Client::new(10);
    let id = client.create(1);
    let first = client.sessions.begin(request(id, 1, vec![]), 0).expect("first");
    client.fetch(request(id, 2, vec![]), |_| told(5, false)).expect("second");
    let late = client.sessions.settle(&first, &[told(5, false)], 0, &client.entropy);
    assert_eq!(late, Err(ResponseError::InvalidFetchSessionEpoch));
}

#[test]
fn a_session_that_forgets_all_is_gone() {
    let client = Client::new(10);
    let id = client.create(1);
    let forget = SessionRequest { forgotten: vec![(topic("t"), 0)], ..request(id, 1, vec![]) };
    assert_eq!(client.fetch(forget, |_| told(5, false)).expect("sessionless").1.session_id, NO_SESSION);
    assert_eq!(client.sessions.sessions.lock().len(), 0);
}

#[test]
fn a_full_cache_evicts_the_unused_then_the_small_and_old() {
    let mut client = Client::new(2);
    let (first, second) = (client.create(2), client.create(5));
    assert_eq!(client.create(9), NO_SESSION, "nothing is old yet");
    client.now_ms = EVICTION_AGE_MS + 1;
    client.fetch(request(first, 1, vec![]), |_| told(5, false)).expect("in use");
    client.fetch(request(second, 1, vec![]), |_| told(5, false)).expect("in use");
    assert_eq!(client.create(2), NO_SESSION, "not larger than the smallest");
    assert_ne!(client.create(3), NO_SESSION);
    assert_eq!(client.fetch(request(first, 2, vec![]), |_| told(5, false)).err(), Some(ResponseError::FetchSessionIdNotFound));
    client.now_ms *= 3;
    assert_ne!(client.create(1), NO_SESSION, "unused for long");
    assert_eq!(client.sessions.metrics.fetch_session_evictions.load(Ordering::Relaxed), 2);
    assert_eq!(client.sessions.sessions.lock().len(), 2);
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!((next_epoch(0), next_epoch(i32::MAX), next_epoch(-1)), (1, 1, -1));
}

#[test]
fn a_partition_named_twice_counts_as_named_last() {
    let both = without_repeats(vec![asked(1, 5), asked(2, 0), asked(1, 9)]);
    assert_eq!(both.iter().map(|asked| (asked.partition, asked.fetch_offset)).collect::<Vec<_>>(), [(1, 9), (2, 0)]);
}

/// I42: a session must not grow past what one may be made with.
#[test]
fn a_session_that_grows_past_the_limit_of_all_ends() {
    let mut client = Client::new(10);
    client.sessions.partitions_max = 100;
    let (first, second) = (client.create(40), client.create(40));
    let grown = |id, upto: i32| request(id, 1, (0..upto).map(|partition| asked(partition, 0)).collect());
    assert_eq!(client.fetch(grown(first, 60), |_| told(5, false)).expect("there is room").0.len(), 60);
    assert_eq!(client.fetch(grown(second, 41), |_| told(5, false)).err(), Some(ResponseError::FetchSessionIdNotFound));
    assert_eq!(client.sessions.sessions.lock().keys().copied().collect::<Vec<_>>(), [first], "what it held is given back");
    assert_ne!(client.create(40), NO_SESSION, "there is room again");
}

#[test]
fn topics_whose_partitions_are_all_forgotten_leave_the_session() {
    let client = Client::new(10);
    let id = client.create(2);
    for (epoch, round) in (1..).zip(0..1_000) {
        let mut change = request(id, epoch, vec![asked(0, i64::from(round))]);
        change.topics = vec![topic(&format!("t{round}"))];
        if round > 0 {
            change.forgotten = vec![(topic(&format!("t{}", round - 1)), 0)];
        }
        let context = client.sessions.begin(change, 0).expect("incremental");
        let read: Vec<_> =
            context.asked.iter().map(|asked| (&*context.topics[asked.topic as usize].name, asked.partition, asked.fetch_offset)).collect();
        let newest = format!("t{round}");
        assert_eq!(read, [("t", 0, 0), ("t", 1, 0), (newest.as_str(), 0, i64::from(round))]);
        assert!(context.topics.len() <= 40, "{} topics are kept of two", context.topics.len());
        let settled = client.sessions.settle(&context, &[told(5, false), told(5, false), told(9, true)], 0, &client.entropy);
        assert_eq!(settled.map(|settled| settled.included[2]), Ok(true));
    }
}
