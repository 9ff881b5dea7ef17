//! The list of scenarios, and what they have in common.

mod engine;
mod files;
mod partition;
mod policies;
mod small;

/// One piece of work. Calling what [`Scenario::start`] returns does it once.
pub struct Scenario {
    /// `crate/what`, unique.
    pub name: &'static str,
    /// How often the gate has it done: enough that the first time does not count.
    pub repetitions: u32,
    start: fn() -> Work,
}

/// Does its piece of work at each call.
pub type Work = Box<dyn FnMut()>;

impl Scenario {
    const fn new(name: &'static str, repetitions: u32, start: fn() -> Work) -> Self {
        Self {
            name,
            repetitions,
            start,
        }
    }

    /// Prepares the work.
    ///
    /// # Panics
    /// When the crates refuse what they are given here, or a temporary folder cannot be made.
    #[must_use]
    pub fn start(&self) -> Work {
        (self.start)()
    }
}

/// All scenarios, by crate.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        partition::LIST,
        policies::LIST,
        small::LIST,
        files::LIST,
        engine::LIST,
    ]
    .concat_all()
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Scenario>;
}

impl<const N: usize> ConcatAll for [&'static [Scenario]; N] {
    fn concat_all(self) -> Vec<Scenario> {
        let lists = self.into_iter().flatten();
        lists.map(|scenario| Scenario { ..*scenario }).collect()
    }
}

/// Keys of every store here.
const KEYS: usize = 4_096;
const NOW: u64 = 1_700_000_000_000;

/// `key:000000000042`
fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// 100 bytes of JSON; every number another text.
fn value(number: usize) -> String {
    format!(
        r#"{{"rev":"{number:016x}","data":"{:0>64}"}}"#,
        number.wrapping_mul(0x9e37_79b9)
    )
}

/// A document as people write it, with white space.
const DOCUMENT: &str = r#"{
    "id": 4711, "name": "Ada Lovelace", "email": "ada@example.org", "active": true,
    "address": { "street": "12 St James's Square", "city": "London", "zip": "SW1Y 4JH" },
    "tags": [ "mathematics", "engines", "poetry" ], "score": 98.25, "notes": null,
    "history": [ { "at": 1842, "what": "translation" }, { "at": 1843, "what": "notes A to G" } ]
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_done_again_and_again() {
        let mut names = std::collections::HashSet::new();
        for scenario in all() {
            assert!(
                names.insert(scenario.name),
                "{} is there twice",
                scenario.name
            );
            let mut work = scenario.start();
            for _ in 0..3 {
                work();
            }
        }
        assert!(names.len() > 15);
    }

    #[test]
    fn values_have_the_size_that_benchmarks_speak_of() {
        assert_eq!(value(0).len(), 100);
        assert_eq!(value(KEYS).len(), 100);
        assert!(serde_json::from_str::<serde_json::Value>(&value(7)).is_ok());
    }
}
