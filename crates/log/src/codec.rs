//! Little helpers for the persisted formats: big-endian fields, CRC-32C, and a reader that never goes past the end.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of the pieces, one after the other.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    // The algorithm is 32 bits wide; the crate hands every checksum out in 64.
    digest.finalize() as u32
}

/// CRC-32C of two byte strings, one after the other, from the CRC of each and the length of the second.
pub(crate) fn crc32c_of_both(first: u32, second: u32, second_len: usize) -> u32 {
    let mut shift = 1 << 31;
    let mut bits = second_len;
    for power in &BYTE_POWERS {
        if bits & 1 == 1 {
            shift = multiply(shift, *power);
        }
        bits >>= 1;
        if bits == 0 {
            break;
        }
    }
    multiply(first, shift) ^ second
}

/// The Castagnoli polynomial, its lowest power in the highest bit, as all polynomials here.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x to the power of 8, 16, 32 ..., modulo the polynomial: what 1, 2, 4 ... bytes behind it multiply a CRC by.
const BYTE_POWERS: [u32; usize::BITS as usize] = {
    let mut powers = [1 << 23; usize::BITS as usize];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = multiply(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The product of two polynomials over GF(2), modulo [`POLYNOMIAL`].
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// Reads big-endian fields; every read is `None` once the bytes run out.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Over `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_crc_of_both_is_that_of_their_bytes(first in prop::collection::vec(any::<u8>(), 0..300), second in prop::collection::vec(any::<u8>(), 0..20_000)) {
            let both = crc32c_of_both(crc32c(&[&first]), crc32c(&[&second]), second.len());
            prop_assert_eq!(both, crc32c(&[&first, &second]));
        }
    }
}
