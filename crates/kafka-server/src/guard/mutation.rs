//! Requests of every API and version, broken at random: whatever the guard lets through, the codec must take without a panic and within bounded
//! memory (I42; the crate that decodes trusts lengths).

use bytes::{Bytes, BytesMut};

use super::skeletons::skeleton;
use super::tests::{codecs, make};
use super::*;
use crate::connection::InboundFrame;
use crate::handlers::produce;
use crate::heap_meter::peak_bytes;

/// Broken requests per API and version.
const MUTANTS: usize = 150;
/// The bound on a decoder's heap: so many times its input, and this.
const HEAP_PER_BYTE: usize = 4;
const HEAP_FREE: usize = 64 * 1024;

/// A small generator: the same seed gives the same mutants.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.next() as usize % bound }
    }
}

/// Lengths that have broken decoders before: null, least and greatest, and varints without end.
const NASTY: &[&[u8]] = &[
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff],
    &[0x80, 0x80, 0x04],
    &[0x01, 0x00],
];

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            3 => {
                let nasty = NASTY[random.below(NASTY.len())];
                bytes.splice(at..at, nasty.iter().copied());
            }
            4 => {
                let nasty = NASTY[random.below(NASTY.len())];
                let end = (at + nasty.len()).min(bytes.len());
                bytes.splice(at..end, nasty.iter().copied());
            }
            _ => {
                let (from, len) = (random.below(bytes.len()), random.below(64));
                let copy = bytes[from..(from + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

#[test]
fn broken_requests_are_refused_or_decoded_within_bounded_memory() {
    let mut random = Random(0x5117);
    let (mut admitted, mut refused) = (0, 0);
    for codec in codecs() {
        let skeleton = skeleton(codec.key).expect("has a skeleton");
        for version in codec.versions.clone() {
            for _ in 0..MUTANTS {
                let mut bytes = make(skeleton, version, random.next());
                mutate(&mut bytes, &mut random);
                let bytes = Bytes::from(bytes);
                let limit = HEAP_PER_BYTE * bytes.len() + HEAP_FREE;
                let (peak, outcome) = peak_bytes(|| {
                    admit(&bytes, 0, codec.key, version).map_err(|error| error.to_string())?;
                    (codec.decode)(&bytes, version)
                });
                assert!(peak <= limit, "key {} v{version}: {peak} bytes of heap for {:02x?}", codec.key, &bytes[..]);
                *(if outcome.is_ok() { &mut admitted } else { &mut refused }) += 1;
            }
        }
    }
    assert!(admitted > 1000 && refused > 1000, "{admitted} admitted, {refused} refused: the mutants are too tame or too wild");
}

#[test]
fn the_estimate_covers_what_decoding_takes() {
    for codec in codecs() {
        let skeleton = skeleton(codec.key).expect("has a skeleton");
        for version in codec.versions.clone() {
            for seed in 0..8 {
                let bytes = Bytes::from(make(skeleton, version, seed));
                let estimate = admit(&bytes, 0, codec.key, version).expect("admits");
                let (peak, decoded) = peak_bytes(|| (codec.decode)(&bytes, version));
                decoded.expect("decodes");
                // Up to a hundred bytes go to the bookkeeping of the shared buffer.
                assert!(peak <= estimate + 128, "key {} v{version}: {peak} bytes taken, {estimate} estimated", codec.key);
            }
        }
    }
}

#[test]
fn broken_headers_are_refused_or_read() {
    let mut random = Random(0xbad);
    for _ in 0..20_000 {
        let mut bytes = vec![0, 3, 0, 12, 0, 0, 0, 9, 0, 3, b'a', b'b', b'c', 1, 5, 2, 0xaa, 0xbb];
        mutate(&mut bytes, &mut random);
        for header_version in [1, 2] {
            let (peak, _) = peak_bytes(|| request_head(&bytes, header_version).map(|head| head.body_start));
            assert_eq!(peak, 0, "a header is read in place");
        }
    }
}

#[test]
fn broken_produce_requests_are_refused_or_taken_apart_within_bounded_memory() {
    let mut random = Random(0x90d);
    for version in 3..=13 {
        for round in 0..400 {
            let mut bytes = produce::sample_request(version, round % 7);
            mutate(&mut bytes, &mut random);
            let limit = HEAP_PER_BYTE * bytes.len() + HEAP_FREE;
            let frame = InboundFrame { allocation_bytes: bytes.len(), bytes: BytesMut::from(&bytes[..]) };
            let (peak, _) = peak_bytes(|| produce::decode_only(frame, version));
            assert!(peak <= limit, "v{version}: {peak} bytes of heap for {:02x?}", &bytes[..]);
        }
    }
}

/// I42: the smallest elements there are, so many that a fixed allowance can't hide what each of them takes.
#[test]
fn produce_requests_of_nothing_but_empty_topics_take_no_more_memory_than_others() {
    const TOPICS: usize = 90_000;
    for version in [3, 9, 13] {
        let mut bytes = BytesMut::new();
        let (head, count): (&[u8], &[u8]) = match version {
            3 => (&[0xff, 0xff, 0, 1, 0, 0, 0, 1], &[0, 1, 0x5f, 0x90]),
            _ => (&[0, 0, 1, 0, 0, 0, 1], &[0x91, 0xbf, 0x05]),
        };
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(count);
        let topic: &[u8] = match version {
            3 => &[0, 0, 0xff, 0xff, 0xff, 0xff],
            9 => &[1, 0, 0],
            _ => &[7; 16],
        };
        for _ in 0..TOPICS {
            bytes.extend_from_slice(topic);
            if version == 13 {
                bytes.extend_from_slice(&[0, 0]);
            }
        }
        bytes.extend_from_slice(&[0]);
        let (len, frame) = (bytes.len(), InboundFrame { allocation_bytes: bytes.len(), bytes });
        let (peak, partitions) = peak_bytes(|| produce::decode_only(frame, version));
        assert_eq!(partitions, Ok(0), "v{version}");
        assert!(peak <= HEAP_PER_BYTE * len + HEAP_FREE, "v{version}: {peak} bytes of heap for {len}");
    }
}
