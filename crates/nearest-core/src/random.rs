//! Numbers from a seed.

/// `SplitMix64` (Steele, Lea and Flood 2014): a few words of state, the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// What follows from `seed`; `stream` tells uses of one seed apart.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut start = Random(seed);
        start.0 = start.bits() ^ stream;
        Random(start.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0. (Off from uniform by less than `n` in 2⁶⁴.)
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// `m` of the numbers below `n`, each set as likely as any other, in ascending order.
    ///
    /// One number of every `n` is looked at (Knuth's algorithm S).
    pub fn choose(&mut self, m: usize, n: usize) -> Vec<u32> {
        debug_assert!(m <= n && u32::try_from(n).is_ok());
        let mut chosen = Vec::with_capacity(m);
        let mut i = 0;
        while chosen.len() < m {
            if self.below(n - i) < m - chosen.len() {
                chosen.push(i as u32);
            }
            i += 1;
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_chosen_as_often() {
        let mut random = Random::new(1, 2);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            let chosen = random.choose(3, 10);
            assert!(chosen.len() == 3 && chosen.is_sorted_by(|a, b| a < b));
            chosen.iter().for_each(|&i| counts[i as usize] += 1);
        }
        assert!(counts.iter().all(|&count| (2800..3200).contains(&count)), "{counts:?}");
        assert_eq!(random.choose(5, 5), [0, 1, 2, 3, 4]);
        assert!(random.choose(0, 5).is_empty());
    }

    #[test]
    fn streams_and_seeds_differ() {
        let first = |seed, stream| Random::new(seed, stream).bits();
        assert!(first(0, 0) != first(0, 1) && first(0, 0) != first(1, 0) && first(1, 0) != first(0, 1));
        assert_eq!(first(7, 7), first(7, 7));
    }
}
