"""The flights story on a part of the data; `make demo` runs all of it."""

from flights import story


def test_flights(tmp_path):
    table = story(tmp_path, limit=80_000)
    assert table["mismatches"] == 0 and table["keys out of order"] == 0
    assert table["records in"] == table["records replayed"] == "80,000"
