//! Answers to a client: memory goes out by vectored writes, file ranges by sendfile, in order.
//!
//! sendfile blocks its thread when a page is not in the page cache, so a range is probed first (`preadv2` with `RWF_NOWAIT`); what is not
//! resident is read on the blocking pool, a piece at a time, and sent from memory: a cold reader never holds up a network thread.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use siltstone_common::fs::File;
use siltstone_common::tasks::Tasks;
use siltstone_log::LogSlice;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::metrics::ServerMetrics;

/// Pieces of memory in one vectored write.
const SLICES_MAX: usize = 64;
/// Bytes of a file that are probed and sent by one call, or read at once on the blocking pool.
const FILE_CHUNK_BYTES: usize = 1024 * 1024;
/// Distance of the probes within a chunk, bytes: the kernel's read-ahead brings in about as much at a time.
const PROBE_STRIDE_BYTES: usize = 128 * 1024;

/// See the module.
pub(crate) struct Outbound {
    queue: VecDeque<LogSlice>,
    queued_bytes: usize,
    /// Those of them that are memory.
    memory_bytes: usize,
    /// The read of the first chunk of the file range at the head of the queue.
    loading: Option<BoxFuture<'static, io::Result<Bytes>>>,
    tasks: Tasks,
    metrics: Arc<ServerMetrics>,
}

/// How one attempt to send went.
enum Sent {
    Bytes(usize),
    /// The range is not in the page cache.
    Cold,
}

impl Outbound {
    pub(crate) fn new(tasks: Tasks, metrics: Arc<ServerMetrics>) -> Self {
        Self { queue: VecDeque::new(), queued_bytes: 0, memory_bytes: 0, loading: None, tasks, metrics }
    }

    /// Bytes not sent yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Memory that waits to be sent, bytes: ranges of files cost none.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Queues a frame; its size.
    pub(crate) fn push(&mut self, pieces: Vec<LogSlice>) -> usize {
        let size = pieces.iter().map(LogSlice::len).sum();
        self.queued_bytes += size;
        self.memory_bytes += pieces.iter().filter(|piece| matches!(piece, LogSlice::Memory(_))).map(LogSlice::len).sum::<usize>();
        self.queue.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        size
    }

    /// Sends what the socket takes; ready when all is sent, or on the first error. Adds to `sent`.
    pub(crate) fn poll_flush(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>, sent: &mut usize) -> Poll<io::Result<()>> {
        while let Some(head) = self.queue.front_mut() {
            if let Some(loading) = &mut self.loading {
                let bytes = ready!(loading.as_mut().poll(cx));
                self.loading = None;
                self.put_loaded(bytes?);
                continue;
            }
            let count = match head {
                LogSlice::Memory(_) => ready!(Self::poll_write_memory(&self.queue, stream, cx))?,
                LogSlice::File { file, position, len } => {
                    let chunk = (*len).min(FILE_CHUNK_BYTES);
                    match ready!(poll_send_file(file, *position, chunk, stream, cx))? {
                        Sent::Bytes(count) => {
                            self.metrics.sendfile_bytes.fetch_add(count as u64, Ordering::Relaxed);
                            count
                        }
                        Sent::Cold => {
                            self.loading = Some(load(self.tasks.clone(), Arc::clone(file), *position, chunk));
                            continue;
                        }
                    }
                }
            };
            *sent += count;
            self.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_memory(queue: &VecDeque<LogSlice>, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(queue) {
            let LogSlice::Memory(bytes) = piece else { break };
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        match ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Takes `count` sent bytes off the queue's head.
    fn advance(&mut self, mut count: usize) {
        self.queued_bytes -= count;
        while count > 0 {
            let Some(head) = self.queue.front_mut() else { return };
            let step = count.min(head.len());
            match head {
                LogSlice::Memory(bytes) => {
                    bytes.advance(step);
                    self.memory_bytes -= step;
                }
                LogSlice::File { position, len, .. } => {
                    *position += step as u64;
                    *len -= step;
                }
            }
            count -= step;
            if head.is_empty() {
                self.queue.pop_front();
            }
        }
    }

    /// Replaces the head's first bytes by what was read of them.
    fn put_loaded(&mut self, bytes: Bytes) {
        self.metrics.cold_file_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(LogSlice::File { position, len, .. }) = self.queue.front_mut() {
            *position += bytes.len() as u64;
            *len -= bytes.len();
            if *len == 0 {
                self.queue.pop_front();
            }
        }
        self.memory_bytes += bytes.len();
        self.queue.push_front(LogSlice::Memory(bytes));
    }
}

/// Sends up to `len` bytes of the file, if they are in the page cache.
fn poll_send_file(file: &Arc<dyn File>, position: u64, len: usize, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Sent>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let Some(fd) = file.as_fd() else { return Poll::Ready(Ok(Sent::Cold)) };
        let resident = resident_bytes(fd, position, len);
        if resident == 0 {
            return Poll::Ready(Ok(Sent::Cold));
        }
        let mut offset = position;
        let sent = stream.try_io(Interest::WRITABLE, || Ok(rustix::fs::sendfile(stream, fd, Some(&mut offset), resident)?));
        return Poll::Ready(match sent {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a segment file is shorter than its index says")),
            Ok(count) => Ok(Sent::Bytes(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
            Err(error) => Err(error),
        });
    }
}

/// How many bytes from `position` on look resident: the first byte of every stride is tried without waiting for the disk.
fn resident_bytes(fd: std::os::fd::BorrowedFd<'_>, position: u64, len: usize) -> usize {
    let mut byte = [0u8];
    for start in (0..len).step_by(PROBE_STRIDE_BYTES) {
        let probe =
            rustix::io::preadv2(fd, &mut [io::IoSliceMut::new(&mut byte)], position + start as u64, rustix::io::ReadWriteFlags::NOWAIT);
        match probe {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return start,
            // The file system can't tell (tmpfs and the like, which have no disk to wait for): send it.
            Err(_) => return len,
        }
    }
    len
}

fn load(tasks: Tasks, file: Arc<dyn File>, position: u64, len: usize) -> BoxFuture<'static, io::Result<Bytes>> {
    Box::pin(async move {
        let read = tasks.blocking(move || {
            let mut buffer = vec![0; len];
            file.read_exact_at(&mut buffer, position).map(|()| Bytes::from(buffer))
        });
        read.await.unwrap_or_else(|| Err(io::Error::other("reading a segment file failed")))
    })
}
