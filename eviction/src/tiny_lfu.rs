//! W-TinyLFU: what is new has to have been asked for more often than what it would displace.
//!
//! Sources: G. Einziger, R. Friedman and B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM Transactions on
//! Storage 13 (2017); the window that finds its own size, G. Einziger, O. Eytan, R. Friedman and B. Manes, "Adaptive software
//! cache management", Middleware 2018.
//!
//! What is new is in a window, used last first. What falls out of the window stands for the main part, which is divided
//! into what was used again there (protected) and what was not (probation). When something has to go, the one that came from
//! the window and the oldest on probation are compared by a sketch of how often each was asked for.
//! The window takes what the main part gives or the other way round, as long as that brings more hits.

use crate::draw::Draw;
use crate::ghost::fingerprint;
use crate::policy::{Facts, Policy, PolicyKind};
use crate::sketch::Sketch;
use crate::slab::{List, Slab};

/// The window's share of the weight to begin with, in a thousandth.
const WINDOW_FIRST: f64 = 10.0;
const WINDOW_MAX: f64 = 800.0;
const WINDOW_MIN: f64 = 5.0;
/// The protected part's share of the main part, in percent.
const PROTECTED_PERCENT: u64 = 80;
/// The window's size is looked at after so many requests per slot held.
const SAMPLE: u64 = 10;
/// The first step, in a thousandth, and what becomes of it from step to step.
const STEP_FIRST: f64 = 30.0;
const STEP_DECAY: f64 = 0.98;
/// And from turn to turn: a window that is as good as it can be comes to rest instead of swinging around that size.
const TURN_DECAY: f64 = 0.5;
/// A change of the hit ratio that is none: then the step is halved, so that the window comes to rest.
const LEVEL: f64 = 0.003;
/// The sketch has counters for so many keys, or for eight times those held while that is less: a sketch for a handful of keys
/// would take all keys for the same.
const SKETCH_MIN: usize = 256;
/// A change of the hit ratio after which the search begins anew.
const RESTART: f64 = 0.05;
/// A newcomer asked for less often than this loses a draw; above, it wins one in 1024, so that nobody can keep keys out or
/// in by steering the sketch.
const DRAW_MIN: u64 = 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Window,
    Probation,
    Protected,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    fingerprint: u32,
    weight: u32,
    part: Part,
}

/// How the window's size is found: by climbing where the hit ratio rises.
#[derive(Debug)]
struct Climber {
    hits: u64,
    misses: u64,
    ratio: f64,
    step: f64,
}

/// 20 bytes a slot and 8 to 16 for the sketch; a few keys more.
#[derive(Debug)]
pub(crate) struct TinyLfu {
    slab: Slab<Held>,
    lists: [List; 3],
    weights: [u64; 3],
    sketch: Sketch,
    /// The last one that left the window; it stands for its place.
    candidate: Option<u32>,
    /// In a thousandth of the weight.
    window: f64,
    climber: Climber,
    draw: Draw,
}

impl TinyLfu {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slab: Slab::default(),
            lists: [List::default(); 3],
            weights: [0; 3],
            sketch: Sketch::default(),
            candidate: None,
            window: WINDOW_FIRST,
            climber: Climber {
                hits: 0,
                misses: 0,
                ratio: 0.0,
                step: STEP_FIRST,
            },
            draw: Draw::new(seed),
        }
    }

    fn total(&self) -> u64 {
        self.weights.iter().sum()
    }

    fn carry(&mut self, slot: u32, to: Part) {
        let Some(held) = self.slab.get_mut(slot) else {
            return;
        };
        let (from, weight) = (held.part, u64::from(held.weight));
        held.part = to;
        let mut source = self.lists[from as usize];
        if from == to {
            self.slab.refresh(&mut source, slot);
        } else {
            self.slab
                .carry(&mut source, &mut self.lists[to as usize], slot);
        }
        self.lists[from as usize] = source;
        self.weights[from as usize] -= weight;
        self.weights[to as usize] += weight;
    }

    /// Lets what is too much fall out of the window; at most two, so that a smaller window empties step by step.
    fn narrow(&mut self) {
        let most = (self.total() as f64 * self.window / 1_000.0) as u64;
        for _ in 0..2 {
            let window = self.lists[Part::Window as usize];
            if self.weights[Part::Window as usize] <= most || window.head() == window.tail() {
                return;
            }
            if let Some(slot) = window.tail() {
                self.carry(slot, Part::Probation);
                self.candidate = Some(slot);
            }
        }
    }

    /// Takes what is too much out of the protected part.
    fn relegate(&mut self) {
        let main = self.total() - self.weights[Part::Window as usize];
        for _ in 0..2 {
            if self.weights[Part::Protected as usize] * 100 <= main * PROTECTED_PERCENT {
                return;
            }
            let Some(slot) = self.lists[Part::Protected as usize].tail() else {
                return;
            };
            self.carry(slot, Part::Probation);
        }
    }

    fn take(&mut self, slot: u32) -> bool {
        let Some(held) = self.slab.get(slot).copied() else {
            return false;
        };
        let part = held.part as usize;
        let mut list = self.lists[part];
        self.slab.remove(&mut list, slot);
        self.lists[part] = list;
        self.weights[part] -= u64::from(held.weight);
        if self.candidate == Some(slot) {
            self.candidate = None;
        }
        if self.slab.len() == 0 {
            self.sketch.clear();
        }
        true
    }

    /// Whether `candidate` stays and `victim` goes.
    fn admits(&mut self, candidate: u32, victim: u32) -> bool {
        let estimate = |slot| {
            let held = self.slab.get(slot);
            held.map_or(0, |held| self.sketch.estimate(held.fingerprint))
        };
        let (new, old) = (estimate(candidate), estimate(victim));
        new > old || (new >= DRAW_MIN && self.draw.next() >> 54 == 0)
    }

    fn climb(&mut self) {
        let Climber { hits, misses, .. } = self.climber;
        if hits + misses < SAMPLE * self.slab.len().max(1) as u64 {
            return;
        }
        let climber = &mut self.climber;
        let ratio = hits as f64 / (hits + misses) as f64;
        let change = ratio - climber.ratio;
        let step = if change > 0.0 {
            climber.step
        } else {
            -climber.step * TURN_DECAY
        };
        climber.step = if change.abs() >= RESTART {
            STEP_FIRST.copysign(step)
        } else if change.abs() < LEVEL {
            step / 2.0
        } else {
            step * STEP_DECAY
        };
        climber.ratio = ratio;
        climber.hits = 0;
        climber.misses = 0;
        self.window = (self.window + step).clamp(WINDOW_MIN, WINDOW_MAX);
    }
}

impl Policy for TinyLfu {
    fn kind(&self) -> PolicyKind {
        PolicyKind::TinyLfu
    }

    fn insert(&mut self, slot: u32, facts: Facts, _: u64) {
        let held = Held {
            fingerprint: fingerprint(facts.hash),
            weight: facts.weight,
            part: Part::Window,
        };
        let mut list = self.lists[Part::Window as usize];
        self.slab.insert(&mut list, slot, held);
        self.lists[Part::Window as usize] = list;
        self.weights[Part::Window as usize] += u64::from(facts.weight);
        let keys = self.slab.len();
        self.sketch.fit(keys.max((keys * 8).min(SKETCH_MIN)));
        self.sketch.add(held.fingerprint);
        self.climber.misses += 1;
        self.climb();
        self.narrow();
        self.relegate();
    }

    fn access(&mut self, slot: u32, _: u64) {
        let Some(held) = self.slab.get(slot).copied() else {
            return;
        };
        self.sketch.add(held.fingerprint);
        self.climber.hits += 1;
        match held.part {
            Part::Window => self.carry(slot, Part::Window),
            Part::Probation | Part::Protected => {
                self.carry(slot, Part::Protected);
                self.relegate();
            }
        }
        self.climb();
    }

    fn update(&mut self, slot: u32, facts: Facts, now: u64) {
        let Some(held) = self.slab.get_mut(slot) else {
            return;
        };
        let (part, old) = (held.part as usize, held.weight);
        held.weight = facts.weight;
        self.weights[part] = self.weights[part] - u64::from(old) + u64::from(facts.weight);
        self.access(slot, now);
    }

    fn remove(&mut self, slot: u32) -> bool {
        self.take(slot)
    }

    fn evict(&mut self) -> Option<u32> {
        let [window, probation, protected] = self.lists;
        let candidate = self.candidate.take().filter(|slot| {
            self.slab
                .get(*slot)
                .is_some_and(|held| held.part == Part::Probation)
        });
        let oldest = probation
            .tail()
            .filter(|slot| Some(*slot) != candidate)
            .or(protected.tail());
        let victim = match (candidate, oldest) {
            (Some(candidate), Some(victim)) if self.admits(candidate, victim) => victim,
            (Some(candidate), _) => candidate,
            (None, Some(victim)) => victim,
            (None, None) => window.tail()?,
        };
        self.take(victim);
        Some(victim)
    }

    fn contains(&self, slot: u32) -> bool {
        self.slab.contains(slot)
    }

    fn urgency(&self, _: u64) -> Option<u64> {
        None
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn bytes(&self) -> usize {
        self.slab.bytes() + self.sketch.bytes()
    }
}
