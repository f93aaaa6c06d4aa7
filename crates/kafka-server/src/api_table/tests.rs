use super::*;

#[test]
fn keys_are_unique_and_ascending() {
    assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
}

#[test]
fn every_row_is_found_by_its_key() {
    for (index, api) in APIS.iter().enumerate() {
        assert_eq!(find(api.key), Some(Row(index)), "{}", api.name);
        assert!(api.advertised_min_version <= api.min_version && api.min_version <= api.max_version, "{}", api.name);
    }
    assert_eq!(find(-1), None);
    assert_eq!(find(i16::MAX), None);
}
