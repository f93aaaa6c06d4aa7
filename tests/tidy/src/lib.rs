//! The rules of the tree are in `tests/`.
