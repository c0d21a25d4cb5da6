//! A filter that says "never seen" for certain and "perhaps seen" else. This module saves nearly every look-up on
//! the disk: nearly every key is new.
//!
//! It is a split-block Bloom filter: a digest picks one block of a cache line and sets one bit in each of its eight
//! words, so a question costs one miss of the cache. With 16 bits for each identity it is wrong about one new
//! identity in a thousand, which then costs a look-up and nothing else.

use super::Digest;

const WORDS: usize = 8;
const WORD_BYTES: usize = 8;

/// 16,384 blocks of 512 bits: 1 MiB for the 524,288 identities that a table holds at most.
const BLOCKS: usize = 16_384;

/// The identities of one table.
pub(super) struct Filter(Box<[[u64; WORDS]]>);

impl Filter {
    /// Its size in memory and on the disk.
    pub(super) const BYTES: usize = BLOCKS * WORDS * WORD_BYTES;

    pub(super) fn new() -> Self {
        Self(vec![[0; WORDS]; BLOCKS].into_boxed_slice())
    }

    pub(super) fn add(&mut self, digest: &Digest) {
        let (block, bits) = places(digest);
        for (word, bit) in self.0[block].iter_mut().zip(bits) {
            *word |= bit;
        }
    }

    /// False: it was never added.
    pub(super) fn may_hold(&self, digest: &Digest) -> bool {
        let (block, bits) = places(digest);
        self.0[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    /// For the disk.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// None: these bytes are no filter of this kind.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let mut filter = Self::new();
        for (word, bytes) in filter.0.iter_mut().flatten().zip(bytes.chunks_exact(WORD_BYTES)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(filter)
    }
}

/// The block of a digest, and one bit for each of its words. The digest is evenly distributed, so parts of it do.
fn places(digest: &Digest) -> (usize, [u64; WORDS]) {
    let block = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % BLOCKS;
    let mut bits = [0; WORDS];
    for (bit, byte) in bits.iter_mut().zip(&digest[2..]) {
        *bit = 1 << (byte % 64);
    }
    (block, bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn digest(number: u32) -> Digest {
        let hash = Sha256::digest(number.to_le_bytes());
        hash[..16].try_into().unwrap()
    }

    #[test]
    fn nothing_added_is_denied_and_little_else_is_affirmed() {
        let mut filter = Filter::new();
        (0..500_000).for_each(|number| filter.add(&digest(number)));
        assert!((0..500_000).all(|number| filter.may_hold(&digest(number))));
        let wrong = (500_000..600_000).filter(|number| filter.may_hold(&digest(*number))).count();
        assert!(wrong < 200, "{wrong} of 100,000 new ones");
    }

    #[test]
    fn a_filter_survives_the_disk() {
        let mut filter = Filter::new();
        (0..1000).for_each(|number| filter.add(&digest(number)));
        let again = Filter::from_bytes(&filter.to_bytes()).unwrap();
        assert_eq!(again.0, filter.0);
        assert!(Filter::from_bytes(&[0; 9]).is_none());
    }
}
