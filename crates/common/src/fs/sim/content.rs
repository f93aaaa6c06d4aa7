//! The bytes of a file: sparse pages, shared between copies until written.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// See the module. Pages that are not there are zeroes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

/// Page number and place within it.
fn split(pos: u64) -> (u64, usize) {
    (pos / PAGE as u64, (pos % PAGE as u64) as usize)
}

impl Content {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads what is there at `pos`; returns how many bytes.
    pub(super) fn read(&self, buf: &mut [u8], pos: u64) -> usize {
        let there = usize::try_from(self.len.saturating_sub(pos)).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < there {
            let (page, at) = split(pos + done as u64);
            let part = &mut buf[done..there.min(done + PAGE - at)];
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[at..at + part.len()]),
                None => part.fill(0),
            }
            done += part.len();
        }
        there
    }

    /// Writes `data` at `pos`, growing the file.
    pub(super) fn write(&mut self, data: &[u8], pos: u64) {
        let mut done = 0;
        while done < data.len() {
            let (page, at) = split(pos + done as u64);
            let part = &data[done..data.len().min(done + PAGE - at)];
            let bytes = Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE])));
            bytes[at..at + part.len()].copy_from_slice(part);
            done += part.len();
        }
        self.len = self.len.max(pos + data.len() as u64);
    }

    /// Cuts, or extends with zeroes.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, at) = split(len);
            self.pages.split_off(&len.div_ceil(PAGE as u64));
            if at > 0
                && let Some(bytes) = self.pages.get_mut(&page)
            {
                Arc::make_mut(bytes)[at..].fill(0);
            }
        }
        self.len = len;
    }

    /// All bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.read(&mut bytes, 0);
        bytes
    }
}
