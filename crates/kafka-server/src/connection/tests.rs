//! A real listener on a free port, real sockets, and a dispatcher whose work the test ends when it likes.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::fs::{FileSystem, OpenMode, RealFs};
use siltstone_log::LogSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::answer::{Answer, begin_frame, finish_frame};
use crate::api_table::Row;
use crate::budget::Charge;
use crate::dispatch::{Appended, Dispatch, Incoming, Work};
use crate::limits::Limits;
use crate::metrics::ServerMetrics;
use crate::quotas::Taken;
use crate::server::{BoundListener, Server};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const WAIT: Duration = Duration::from_secs(20);

/// Answers every request with its correlation id, when its gate (if there is one) is opened.
#[derive(Default)]
struct Fake {
    started: Mutex<Vec<i32>>,
    dropped: Arc<Mutex<Vec<i32>>>,
    /// Whose gate was opened.
    ended: Arc<Mutex<Vec<i32>>>,
    /// From where clients came.
    addresses: Mutex<Vec<IpAddr>>,
    gates: Mutex<HashMap<i32, oneshot::Receiver<Answer>>>,
    /// Opened before a Produce counts as appended.
    append_gates: Mutex<HashMap<i32, oneshot::Receiver<()>>>,
    answer_bytes: usize,
    /// For how long the next answered client is held back.
    hold: Mutex<Duration>,
}

/// Notes that a request's work was dropped before its end.
struct DropNote(i32, Arc<Mutex<Vec<i32>>>, bool);

impl Drop for DropNote {
    fn drop(&mut self) {
        if !self.2 {
            self.1.lock().push(self.0);
        }
    }
}

fn answer(correlation_id: i32, extra: usize) -> Answer {
    let mut frame = begin_frame(correlation_id, 0, 16);
    frame.put_bytes(7, extra);
    finish_frame(&mut frame, 0);
    Answer::bytes(frame.freeze())
}

impl Fake {
    fn gate(&self, correlation_id: i32) -> oneshot::Sender<Answer> {
        let (open, gate) = oneshot::channel();
        self.gates.lock().insert(correlation_id, gate);
        open
    }

    fn append_gate(&self, correlation_id: i32) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.append_gates.lock().insert(correlation_id, gate);
        open
    }

    fn started(&self) -> Vec<i32> {
        self.started.lock().clone()
    }
}

impl Dispatch for Fake {
    fn hold_back(&self, _: Row, _: i16, taken: &Taken<'_>, _: &mut Vec<LogSlice>) -> Duration {
        assert!(taken.request_bytes > 0);
        std::mem::take(&mut *self.hold.lock())
    }

    fn too_early(&self, ip: IpAddr) -> (Duration, Duration) {
        self.addresses.lock().push(ip);
        (Duration::ZERO, Duration::ZERO)
    }

    fn dispatch(self: Arc<Self>, incoming: Incoming, _charge: &mut Charge) -> Result<Work, String> {
        let id = incoming.correlation_id;
        self.started.lock().push(id);
        let append_gate = self.append_gates.lock().remove(&id);
        let Some(gate) = self.gates.lock().remove(&id) else { return Ok(Work::Done(answer(id, self.answer_bytes))) };
        let (dropped, ended) = (Arc::clone(&self.dropped), Arc::clone(&self.ended));
        let work = Box::pin(async move {
            let mut note = DropNote(id, dropped, false);
            let answer = gate.await.unwrap_or(Answer::Nothing);
            note.2 = true;
            ended.lock().push(id);
            answer
        });
        Ok(match incoming.row.api().key {
            PRODUCE => Work::Appending(Box::pin(async move {
                if let Some(gate) = append_gate {
                    let _ = gate.await;
                }
                Appended::Waiting(work)
            })),
            FETCH => Work::Reading(work),
            _ => Work::Running(work),
        })
    }
}

struct Rig {
    fake: Arc<Fake>,
    metrics: Arc<ServerMetrics>,
    address: SocketAddr,
    env: Env,
}

async fn rig_with(fake: Fake, limits: Limits) -> Rig {
    rig_in(Env::system(), fake, limits).await
}

async fn rig_in(env: Env, fake: Fake, limits: Limits) -> Rig {
    rig_on("127.0.0.1:0", env, fake, limits).await
}

async fn rig_on(listen: &str, env: Env, fake: Fake, limits: Limits) -> Rig {
    let listener = BoundListener::bind(listen).await.expect("binds");
    let (fake, metrics, address) = (Arc::new(fake), Arc::new(ServerMetrics::new(limits.queued_request_bytes_max)), listener.local_addr());
    let dispatch = Arc::clone(&fake) as Arc<dyn Dispatch>;
    let server = Server::over(listener, dispatch, env.clone(), env.tasks.clone(), limits, Arc::clone(&metrics));
    env.tasks.spawn("listener", server.run());
    Rig { fake, metrics, address, env }
}

async fn rig() -> Rig {
    rig_with(Fake::default(), Limits::default()).await
}

impl Rig {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&Rig) -> bool) {
        let deadline = tokio::time::Instant::now() + WAIT;
        while !done(self) {
            assert!(tokio::time::Instant::now() < deadline, "timed out: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn request(key: i16, version: i16, correlation_id: i32, body: usize) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u32(10 + body as u32);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(-1);
    frame.put_bytes(1, body);
    frame.to_vec()
}

async fn read_frame(stream: &mut TcpStream) -> Bytes {
    tokio::time::timeout(WAIT, async {
        let len = stream.read_u32().await.expect("a length");
        let mut frame = vec![0; len as usize];
        stream.read_exact(&mut frame).await.expect("a frame");
        Bytes::from(frame)
    })
    .await
    .expect("an answer in time")
}

async fn read_id(stream: &mut TcpStream) -> i32 {
    read_frame(stream).await.get_i32()
}

/// Waits for the server to close.
async fn read_close(stream: &mut TcpStream) {
    let read = tokio::time::timeout(WAIT, async {
        let mut byte = [0];
        loop {
            match stream.read(&mut byte).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    });
    read.await.expect("closed in time");
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_whatever_ends_first() {
    let rig = rig().await;
    let gates: Vec<_> = (0..3).map(|id| rig.fake.gate(id)).collect();
    let mut stream = rig.connect().await;
    for id in 0..3 {
        stream.write_all(&request(PRODUCE, 3, id, 100)).await.expect("writes");
    }
    rig.until("all three are under way", |rig| rig.fake.started() == [0, 1, 2]).await;
    for (id, gate) in gates.into_iter().enumerate().rev() {
        gate.send(answer(id as i32, 0)).expect("waits");
    }
    for id in 0..3 {
        assert_eq!(read_id(&mut stream).await, id);
    }
}

#[tokio::test]
async fn no_produce_overtakes_one_that_is_still_appending() {
    let rig = rig().await;
    let (append, _first, second) = (rig.fake.append_gate(0), rig.fake.gate(0), rig.fake.gate(1));
    let mut stream = rig.connect().await;
    stream.write_all(&[request(PRODUCE, 3, 0, 10), request(PRODUCE, 3, 1, 10)].concat()).await.expect("writes");
    rig.until("the first is under way", |rig| rig.fake.started() == [0]).await;
    append.send(()).expect("waits");
    rig.until("the second follows", |rig| rig.fake.started() == [0, 1]).await;
    drop(second);
}

#[tokio::test]
async fn other_requests_run_one_at_a_time() {
    let rig = rig().await;
    let (produce, fetch) = (rig.fake.gate(0), rig.fake.gate(1));
    let mut stream = rig.connect().await;
    let frames = [request(PRODUCE, 3, 0, 10), request(FETCH, 4, 1, 10), request(PRODUCE, 3, 2, 10), request(METADATA, 0, 3, 0)];
    stream.write_all(&frames.concat()).await.expect("writes");
    rig.until("the produce is under way", |rig| rig.fake.started() == [0]).await;
    produce.send(answer(0, 0)).expect("waits");
    assert_eq!(read_id(&mut stream).await, 0);
    rig.until("the fetch is under way", |rig| rig.fake.started() == [0, 1]).await;
    fetch.send(answer(1, 0)).expect("waits");
    for id in 1..4 {
        assert_eq!(read_id(&mut stream).await, id);
    }
}

#[tokio::test]
async fn a_client_over_its_quota_gets_its_answer_and_is_not_read_for_a_while() {
    const HELD: Duration = Duration::from_millis(200);
    let rig = rig().await;
    *rig.fake.hold.lock() = HELD;
    let mut stream = rig.connect().await;
    let begun = tokio::time::Instant::now();
    stream.write_all(&[request(PRODUCE, 3, 0, 10), request(METADATA, 0, 1, 0)].concat()).await.expect("writes");
    assert_eq!(read_id(&mut stream).await, 0);
    assert_eq!(rig.fake.started(), [0]);
    assert_eq!(read_id(&mut stream).await, 1);
    assert!(begun.elapsed() >= HELD, "the second request waited");
}

#[tokio::test]
async fn a_frame_may_come_a_byte_at_a_time() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    stream.set_nodelay(true).expect("sets");
    for byte in request(METADATA, 0, 9, 40) {
        stream.write_all(&[byte]).await.expect("writes");
        tokio::task::yield_now().await;
    }
    assert_eq!(read_id(&mut stream).await, 9);
}

#[tokio::test]
async fn large_frames_come_whole_and_small_ones_behind_them() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    let frames =
        [request(PRODUCE, 3, 1, 3_000_000), request(PRODUCE, 3, 2, 10), request(PRODUCE, 3, 3, 3_000_000), request(METADATA, 0, 4, 0)];
    stream.write_all(&frames.concat()).await.expect("writes");
    for id in 1..=4 {
        assert_eq!(read_id(&mut stream).await, id);
    }
    rig.until("the budget is given back", |rig| rig.metrics.request_memory_bytes() == 0).await;
}

#[tokio::test]
async fn malformed_frames_end_the_connection_and_nothing_else() {
    let bad: [(&str, Vec<u8>); 9] = [
        ("negative", (-1i32).to_be_bytes().to_vec()),
        ("least", i32::MIN.to_be_bytes().to_vec()),
        ("zero", vec![0; 4]),
        ("too short for a header", vec![0, 0, 0, 7, 0, 3, 0, 0, 0, 0, 0]),
        ("above the limit", (200u32 << 20).to_be_bytes().to_vec()),
        ("tls", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("unknown key", request(999, 0, 1, 0)),
        ("unknown version", request(METADATA, 99, 1, 0)),
    ];
    let rig = rig().await;
    let mut healthy = rig.connect().await;
    for (index, (what, bytes)) in bad.into_iter().enumerate() {
        let mut stream = rig.connect().await;
        stream.write_all(&bytes).await.expect("writes");
        read_close(&mut stream).await;
        rig.until(what, |rig| rig.metrics.violations.load(Ordering::Relaxed) == index as u64 + 1).await;
    }
    healthy.write_all(&request(METADATA, 0, 5, 0)).await.expect("writes");
    assert_eq!(read_id(&mut healthy).await, 5);
    assert_eq!(rig.fake.started(), [5]);
}

#[tokio::test]
async fn an_old_produce_version_ends_the_connection_as_in_kafka() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    stream.write_all(&request(PRODUCE, 2, 1, 10)).await.expect("writes");
    read_close(&mut stream).await;
}

#[tokio::test]
async fn only_produce_may_be_very_large() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    let mut head = request(METADATA, 0, 1, 0);
    head[..4].copy_from_slice(&(17u32 << 20).to_be_bytes());
    stream.write_all(&head).await.expect("writes");
    read_close(&mut stream).await;
    let mut question = rig.connect().await;
    question.write_all(&request(32, 1, 1, 8 << 20)).await.expect("writes");
    assert_eq!(read_id(&mut question).await, 1, "what it asks for is counted, not its bytes");
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    stream.write_all(&request(18, 77, 6, 3)).await.expect("writes");
    let mut answer = read_frame(&mut stream).await;
    assert_eq!((answer.get_i32(), answer.get_i16()), (6, 35));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_waiting_fetch_along_but_not_other_work() {
    let rig = rig().await;
    let (_fetch, metadata) = (rig.fake.gate(1), rig.fake.gate(2));
    let mut reader = rig.connect().await;
    reader.write_all(&request(FETCH, 4, 1, 10)).await.expect("writes");
    let mut other = rig.connect().await;
    other.write_all(&request(METADATA, 0, 2, 0)).await.expect("writes");
    rig.until("both are under way", |rig| rig.fake.started().len() == 2).await;
    drop((reader, other));
    rig.until("the fetch is dropped", |rig| *rig.fake.dropped.lock() == [1]).await;
    rig.until("their places are free while one request runs on", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 0).await;
    metadata.send(answer(2, 0)).expect("still waits");
    rig.until("it has ended", |rig| *rig.fake.ended.lock() == [2]).await;
    assert_eq!(*rig.fake.dropped.lock(), [1]);
}

/// What is not read any more does not tell by itself that its sender has gone.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_noticed_whatever_it_left_behind_its_wait() {
    let rig = rig_in(Env::simulated(1, Arc::new(RealFs)), Fake::default(), Limits::default()).await;
    for (id, behind) in [(1, request(METADATA, 0, 9, 40_000)), (2, vec![0xff; 4])] {
        let _fetch = rig.fake.gate(id);
        let mut stream = rig.connect().await;
        stream.write_all(&request(FETCH, 4, id, 10)).await.expect("writes");
        rig.until("it waits", |rig| rig.fake.started().contains(&id)).await;
        stream.write_all(&behind).await.expect("writes");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(rig.metrics.connections.load(Ordering::Relaxed), 1, "it is still there");
        drop(stream);
        rig.until("its place is free", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 0).await;
        assert!(rig.fake.dropped.lock().contains(&id));
    }
}

/// A crash of the client, or its answers unread, must not stop a change half-way.
#[tokio::test]
async fn a_reset_ends_no_request_that_is_under_way() {
    let rig = rig().await;
    let (append, _acknowledged, metadata) = (rig.fake.append_gate(1), rig.fake.gate(1), rig.fake.gate(2));
    let (mut producer, mut other) = (rig.connect().await, rig.connect().await);
    producer.write_all(&request(PRODUCE, 3, 1, 10)).await.expect("writes");
    other.write_all(&request(METADATA, 0, 2, 0)).await.expect("writes");
    rig.until("both are under way", |rig| rig.fake.started().len() == 2).await;
    for stream in [producer, other] {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("sets");
    }
    rig.until("both are gone", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 0).await;
    append.send(()).expect("still appends");
    rig.until("the wait for the acknowledgement is dropped", |rig| *rig.fake.dropped.lock() == [1]).await;
    metadata.send(answer(2, 0)).expect("still waits");
    rig.until("it has ended", |rig| *rig.fake.ended.lock() == [2]).await;
    assert_eq!(*rig.fake.dropped.lock(), [1]);
}

#[tokio::test]
async fn an_ipv4_address_is_the_same_on_a_listener_for_both_kinds() {
    let rig = rig_on("[::]:0", Env::system(), Fake::default(), Limits::default()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", rig.address.port())).await.expect("connects");
    stream.write_all(&request(METADATA, 0, 1, 0)).await.expect("writes");
    assert_eq!(read_id(&mut stream).await, 1);
    assert_eq!(*rig.fake.addresses.lock(), ["127.0.0.1".parse::<IpAddr>().expect("an address")]);
}

#[tokio::test]
async fn produce_without_acks_is_taken_in_although_the_client_has_gone() {
    let rig = rig().await;
    let mut stream = rig.connect().await;
    let frames: Vec<u8> = (0..50).flat_map(|id| request(PRODUCE, 3, id, 1000)).collect();
    stream.write_all(&frames).await.expect("writes");
    stream.shutdown().await.expect("shuts");
    rig.until("all are started", |rig| rig.fake.started().len() == 50).await;
}

/// Kafka reads on after the time is over; here it need not even pass, for nobody is left to be held back.
#[tokio::test]
async fn what_a_client_over_its_quota_had_sent_before_it_went_is_taken_in() {
    let rig = rig().await;
    *rig.fake.hold.lock() = Duration::from_millis(100);
    let append = rig.fake.append_gate(0);
    rig.fake.gate(0).send(answer(0, 0)).expect("will be waited for");
    let mut stream = rig.connect().await;
    let frames: Vec<u8> = (0..50).flat_map(|id| request(PRODUCE, 3, id, 100)).collect();
    stream.write_all(&frames).await.expect("writes");
    rig.until("the first is under way", |rig| rig.fake.started() == [0]).await;
    stream.shutdown().await.expect("shuts");
    rig.until("its end is seen", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 0).await;
    append.send(()).expect("still appends");
    rig.until("all are started", |rig| rig.fake.started().len() == 50).await;
}

#[tokio::test]
async fn memory_and_file_ranges_arrive_in_order_and_whole() {
    let rig = rig().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("segment");
    let content: Vec<u8> = (0..6_000_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::File::create(&path).and_then(|mut file| file.write_all(&content)).expect("writes");
    let file = RealFs.open(&path, OpenMode::Read).expect("opens");
    let gate = rig.fake.gate(1);
    let mut stream = rig.connect().await;
    stream.write_all(&request(FETCH, 4, 1, 10)).await.expect("writes");
    let mut head = begin_frame(1, 0, 16);
    let range = |position: u64, len| LogSlice::File { file: Arc::clone(&file), position, len };
    finish_frame(&mut head, 3 + 5_000_000 + 4 + 100);
    let memory = |bytes: &'static [u8]| LogSlice::Memory(Bytes::from_static(bytes));
    let pieces =
        vec![LogSlice::Memory(head.freeze()), memory(b"abc"), range(17, 5_000_000), memory(b""), memory(b"tail"), range(5_500_000, 100)];
    gate.send(Answer::Frame(pieces)).map_err(drop).expect("waits");
    let mut answer = read_frame(&mut stream).await;
    assert_eq!(answer.get_i32(), 1);
    let wanted = [b"abc", &content[17..5_000_017], b"tail", &content[5_500_000..5_500_100]].concat();
    assert!(answer == wanted, "the bytes differ");
    rig.until("sendfile was used", |rig| rig.metrics.sendfile_bytes.load(Ordering::Relaxed) == 5_000_100).await;
}

#[tokio::test]
async fn a_file_that_ends_early_ends_the_connection() {
    let rig = rig().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("segment");
    std::fs::write(&path, [1; 100]).expect("writes");
    let file = RealFs.open(&path, OpenMode::Read).expect("opens");
    let gate = rig.fake.gate(1);
    let mut stream = rig.connect().await;
    stream.write_all(&request(FETCH, 4, 1, 10)).await.expect("writes");
    gate.send(Answer::Frame(vec![LogSlice::File { file, position: 0, len: 200 }])).map_err(drop).expect("waits");
    read_close(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_served_further() {
    let rig = rig_with(Fake { answer_bytes: 64 * 1024, ..Fake::default() }, Limits::default()).await;
    let mut stream = rig.connect().await;
    let frames: Vec<u8> = (0..2000).flat_map(|id| request(METADATA, 0, id, 0)).collect();
    stream.write_all(&frames).await.expect("writes");
    let mut seen = 0;
    // It stalls once the socket's buffers and ours are full: the count stands still.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = rig.fake.started().len();
        if now == seen && now > 0 {
            break;
        }
        seen = now;
    }
    assert!(seen < 2000, "all were answered into memory");
    for id in 0..2000 {
        assert_eq!(read_id(&mut stream).await, id);
    }
}

#[tokio::test]
async fn connections_beyond_a_limit_are_closed_at_once() {
    let limits = Limits { connections_per_ip_max: 2, ..Limits::default() };
    let rig = rig_with(Fake::default(), limits).await;
    let (first, _second) = (rig.connect().await, rig.connect().await);
    rig.until("both are in", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 2).await;
    let mut third = rig.connect().await;
    read_close(&mut third).await;
    assert_eq!(rig.metrics.refused.load(Ordering::Relaxed), 1);
    drop(first);
    rig.until("one has gone", |rig| rig.metrics.connections.load(Ordering::Relaxed) == 1).await;
    let mut fourth = rig.connect().await;
    fourth.write_all(&request(METADATA, 0, 4, 0)).await.expect("writes");
    assert_eq!(read_id(&mut fourth).await, 4);
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_closes_idle_connections() {
    let rig = rig().await;
    let gate = rig.fake.gate(1);
    let (mut busy, mut idle) = (rig.connect().await, rig.connect().await);
    busy.write_all(&request(PRODUCE, 3, 1, 10)).await.expect("writes");
    rig.until("it is under way", |rig| rig.fake.started() == [1] && rig.metrics.connections.load(Ordering::Relaxed) == 2).await;
    let tasks = rig.env.tasks.clone();
    let stop = tokio::spawn(async move { tasks.shutdown(WAIT).await });
    read_close(&mut idle).await;
    gate.send(answer(1, 0)).expect("still waits");
    assert_eq!(read_id(&mut busy).await, 1);
    read_close(&mut busy).await;
    assert!(stop.await.expect("stops"));
    assert!(TcpStream::connect(rig.address).await.is_err(), "nobody listens any more");
}

/// In a runtime with a paused clock, time jumps whenever all wait.
#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_come_in_and_silence_end_the_connection() {
    let rig = rig_in(Env::simulated(1, Arc::new(RealFs)), Fake::default(), Limits::default()).await;
    let start = tokio::time::Instant::now();
    let mut slow = rig.connect().await;
    slow.write_all(&request(METADATA, 0, 1, 100)[..50]).await.expect("writes");
    let mut byte = [0];
    assert!(matches!(slow.read(&mut byte).await, Ok(0) | Err(_)));
    let waited = start.elapsed();
    assert!((30..40).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(rig.metrics.violations.load(Ordering::Relaxed), 1);

    let mut silent = rig.connect().await;
    let start = tokio::time::Instant::now();
    assert!(matches!(silent.read(&mut byte).await, Ok(0) | Err(_)));
    let waited = start.elapsed();
    assert!((600..610).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(rig.metrics.idle_closed.load(Ordering::Relaxed), 1);
}

/// Unread answers are memory: past a limit for all, who does not read goes, long before it counts as idle.
#[tokio::test(start_paused = true)]
async fn clients_that_do_not_read_go_when_their_answers_are_too_much_memory() {
    let limits = Limits { unread_bytes_max: 20 << 20, ..Limits::default() };
    let rig = rig_in(Env::simulated(1, Arc::new(RealFs)), Fake { answer_bytes: 16 << 20, ..Fake::default() }, limits).await;
    let unread = |rig: &Rig| rig.metrics.unsent_bytes.load(Ordering::Relaxed);
    let mut first = rig.connect().await;
    first.write_all(&request(METADATA, 0, 1, 0)).await.expect("writes");
    rig.until("the answer waits", |rig| unread(rig) > 4 << 20).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.metrics.violations.load(Ordering::Relaxed), 0, "one alone may take its time");

    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = rig.connect().await;
        other.write_all(&request(METADATA, 0, 2, 0)).await.expect("writes");
        others.push(other);
    }
    let mut reader = rig.connect().await;
    reader.write_all(&request(METADATA, 0, 3, 0)).await.expect("writes");
    assert_eq!(read_id(&mut reader).await, 3);
    rig.until("the answers wait", |rig| unread(rig) > 20 << 20).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(rig.metrics.violations.load(Ordering::Relaxed), 4);
    assert_eq!(unread(&rig), 0);
    reader.write_all(&request(METADATA, 0, 4, 0)).await.expect("writes");
    assert_eq!(read_id(&mut reader).await, 4, "who reads is served");
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_of_the_server_is_no_idleness() {
    let rig = rig_in(Env::simulated(1, Arc::new(RealFs)), Fake::default(), Limits::default()).await;
    let gate = rig.fake.gate(1);
    let mut stream = rig.connect().await;
    stream.write_all(&request(METADATA, 0, 1, 0)).await.expect("writes");
    tokio::time::sleep(Duration::from_secs(3000)).await;
    gate.send(answer(1, 0)).expect("still waits");
    assert_eq!(read_id(&mut stream).await, 1);
}

#[tokio::test]
async fn unfinished_frames_share_one_budget() {
    let limits = Limits { queued_request_bytes_max: 800_000, ..Limits::default() };
    let rig = rig_with(Fake::default(), limits).await;
    let frame = |id| request(PRODUCE, 3, id, 900_000);
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    first.write_all(&frame(1)[..800_000]).await.expect("writes");
    rig.until("the first holds most of it", |rig| rig.metrics.request_memory_bytes() >= 800_000).await;
    let whole = frame(2);
    let writer = tokio::spawn(async move {
        second.write_all(&whole).await.expect("writes");
        second
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.fake.started().is_empty(), "the second has to wait");
    first.write_all(&frame(1)[800_000..]).await.expect("writes");
    assert_eq!(read_id(&mut first).await, 1);
    let mut second = writer.await.expect("writes");
    assert_eq!(read_id(&mut second).await, 2);
}

/// Two frames that are half in, each larger than what the other leaves of the budget: neither may keep the other from its end.
#[tokio::test]
async fn half_read_frames_never_wait_for_each_other() {
    let limits = Limits { queued_request_bytes_max: 1 << 20, ..Limits::default() };
    let rig = rig_with(Fake::default(), limits).await;
    let mut clients = Vec::new();
    for id in 0..2 {
        let mut stream = rig.connect().await;
        stream.write_all(&request(PRODUCE, 3, id, 900_000)[..500_000]).await.expect("writes");
        rig.until("its first half is in", |rig| rig.metrics.request_memory_bytes() >= 500_000 * (id as u64 + 1)).await;
        clients.push(stream);
    }
    let rest = clients.into_iter().zip(0..).map(|(mut stream, id)| async move {
        stream.write_all(&request(PRODUCE, 3, id, 900_000)[500_000..]).await.expect("writes");
        read_id(&mut stream).await
    });
    assert_eq!(futures::future::join_all(rest).await, [0, 1]);
}

/// While we don't read, nothing is missing for the client's sake: its frame may take as long as the answer before it.
#[tokio::test(start_paused = true)]
async fn a_frame_has_no_deadline_while_an_answer_before_it_is_on_its_way() {
    let rig = rig_in(Env::simulated(1, Arc::new(RealFs)), Fake { answer_bytes: 0, ..Fake::default() }, Limits::default()).await;
    let gate = rig.fake.gate(1);
    let mut stream = rig.connect().await;
    let produce = request(PRODUCE, 3, 2, 100_000);
    stream.write_all(&request(FETCH, 4, 1, 10)).await.expect("writes");
    stream.write_all(&produce[..50_000]).await.expect("writes");
    rig.until("the fetch is under way", |rig| rig.fake.started() == [1]).await;
    gate.send(answer(1, 16 << 20)).expect("waits");
    rig.until("the answer waits to be read", |rig| rig.metrics.unsent_bytes.load(Ordering::Relaxed) > 4 << 20).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(read_id(&mut stream).await, 1);
    stream.write_all(&produce[50_000..]).await.expect("writes");
    assert_eq!(read_id(&mut stream).await, 2);
    assert_eq!(rig.metrics.violations.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn sockets_that_promise_much_and_send_little_cost_little() {
    const SOCKETS: usize = 2_000;
    let rig = rig().await;
    let before = resident_bytes();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let mut stream = rig.connect().await;
        let mut head = request(PRODUCE, 3, 1, 2_000);
        head[..4].copy_from_slice(&(100u32 << 20).to_be_bytes());
        stream.write_all(&head).await.expect("writes");
        sockets.push(stream);
    }
    rig.until("all are in", |rig| rig.metrics.connections.load(Ordering::Relaxed) == SOCKETS as u64).await;
    let mut last = rig.connect().await;
    last.write_all(&request(METADATA, 0, 5, 0)).await.expect("writes");
    assert_eq!(read_id(&mut last).await, 5);
    let growth = resident_bytes().saturating_sub(before);
    assert!(growth < 64 << 20, "I42: {growth} bytes for {SOCKETS} sockets that sent 2 kB each");
}

/// Memory of this process, bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}
