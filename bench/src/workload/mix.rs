//! Mixes of operations and the order of keys: what one worker asks, one after the other, from its seed.
//!
//! The lettered mixes have the shapes of YCSB's core workloads (B. Cooper et al., "Benchmarking cloud serving systems
//! with YCSB", SoCC 2010). The store has no order of keys, so that the scans of E are pages of a listing.

use clap::ValueEnum;

use crate::workload::zipf::Zipf;

/// One thing that a client wants; some take two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get,
    Put,
    Patch,
    Delete,
    /// A page of the listing of keys.
    List,
    /// A page of keys with their values.
    Scan,
    /// A key that was not there before.
    Insert,
    /// Read a key, then write it.
    Modify,
    /// Read a key; if it is missing, write it, as in front of a slower store.
    Through,
    BatchGet,
    BatchPut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mix {
    Get,
    Put,
    Patch,
    List,
    /// GETs and PUTs; --reads says how many of which
    Mixed,
    /// 30 % PUT, 30 % GET, 20 % PATCH, 15 % DELETE, 5 % list
    Crud,
    /// YCSB A: 50 % read, 50 % update
    YcsbA,
    /// YCSB B: 95 % read, 5 % update
    YcsbB,
    /// YCSB C: reads only
    YcsbC,
    /// YCSB D: 95 % read of what is latest, 5 % insert
    YcsbD,
    /// YCSB E: 95 % scan, 5 % insert
    YcsbE,
    /// YCSB F: 50 % read, 50 % read, then write
    YcsbF,
    /// Read; what is missing is written
    Through,
    /// Batches of GETs
    BatchGet,
    /// Batches of PUTs
    BatchPut,
}

impl Mix {
    /// Percentages, which add up to 100.
    pub(crate) fn shares(self, reads_percent: u8) -> Vec<(Ask, u8)> {
        use Ask::{BatchGet, BatchPut, Delete, Get, Insert, List, Modify, Patch, Put, Scan};
        match self {
            Self::Get | Self::YcsbC => vec![(Get, 100)],
            Self::Put => vec![(Put, 100)],
            Self::Patch => vec![(Patch, 100)],
            Self::List => vec![(List, 100)],
            Self::Mixed => vec![(Get, reads_percent), (Put, 100 - reads_percent)],
            Self::Crud => vec![(Put, 30), (Get, 30), (Patch, 20), (Delete, 15), (List, 5)],
            Self::YcsbA => vec![(Get, 50), (Put, 50)],
            Self::YcsbB => vec![(Get, 95), (Put, 5)],
            Self::YcsbD => vec![(Get, 95), (Insert, 5)],
            Self::YcsbE => vec![(Scan, 95), (Insert, 5)],
            Self::YcsbF => vec![(Get, 50), (Modify, 50)],
            Self::Through => vec![(Ask::Through, 100)],
            Self::BatchGet => vec![(BatchGet, 100)],
            Self::BatchPut => vec![(BatchPut, 100)],
        }
    }

    /// Which keys are chosen where nothing else was asked for.
    pub(crate) fn popularity(self) -> Popularity {
        match self {
            Self::YcsbA | Self::YcsbB | Self::YcsbC | Self::YcsbE | Self::YcsbF | Self::Through => {
                Popularity::Zipf
            }
            Self::YcsbD => Popularity::Latest,
            _ => Popularity::Uniform,
        }
    }

    /// Whether keys may be missing without anything being wrong.
    pub(crate) fn misses(self) -> bool {
        matches!(self, Self::Crud | Self::Through)
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Which keys are asked for how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Popularity {
    /// All alike
    Uniform,
    /// By Zipf's law; the popular ones are spread over all keys
    Zipf,
    /// By Zipf's law, the newest most
    Latest,
}

/// In which order keys are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// Each with the same chance.
    Uniform,
    /// By Zipf's law with this exponent, spread over all keys.
    Zipf(f64),
    /// By Zipf's law with this exponent, the newest key most.
    Latest(f64),
    /// `first`, `first + step`, …: workers with the same step and different firsts meet every key once.
    Every { first: u64, step: u64 },
}

/// Which worker of how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) workers: u64,
}

/// One worker's sequence of questions.
#[derive(Debug)]
pub(crate) struct Questions {
    random: fastrand::Rng,
    keys: u64,
    order: Order,
    zipf: Option<Zipf>,
    asked: u64,
    shares: Vec<(Ask, u8)>,
    place: Place,
    /// New keys asked for by this worker, and those of them that are known to be there.
    inserts: u64,
    inserted: Vec<u64>,
}

impl Questions {
    pub(crate) fn new(
        seed: u64,
        keys: u64,
        order: Order,
        shares: Vec<(Ask, u8)>,
        place: Place,
    ) -> Self {
        let zipf = match order {
            Order::Zipf(exponent) | Order::Latest(exponent) => Some(Zipf::new(keys, exponent)),
            _ => None,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            keys,
            order,
            zipf,
            asked: 0,
            shares,
            place,
            inserts: 0,
            inserted: Vec::new(),
        }
    }

    /// What is asked next, and the number of its key.
    pub(crate) fn next(&mut self) -> (Ask, u64) {
        let ask = self.ask();
        let number = if ask == Ask::Insert {
            self.inserts += 1;
            // No two workers insert the same.
            self.keys + self.place.index + (self.inserts - 1) * self.place.workers
        } else {
            self.number()
        };
        self.asked += 1;
        (ask, number)
    }

    fn ask(&mut self) -> Ask {
        if let [(only, _)] = self.shares[..] {
            return only;
        }
        let mut drawn = self.random.u8(..100);
        for &(ask, share) in &self.shares {
            if drawn < share {
                return ask;
            }
            drawn -= share;
        }
        self.shares.last().map_or(Ask::Get, |&(ask, _)| ask)
    }

    /// The number of some key, in the order of this sequence.
    pub(crate) fn number(&mut self) -> u64 {
        match (self.order, &self.zipf) {
            (Order::Every { first, step }, _) => {
                first.wrapping_add(self.asked.wrapping_mul(step)) % self.keys
            }
            (Order::Zipf(_), Some(zipf)) => spread(zipf.rank(&mut self.random)) % self.keys,
            (Order::Latest(_), Some(zipf)) => {
                let rank = zipf.rank(&mut self.random);
                let new = self.inserted.len() as u64;
                if rank < new {
                    self.inserted[(new - 1 - rank) as usize]
                } else {
                    (self.keys - 1).saturating_sub(rank - new)
                }
            }
            _ => self.random.u64(..self.keys),
        }
    }

    /// The key with this number, asked for as new, is there now.
    pub(crate) fn inserted(&mut self, number: u64) {
        self.inserted.push(number);
    }

    pub(crate) fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }
}

/// Neighbouring ranks end far from each other (the finalizer of SplitMix64; G. Steele et al., OOPSLA 2014).
pub(crate) fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    const ALONE: Place = Place {
        index: 0,
        workers: 1,
    };

    #[test]
    fn shares_add_up_to_all() {
        for mix in Mix::value_variants() {
            let sum: u32 = mix
                .shares(37)
                .iter()
                .map(|&(_, share)| u32::from(share))
                .sum();
            assert_eq!(sum, 100, "{mix:?}");
        }
    }

    #[test]
    fn workers_that_step_over_each_other_meet_every_key_once() {
        let mut seen = HashSet::new();
        for first in 0..3 {
            let order = Order::Every { first, step: 3 };
            let mut questions = Questions::new(1, 10, order, Mix::Put.shares(0), ALONE);
            for _ in (first..10).step_by(3) {
                assert!(seen.insert(questions.next().1));
            }
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_mix_has_about_its_shares() {
        let mut questions = Questions::new(3, 10, Order::Uniform, Mix::Crud.shares(0), ALONE);
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..10_000 {
            *counts
                .entry(format!("{:?}", questions.next().0))
                .or_default() += 1;
        }
        for (ask, share) in Mix::Crud.shares(0) {
            let (found, expected) = (counts[&format!("{ask:?}")], u32::from(share) * 100);
            assert!(
                found.abs_diff(expected) < 300,
                "{ask:?}: {found} of 10000, seed 3"
            );
        }
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        for order in [Order::Uniform, Order::Zipf(0.99), Order::Latest(0.99)] {
            let ask = |seed| {
                let mut questions = Questions::new(seed, 1_000, order, Mix::YcsbD.shares(0), ALONE);
                (0..500)
                    .map(|_| format!("{:?}", questions.next()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(ask(7), ask(7), "{order:?}");
            assert_ne!(ask(7), ask(8), "{order:?}");
        }
    }

    /// Reads of the latest keys read what was inserted, once it is known to be there, and never before.
    #[test]
    fn the_latest_are_the_inserted_ones() {
        let mut questions =
            Questions::new(5, 1_000, Order::Latest(0.99), Mix::YcsbD.shares(0), ALONE);
        let mut there: HashSet<u64> = (0..1_000).collect();
        let mut new_reads = 0;
        for _ in 0..20_000 {
            match questions.next() {
                (Ask::Insert, number) => {
                    assert!(there.insert(number), "{number} was inserted twice");
                    questions.inserted(number);
                }
                (_, number) => {
                    assert!(there.contains(&number), "{number} is not there");
                    new_reads += u32::from(number >= 1_000);
                }
            }
        }
        assert!(new_reads > 5_000, "{new_reads} reads of new keys, seed 5");
    }

    #[test]
    fn popular_keys_are_spread() {
        let mut questions = Questions::new(5, 10_000, Order::Zipf(0.99), Mix::Get.shares(0), ALONE);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for _ in 0..100_000 {
            *counts.entry(questions.next().1).or_default() += 1;
        }
        let mut popular: Vec<_> = counts.into_iter().collect();
        popular.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        assert!(
            popular[0].1 > 5_000,
            "the most popular had {}",
            popular[0].1
        );
        assert!(popular[..10].iter().any(|&(number, _)| number > 5_000));
        assert!(popular[..10].iter().any(|&(number, _)| number < 5_000));
    }
}
