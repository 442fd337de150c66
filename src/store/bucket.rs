//! Which part of the store a limiter is in, and the names of the keys of it.
//!
//! Owns the spreading. Must never change it: two replicas that spread a limiter differently would
//! each give it a quota. Pure.

/// The slots of a Cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// A part of the store whose limiters share an epoch: one node holds all its keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Bucket {
    number: u16,
    of: u16,
}

impl Bucket {
    /// All of `of` buckets.
    pub(crate) fn all(of: u16) -> impl Iterator<Item = Self> {
        (0..of).map(move |number| Self { number, of })
    }

    /// The one of `of` buckets that a limiter is in.
    pub(crate) fn of(limiter: &str, of: u16) -> Self {
        // FNV-1a: no key is needed, since nobody chooses the names of limiters but the operator.
        let hash = limiter
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        let number = u16::try_from(hash % u64::from(of.max(1))).unwrap_or(0);
        Self { number, of }
    }

    /// From 0.
    pub fn number(self) -> u16 {
        self.number
    }

    /// What Redis hashes of each key, so that all are on one node.
    fn tag(self) -> String {
        match self.of {
            1 => "tg".to_owned(),
            _ => format!("tg:{}", self.number),
        }
    }

    /// The key of the epoch.
    pub(crate) fn epoch_key(self) -> String {
        format!("{{{}}}:e", self.tag())
    }

    /// The key of a limiter's window in an epoch.
    pub(crate) fn window_key(self, limiter: &str, epoch: i64) -> String {
        format!("{{{}}}:w:{limiter}:{epoch}", self.tag())
    }

    /// The slot of a Cluster that its keys are in.
    pub(crate) fn slot(self) -> u16 {
        crc16(self.tag().as_bytes()) % SLOTS
    }
}

/// CRC-16/XMODEM, as the Cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_slot_is_the_one_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert!(Bucket::all(256).all(|bucket| bucket.slot() < SLOTS));
    }

    #[test]
    fn a_limiter_is_always_in_the_same_bucket_and_all_buckets_are_used() {
        let numbers: BTreeSet<u16> = (0..5_000)
            .map(|n| Bucket::of(&format!("a{n}/g"), 256).number())
            .collect();
        assert_eq!(numbers.len(), 256);
        // What another version of the program must find too.
        assert_eq!(Bucket::of("acme/faces", 256).number(), 182);
        assert_eq!(Bucket::of("acme/faces", 1).epoch_key(), "{tg}:e");
        let bucket = Bucket::of("acme/faces", 256);
        assert_eq!(
            bucket.window_key("acme/faces", 7),
            "{tg:182}:w:acme/faces:7"
        );
    }
}
