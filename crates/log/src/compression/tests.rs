use super::*;

const CODECS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| if i % 7 == 0 { (i / 131) as u8 } else { (i % 50) as u8 }).collect()
}

#[test]
fn every_codec_gives_back_what_went_in() {
    for codec in CODECS.into_iter().chain([Compression::None]) {
        for len in [0, 1, 100, 32 * 1024, 300_000] {
            let data = sample(len);
            let packed = compress(codec, &data).unwrap();
            assert_eq!(decompress(codec, &packed, len).unwrap(), data, "{codec:?} {len}");
        }
    }
}

#[test]
fn bombs_end_at_the_limit() {
    let zeroes = vec![0; 4_000_000];
    for codec in CODECS {
        let bomb = compress(codec, &zeroes).unwrap();
        assert!(bomb.len() < 250_000, "{codec:?} {}", bomb.len());
        assert_eq!(decompress(codec, &bomb, 1_000_000), Err(CompressionError::TooLarge { limit: 1_000_000 }), "{codec:?}");
    }
    assert_eq!(decompress(Compression::None, &[0; 9], 8), Err(CompressionError::TooLarge { limit: 8 }));
}

#[test]
fn the_limit_itself_is_allowed_and_one_less_is_not() {
    let data = sample(100_000);
    for codec in CODECS {
        let packed = compress(codec, &data).unwrap();
        assert!(decompress(codec, &packed, data.len()).is_ok(), "{codec:?}");
        assert_eq!(decompress(codec, &packed, data.len() - 1), Err(CompressionError::TooLarge { limit: data.len() - 1 }), "{codec:?}");
    }
}

#[test]
fn cut_and_garbage_input_is_corrupt() {
    let data = sample(100_000);
    for codec in CODECS {
        let packed = compress(codec, &data).unwrap();
        // The last bytes of a frame may be an end mark or a checksum that a decoder does not insist on.
        for cut in [1, 5, packed.len() / 2, packed.len() - 12] {
            let result = decompress(codec, &packed[..cut], 1 << 20);
            assert!(result.as_ref().map_or(true, |out| *out != data), "{codec:?} cut at {cut} gave everything back");
        }
        assert!(matches!(decompress(codec, b"certainly not compressed data", 1 << 20), Err(CompressionError::Corrupt { .. })), "{codec:?}");
    }
}

#[test]
fn snappy_comes_raw_as_from_librdkafka_and_in_concatenated_streams() {
    let data = sample(90_000);
    let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(decompress(Compression::Snappy, &raw, 1 << 20).unwrap(), data);

    let mut twice = compress(Compression::Snappy, &data).unwrap();
    twice.extend(compress(Compression::Snappy, &data).unwrap());
    assert_eq!(decompress(Compression::Snappy, &twice, 1 << 20).unwrap(), [data.clone(), data].concat());
}

#[test]
fn a_snappy_block_that_claims_gigabytes_takes_no_memory() {
    // A varint of 2^31 - 1 and nothing behind it.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x07];
    assert!(matches!(decompress(Compression::Snappy, &lie, usize::MAX), Err(CompressionError::Corrupt { .. })));
}

#[test]
fn lz4_frames_have_independent_blocks_for_javas_reader() {
    let packed = compress(Compression::Lz4, &sample(200_000)).unwrap();
    assert_eq!(packed[..4], [0x04, 0x22, 0x4d, 0x18]);
    assert_eq!(packed[4] & 0x20, 0x20, "block independence flag");
}
