//! The floor of a fetch: sendfile from the page cache over a loopback socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::bail;

use crate::cpu::Meter;

const FILE_BYTES: usize = 256 << 20;

/// Sends so many GB; prints the sending thread's cost per GB.
pub fn run(gigabytes: f64, chunk_bytes: usize) -> anyhow::Result<()> {
    let path = std::env::temp_dir().join(format!("siltstone-probe-{}", std::process::id()));
    let outcome = send(&path, (gigabytes * 1e9) as u64, chunk_bytes);
    std::fs::remove_file(&path)?;
    outcome
}

fn send(path: &std::path::Path, wanted: u64, chunk_bytes: usize) -> anyhow::Result<()> {
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let block = vec![7u8; 1 << 20];
    for _ in 0..FILE_BYTES / block.len() {
        file.write_all(&block)?;
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut receiver = TcpStream::connect(listener.local_addr()?)?;
    let (sender, _) = listener.accept()?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while receiver.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        let meter = Meter::thread()?;
        let mut sent = 0;
        while sent < wanted {
            let mut offset = sent % (FILE_BYTES - chunk_bytes) as u64;
            match rustix::fs::sendfile(&sender, &file, Some(&mut offset), chunk_bytes)? {
                0 => bail!("sendfile sent nothing"),
                count => sent += count as u64,
            }
        }
        meter.report(&format!("sendfile probe, {chunk_bytes} B per call"), sent)?;
        drop(sender);
        reading.join().map_or_else(|_| bail!("the receiver panicked"), Ok)
    })
}
