//! What clients know of their keys, and what a disk may therefore hold after a process was killed.
//!
//! Every key is written by one client, which sends one request after another, so it knows what each key went through and in
//! which order. What survives has to be a prefix of the store's sequence: there is a cut, and everything up to it is there and
//! nothing after it. Entity tags tell sequence numbers; a delete tells none, and lies between its client's neighbours.

use std::collections::BTreeMap;

/// A key as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Present {
        version: u64,
        value: String,
        media_type: &'static str,
    },
}

/// One change of one key.
#[derive(Clone, Debug)]
struct Step {
    key: String,
    state: State,
    /// Told by the entity tag of its answer, if it was answered and has one.
    sequence: Option<u64>,
}

/// What one client did and was told, in its order.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    steps: Vec<Step>,
    /// The last state of each key as far as this client was answered.
    known: BTreeMap<String, State>,
    /// Largest sequence that this client was told.
    told: u64,
    /// Largest sequence that it was promised to find again.
    promised: u64,
}

impl Journal {
    pub(crate) fn known(&self, key: &str) -> &State {
        self.known.get(key).unwrap_or(&State::Absent)
    }

    /// A change is about to be asked for. It may happen from here on, answered or not.
    pub(crate) fn asks(&mut self, key: &str, state: State) {
        self.steps.push(Step {
            key: key.to_owned(),
            state,
            sequence: None,
        });
    }

    /// The change asked for `from_last` changes ago was made, as this number if it was told one.
    pub(crate) fn was_told(&mut self, from_last: usize, sequence: Option<u64>, durable: bool) {
        let at = self.steps.len() - 1 - from_last;
        let step = &mut self.steps[at];
        step.sequence = sequence;
        self.known.insert(step.key.clone(), step.state.clone());
        if let Some(sequence) = sequence {
            assert!(
                sequence > self.told,
                "{sequence} came after {}: {step:?}",
                self.told
            );
            self.told = sequence;
        }
        if durable {
            self.promised = self.told;
        }
    }

    /// Largest sequence that this client was told.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised
    }

    /// Everything told so far has to be there again.
    pub(crate) fn promise_all(&mut self) {
        self.promised = self.told;
    }
}

/// What was found on a key after a restart, with the sequence of its last change.
pub(crate) type Found = BTreeMap<String, (State, u64)>;

/// Checks what was `found` against every journal, and has the journals go on from there.
///
/// `used` is the largest sequence of any run so far, told or not.
pub(crate) fn check(journals: &mut [Journal], found: &Found, used: &mut u64) {
    for journal in journals.iter_mut() {
        journal.recognise(found);
    }
    let surviving = found.values().map(|(_, sequence)| *sequence).max();
    let promised = journals.iter().map(Journal::promised).max();
    let cut = surviving.max(promised).unwrap_or(0);
    for key in found.keys() {
        let owned = journals
            .iter()
            .any(|journal| journal.steps.iter().any(|step| step.key == *key));
        assert!(owned, "{key} was never written");
    }
    for journal in journals.iter() {
        journal.check(found, cut);
    }
    *used = journals
        .iter()
        .map(Journal::told)
        .chain([*used, cut])
        .max()
        .unwrap_or(0);
    for journal in journals.iter_mut() {
        journal.go_on_from(found, *used);
    }
}

impl Journal {
    /// A change that was made although its answer got lost tells its number now.
    fn recognise(&mut self, found: &Found) {
        for step in self.steps.iter_mut().filter(|step| step.sequence.is_none()) {
            if let Some((state, sequence)) = found.get(&step.key)
                && *state == step.state
            {
                step.sequence = Some(*sequence);
            }
        }
    }

    fn check(&self, found: &Found, cut: u64) {
        // What a change without a number lies between, seen from both sides.
        let mut below = 0;
        let after: Vec<u64> = self
            .steps
            .iter()
            .map(|step| {
                let after = below;
                below = step.sequence.unwrap_or(below);
                after
            })
            .collect();
        let mut above = u64::MAX;
        let mut before: Vec<u64> = self
            .steps
            .iter()
            .rev()
            .map(|step| {
                let before = above;
                above = step.sequence.unwrap_or(above);
                before
            })
            .collect();
        before.reverse();
        let mut possible: BTreeMap<&str, Vec<(&State, Option<u64>)>> = BTreeMap::new();
        for (at, step) in self.steps.iter().enumerate() {
            let (must, may) = match step.sequence {
                Some(sequence) => (sequence <= cut, sequence <= cut),
                None => (before[at] <= cut, after[at] <= cut),
            };
            let states = possible
                .entry(&step.key)
                .or_insert_with(|| vec![(&State::Absent, None)]);
            if must {
                states.clear();
            }
            if may {
                states.push((&step.state, step.sequence));
            }
        }
        for (key, states) in possible {
            let (state, sequence) = match found.get(key) {
                Some((state, sequence)) => (state, Some(*sequence)),
                None => (&State::Absent, None),
            };
            let allowed = states.iter().any(|(allowed, told)| {
                *allowed == state && (told.is_none() || sequence.is_none() || *told == sequence)
            });
            assert!(
                allowed,
                "{key} is {state:?} as of {sequence:?}; with everything up to {cut} it can only be one of {states:?}; it went \
                 through {:?}",
                self.steps
                    .iter()
                    .filter(|step| step.key == key)
                    .collect::<Vec<_>>()
            );
        }
    }

    fn go_on_from(&mut self, found: &Found, used: u64) {
        let keys: Vec<String> = self.steps.iter().map(|step| step.key.clone()).collect();
        self.steps.clear();
        self.known.clear();
        for key in keys {
            if let Some((state, sequence)) = found.get(&key)
                && self.known.insert(key.clone(), state.clone()).is_none()
            {
                self.steps.push(Step {
                    key,
                    state: state.clone(),
                    sequence: Some(*sequence),
                });
            }
        }
        self.steps.sort_by_key(|step| step.sequence);
        // Numbers of an earlier run never come back.
        self.told = used;
        self.promised = used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(version: u64) -> State {
        State::Present {
            version,
            value: version.to_string(),
            media_type: "application/json",
        }
    }

    /// Two keys of one client: `a` at 1 and 3, `b` at 2, deleted after 3, the last change of `a` unanswered.
    fn journal() -> Journal {
        let mut journal = Journal::default();
        for (key, state, sequence) in [
            ("a", present(0), Some(1)),
            ("b", present(0), Some(2)),
            ("a", present(1), Some(3)),
            ("b", State::Absent, None),
        ] {
            journal.asks(key, state);
            journal.was_told(0, sequence, false);
        }
        journal.asks("a", present(2));
        journal
    }

    fn passes(found: &[(&str, State, u64)], promised: u64) -> bool {
        let found: Found = found
            .iter()
            .map(|(key, state, sequence)| ((*key).to_owned(), (state.clone(), *sequence)))
            .collect();
        let mut journal = journal();
        journal.promised = promised;
        std::panic::catch_unwind(move || check(&mut [journal], &found, &mut 0)).is_ok()
    }

    /// The checker itself: it accepts every prefix and refuses what is none.
    #[test]
    fn prefixes_pass_and_nothing_else() {
        assert!(passes(&[], 0));
        assert!(passes(&[("a", present(0), 1)], 0));
        assert!(passes(&[("a", present(0), 1), ("b", present(0), 2)], 0));
        assert!(passes(&[("a", present(1), 3), ("b", present(0), 2)], 0));
        assert!(
            passes(&[("a", present(1), 3)], 0),
            "the delete has no number"
        );
        assert!(passes(&[("a", present(2), 9)], 0), "unanswered and made");
        // A hole, an older state, a number of another change, something new, a broken promise.
        assert!(!passes(&[("b", present(0), 2)], 0));
        assert!(!passes(&[("a", present(0), 1), ("b", present(0), 3)], 0));
        assert!(!passes(&[("a", present(1), 4)], 0));
        assert!(!passes(&[("a", present(2), 9), ("b", present(0), 2)], 0));
        assert!(!passes(&[("a", present(7), 9)], 0));
        assert!(!passes(&[("a", present(0), 1), ("c", present(0), 1)], 0));
        assert!(!passes(&[], 1));
        assert!(!passes(&[("a", present(0), 1), ("b", present(0), 2)], 3));
    }
}
