//! Randomness as a port.

use std::fmt::Debug;

use parking_lot::Mutex;
use rand::rngs::{OsRng, SmallRng};
use rand::{RngCore, SeedableRng, TryRngCore};
use uuid::Uuid;

/// A source of random bits. Whoever has seen some must not be able to tell others: names that clients get to see and salts that they must
/// not guess come from the same source.
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

/// The operating system's random bits.
#[derive(Debug)]
pub struct SystemEntropy {
    /// For a system that has none to give.
    fallback: SmallEntropy,
}

impl SystemEntropy {
    /// See the type.
    pub fn new() -> Self {
        Self { fallback: SmallEntropy(Mutex::new(SmallRng::from_os_rng())) }
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        OsRng.try_next_u64().unwrap_or_else(|_| self.fallback.next_u64())
    }
}

/// A small, fast generator for simulations: it can be predicted.
#[derive(Debug)]
pub struct SmallEntropy(Mutex<SmallRng>);

impl SmallEntropy {
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
