//! The siltstone binary.
fn main() {}
