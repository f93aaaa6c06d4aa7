//! One partition as this broker serves it.

/// One partition as this broker serves it.
#[derive(Debug)]
pub struct Partition {
    _private: (),
}
