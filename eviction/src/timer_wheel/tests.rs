//! The wheel against a sorted map, and what the map cannot see: links, places, bytes, work.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

impl TimerWheel {
    /// Every timer is where it belongs and every link, bit, count and byte agrees.
    fn validate(&self) {
        let Some(wheel) = &self.wheel else {
            return;
        };
        assert!(!self.is_empty(), "an empty wheel is released");
        let spreading = wheel.spreading.map(|level| Bucket::at(level, wheel.base));
        for (index, bucket) in (0..).zip(wheel.rings.walk()) {
            let timer = wheel.rings.timer(index);
            assert!(timer.due() >= wheel.base);
            if Some(bucket) == spreading {
                assert_eq!(wheel.base, wheel.start(bucket));
                assert!(timer.due() - wheel.base <= bucket.below());
            } else {
                assert_eq!(bucket, Bucket::of(wheel.base, timer.due()));
            }
            assert_eq!(wheel.slots.get(timer.slot()), Some(index));
        }
        assert_eq!(wheel.slots.walk().len(), self.len());
    }
}

/// A wheel and what it should hold.
#[derive(Default)]
struct Pair {
    wheel: TimerWheel,
    due_by_slot: BTreeMap<u32, u64>,
    by_due: BTreeSet<(u64, u32)>,
}

impl Pair {
    fn set(&mut self, slot: u32, due: u64, now: u64) {
        let earlier = self.due_by_slot.insert(slot, due);
        if let Some(earlier) = earlier {
            self.by_due.remove(&(earlier, slot));
        }
        self.by_due.insert((due, slot));
        assert_eq!(self.wheel.set(slot, due, now), earlier.is_some());
        self.check();
    }

    fn clear(&mut self, slot: u32) {
        let earlier = self.due_by_slot.remove(&slot);
        if let Some(due) = earlier {
            self.by_due.remove(&(due, slot));
        }
        assert_eq!(self.wheel.clear(slot), earlier.is_some());
        self.check();
    }

    /// One slice: what fires is due, known and within the budget, and false means all.
    fn expire(&mut self, now: u64, budget: usize) -> bool {
        let mut fired = 0;
        let more = self.wheel.expire(now, budget, |slot| {
            let due = self.due_by_slot.remove(&slot).expect("fires once");
            assert!(due <= now, "{slot} fired at {now}, before {due}");
            assert!(self.by_due.remove(&(due, slot)));
            fired += 1;
        });
        assert!(fired <= budget);
        if !more {
            assert!(
                self.earliest().is_none_or(|due| due > now),
                "not all that is due fired"
            );
            assert!(
                self.wheel.next_due().is_none_or(|next| next > now),
                "asks for the past"
            );
        }
        self.check();
        more
    }

    /// Slices until nothing is due, which must come within the work that the timers can cost.
    fn drain(&mut self, now: u64, budget: usize) {
        let budget = budget.max(1);
        let mut slices = self.wheel.len() * 11 / budget + 1;
        while self.expire(now, budget) {
            slices = slices
                .checked_sub(1)
                .expect("every full slice makes progress");
        }
    }

    fn earliest(&self) -> Option<u64> {
        self.by_due.first().map(|&(due, _)| due)
    }

    fn check(&self) {
        self.wheel.validate();
        assert_eq!(self.wheel.len(), self.by_due.len());
        assert_eq!(self.wheel.is_empty(), self.by_due.is_empty());
        assert_eq!(self.wheel.bytes() == 0, self.by_due.is_empty());
        match (self.wheel.next_due(), self.earliest()) {
            (None, None) => (),
            (Some(next), Some(earliest)) => assert!(next <= earliest, "{next} is after {earliest}"),
            (next, earliest) => panic!("next is {next:?}, the earliest {earliest:?}"),
        }
        for (&slot, &due) in &self.due_by_slot {
            assert_eq!(self.wheel.due(slot), Some(due));
        }
    }

    /// Sleeps from one `next_due` to the next until all has fired, each at its very instant
    /// unless that was past at the start.
    fn sleep_to_the_end(&mut self, start: u64) {
        let mut now = start;
        let mut wakes = self.wheel.len() * 11;
        while let (Some(next), Some(earliest)) = (self.wheel.next_due(), self.earliest()) {
            now = now.max(next);
            assert!(
                now == start || now <= earliest,
                "slept through {earliest} until {now}"
            );
            self.expire(now, usize::MAX);
            wakes = wakes.checked_sub(1).expect("every wake makes progress");
        }
        assert_eq!(self.earliest(), None);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        slot: u32,
        due: Due,
    },
    Clear {
        slot: u32,
    },
    Tick {
        by: u64,
    },
    /// Right before, to or right after the instant that the wheel asks for.
    Next {
        off: i64,
    },
    GoBack {
        by: u64,
    },
    Expire {
        budget: usize,
    },
    Drain {
        budget: usize,
    },
}

#[derive(Debug, Clone)]
enum Due {
    In(u64),
    Ago(u64),
    At(u64),
}

/// Spans of every order of magnitude alike.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0_u32..24).prop_flat_map(|bits| 0..=(1_u64 << bits)),
        1 => (0_u32..64).prop_flat_map(|bits| 0..=(1_u64 << bits)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let slot = prop_oneof![8 => 0_u32..40, 1 => 0_u32..5000];
    let due = prop_oneof![
        8 => span().prop_map(Due::In),
        1 => span().prop_map(Due::Ago),
        1 => prop::sample::select(vec![0, 1, u64::MAX - 1, u64::MAX]).prop_map(Due::At),
    ];
    let budget = prop_oneof![4 => 0_usize..6, 1 => Just(usize::MAX)];
    prop_oneof![
        8 => (slot.clone(), due).prop_map(|(slot, due)| Step::Set { slot, due }),
        2 => slot.prop_map(|slot| Step::Clear { slot }),
        3 => span().prop_map(|by| Step::Tick { by }),
        3 => (-1_i64..=1).prop_map(|off| Step::Next { off }),
        1 => span().prop_map(|by| Step::GoBack { by }),
        3 => budget.clone().prop_map(|budget| Step::Expire { budget }),
        1 => budget.prop_map(|budget| Step::Drain { budget }),
    ]
}

proptest! {
    /// Whatever is set and cleared, wherever the clock goes and however small the slices are.
    #[test]
    fn a_wheel_agrees_with_a_sorted_map(
        start in prop_oneof![Just(0), Just(1_700_000_000_000), Just(u64::MAX), any::<u64>()],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::default();
        let mut now = start;
        for step in steps {
            match step {
                Step::Set { slot, due } => {
                    let due = match due {
                        Due::In(span) => now.saturating_add(span),
                        Due::Ago(span) => now.saturating_sub(span),
                        Due::At(due) => due,
                    };
                    pair.set(slot, due, now);
                }
                Step::Clear { slot } => pair.clear(slot),
                Step::Tick { by } => now = now.saturating_add(by),
                Step::Next { off } => {
                    let next = pair.wheel.next_due().unwrap_or(now);
                    now = next.saturating_add_signed(off);
                }
                Step::GoBack { by } => now = now.saturating_sub(by),
                Step::Expire { budget } => {
                    pair.expire(now, budget);
                }
                Step::Drain { budget } => pair.drain(now, budget),
            }
        }
        pair.sleep_to_the_end(now);
        prop_assert_eq!(pair.wheel.bytes(), 0);
    }
}

#[test]
fn a_wheel_without_timers_is_one_pointer_and_no_heap() {
    assert_eq!(size_of::<TimerWheel>(), size_of::<usize>());
    let mut wheel = TimerWheel::new();
    assert_eq!((wheel.len(), wheel.bytes(), wheel.next_due()), (0, 0, None));
    assert!(!wheel.clear(0));
    assert!(!wheel.expire(u64::MAX, usize::MAX, |_| unreachable!("nothing to fire")));
    for slot in 0..1000 {
        wheel.set(slot, u64::from(slot) << 20, 0);
    }
    assert!(wheel.bytes() > 0);
    for slot in 0..500 {
        assert!(wheel.clear(slot));
    }
    assert!(!wheel.expire(u64::MAX, usize::MAX, drop));
    assert_eq!((wheel.len(), wheel.bytes(), wheel.next_due()), (0, 0, None));
}

/// One timer at each distance: it fires at its instant and not a millisecond before, and the
/// wheel is looked at no more than once a level.
#[test]
fn a_timer_at_any_distance_fires_at_its_instant() {
    for base in [0, 1, 63, 64, 1_700_000_000_123] {
        for bits in 0..64 {
            for off in [-1, 0, 1] {
                let due = (base + (1_u64 << bits)).wrapping_add_signed(off);
                let mut wheel = TimerWheel::new();
                wheel.set(7, due, base);
                let mut wakes = 0;
                let mut fired = None;
                while let Some(next) = wheel.next_due() {
                    assert!(next <= due);
                    if next == due && due > 0 {
                        wheel.expire(due - 1, usize::MAX, |_| panic!("early"));
                    }
                    wheel.expire(next, usize::MAX, |slot| fired = Some((slot, next)));
                    wakes += 1;
                }
                assert_eq!(fired, Some((7, due)), "from {base}");
                assert!(wakes <= 11, "{wakes} wakes from {base} to {due}");
            }
        }
    }
}

/// A million keys written with the same expiry: no slice does more than its budget, all fire, none
/// early, and the memory is given back on the way.
#[test]
fn a_million_timers_of_one_instant_fire_in_slices() {
    const TIMERS: u32 = 1_000_000;
    const BUDGET: usize = 1000;
    let now = 1_700_000_000_000;
    let due = now + 3_600_000;
    let mut wheel = TimerWheel::new();
    for slot in 0..TIMERS {
        wheel.set(slot, due, now);
    }
    let full = wheel.bytes();
    assert!(full < 60 * TIMERS as usize);
    let mut fired = vec![false; TIMERS as usize];
    let (mut count, mut slices, mut half) = (0, 0, full);
    while let Some(next) = wheel.next_due() {
        let before = count;
        wheel.expire(next, BUDGET, |slot| {
            assert!(next >= due && !std::mem::replace(&mut fired[slot as usize], true));
            count += 1;
        });
        assert!(count - before <= BUDGET);
        slices += 1;
        if count <= TIMERS as usize * 7 / 8 {
            half = wheel.bytes();
        }
    }
    assert_eq!(count, TIMERS as usize);
    assert!(slices <= 12 * TIMERS as usize / BUDGET);
    assert!(
        half < full / 2,
        "{half} of {full} bytes are still held by an eighth of the timers"
    );
}

/// While a far bucket is being spread in slices, timers can be set, replaced and cleared in it, and
/// the clock can go back to before it.
#[test]
fn a_bucket_that_is_half_spread_can_be_changed() {
    for back in [0, 1, 5_000, 10_000_000] {
        let mut pair = Pair::default();
        let start = 1_700_000_000_000;
        for slot in 0..100 {
            pair.set(slot, start + 400_000 + u64::from(slot % 10), start);
        }
        let now = pair.wheel.next_due().unwrap();
        assert!(pair.expire(now, 50), "only half of it is spread");
        assert_eq!(pair.wheel.next_due(), Some(now), "the rest comes first");
        let now = now - back;
        for slot in (0..100).step_by(3) {
            pair.set(slot, now + u64::from(slot), now);
        }
        for slot in (0..100).step_by(4) {
            pair.clear(slot);
        }
        pair.expire(now, 5);
        pair.set(200, now + 1, now);
        pair.sleep_to_the_end(now);
    }
}

/// A request may come at the very instant for which the wheel asked, before `expire` does.
#[test]
fn a_timer_set_when_a_bucket_is_reached_does_not_overtake_it() {
    let mut pair = Pair::default();
    let start = 1_700_000_000_000;
    pair.set(0, start + 400_001, start);
    let now = pair.wheel.next_due().unwrap();
    pair.set(1, start + 400_002, now);
    pair.set(2, now, now);
    pair.sleep_to_the_end(now);
}

/// A far timer does not make the wheel look at near ones in steps as coarse as its own.
#[test]
fn a_near_timer_is_exact_although_the_wheel_rested_long() {
    let start = 1_700_000_000_000 / 64 * 64;
    let mut wheel = TimerWheel::new();
    wheel.set(0, start + (1 << 40), start);
    for now in [start + (1 << 20), start + (1 << 30)] {
        wheel.set(1, now + 63, now);
        assert_eq!(wheel.next_due(), Some(now + 63));
        wheel.clear(1);
    }
    let now = start + (1 << 35);
    assert!(!wheel.expire(now, 1, |_| panic!("early")));
    wheel.set(1, now + 63, now);
    assert_eq!(wheel.next_due(), Some(now + 63));
}

/// The clock jumped a year ahead by mistake and back: what was set by the wrong clock fires then,
/// what is set by the right one fires now, and neither waits for the other.
#[test]
fn a_clock_that_goes_back_delays_only_what_it_dated_ahead() {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let now = 1_700_000_000_000;
    let mut pair = Pair::default();
    pair.set(0, now + 2 * YEAR, now);
    pair.drain(now + YEAR, 10);
    pair.set(1, now + YEAR + 50, now + YEAR);
    for slot in 2..50 {
        pair.set(slot, now + u64::from(slot), now);
        assert!(pair.wheel.next_due().unwrap() <= now + 2);
    }
    pair.drain(now + 49, 10);
    assert_eq!(pair.wheel.len(), 2);
    pair.sleep_to_the_end(now + 49);
}

/// Timers set each before the last take the base back every time.
#[test]
fn timers_set_in_reverse_fire_in_order() {
    let mut wheel = TimerWheel::new();
    let top = 1_u64 << 40;
    for slot in 0..100_000_u32 {
        wheel.set(slot, top - u64::from(slot) * 997, top);
    }
    wheel.validate();
    let mut last = 0;
    while let Some(next) = wheel.next_due() {
        wheel.expire(next, 64, |slot| {
            let due = top - u64::from(slot) * 997;
            assert!(due > last && due <= next);
            last = due;
        });
    }
    assert_eq!(last, top);
}

/// Some slots far apart: the index costs by group, and gives groups back.
#[test]
fn memory_follows_the_timers() {
    let mut wheel = TimerWheel::new();
    wheel.set(0, 10, 0);
    let one = wheel.bytes();
    assert!(one < 1500, "{one} bytes for the first timer");
    wheel.set(1_000_000, 10, 0);
    let sparse = wheel.bytes();
    assert!(
        sparse - one < 2 * 1_000_000 / 8 + 1000,
        "{sparse} bytes for two timers"
    );
    wheel.clear(1_000_000);
    assert_eq!(sparse - wheel.bytes(), 65 * 4, "one group of slots");
    let dense = 10_000;
    for slot in 0..dense {
        wheel.set(slot, 10, 0);
    }
    wheel.clear(0);
    let bytes = wheel.bytes();
    wheel.set(0, 10, 0);
    assert_eq!(
        wheel.bytes(),
        bytes,
        "a slot that comes back finds its place"
    );
}
