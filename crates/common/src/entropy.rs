//! Randomness as a port.

use std::fmt::Debug;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

/// A source of random bits. Not for secrets.
pub trait Entropy: Send + Sync + Debug {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A random (version 4) UUID.
    fn uuid(&self) -> Uuid {
        let bits = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }
}

/// A small, fast generator, seeded by the operating system or by a number of the caller's.
#[derive(Debug)]
pub struct SmallEntropy(Mutex<SmallRng>);

impl SmallEntropy {
    /// Seeded by the operating system: another sequence each time.
    pub fn from_os() -> Self {
        Self(Mutex::new(SmallRng::from_os_rng()))
    }

    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Entropy for SmallEntropy {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}
