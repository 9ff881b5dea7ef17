//! Requests and connections, counted by each event loop for itself and summed when somebody asks.

use super::route::Endpoint;
use super::watch::{WatchFigures, Watching};
use http::{Method, StatusCode};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The counters of every event loop of a server.
#[derive(Debug, Default)]
pub struct Traffic {
    loops: Mutex<Vec<Arc<LoopTraffic>>>,
    /// Shared by all loops, because the limit is over all of them.
    open: AtomicUsize,
    /// Those who watch the changes.
    pub(crate) watching: Watching,
}

/// The counters of one event loop. Only that loop writes them; anybody may read.
#[derive(Debug)]
pub(crate) struct LoopTraffic {
    /// [`CELL`] numbers for each route and method: statuses, then durations, then sums.
    cells: Box<[AtomicU64]>,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// Connections whose client does not take what is waiting for it: how many now, and for how long in all.
    blocked: AtomicU64,
    blocked_nanos: AtomicU64,
    /// Refusals by the code of the answer. This loop's, so nobody waits but for a scrape.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

/// Which of the two contracts a request speaks: it decides how a failure is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// `/kv` and what belongs to it: failures are envelopes.
    Kv,
    /// `/v1` and everything else: failures are problem documents.
    V1,
    /// Health, the contract itself, and unknown paths: problem documents too.
    Other,
}

impl Surface {
    pub(crate) const ALL: [Self; 3] = [Self::Kv, Self::V1, Self::Other];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::V1 => "v1",
            Self::Other => "other",
        }
    }
}

/// Upper bounds of the duration histogram's buckets, in microseconds; a last bucket takes the rest.
pub(crate) const DURATION_BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// Every status that is answered, by number; a last place takes one that is not here.
const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 422, 429,
    431, 500, 501, 503, 507,
];
const STATUS_PLACES: usize = STATUSES.len() + 1;

const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"];
const METHOD_PLACES: usize = METHODS.len() + 1;

const DURATIONS_AT: usize = STATUS_PLACES;
const NANOS_AT: usize = DURATIONS_AT + BUCKETS;
const IN_AT: usize = NANOS_AT + 1;
const OUT_AT: usize = IN_AT + 1;
const CELL: usize = OUT_AT + 1;
/// The known routes, and unknown paths.
const ROUTE_PLACES: usize = Endpoint::ALL.len() + 1;

/// Where a request is counted: its route and method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u16);

impl Place {
    pub(crate) fn of(endpoint: Option<Endpoint>, method: &Method) -> Self {
        let route = endpoint.map_or(Endpoint::ALL.len(), |endpoint| endpoint as usize);
        let method = METHODS
            .iter()
            .position(|known| *known == method.as_str())
            .unwrap_or(METHODS.len());
        // At most a few hundred places.
        Self((route * METHOD_PLACES + method) as u16)
    }

    fn endpoint(self) -> Option<Endpoint> {
        Endpoint::ALL
            .get(usize::from(self.0) / METHOD_PLACES)
            .copied()
    }

    /// The route as a metric's label and a log line name it.
    pub(crate) fn route(self) -> &'static str {
        self.endpoint().map_or("unknown", Endpoint::template)
    }

    /// The method, or `other`: a label must not be the client's to choose.
    pub(crate) fn method(self) -> &'static str {
        METHODS
            .get(usize::from(self.0) % METHOD_PLACES)
            .copied()
            .unwrap_or("other")
    }

    /// Whether it is about keys and values, not about the server.
    pub(crate) fn is_data(self) -> bool {
        matches!(
            self.endpoint(),
            Some(
                Endpoint::KvKey
                    | Endpoint::KvKeys
                    | Endpoint::V1Key
                    | Endpoint::V1Keys
                    | Endpoint::V1Batch
            )
        )
    }

    pub(crate) fn surface(self) -> Surface {
        self.endpoint().map_or(Surface::Other, Endpoint::surface)
    }
}

/// A sum over all loops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// Routes and methods that were asked for at all.
    pub(crate) places: Vec<PlaceTotals>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) open: usize,
    pub(crate) blocked: u64,
    pub(crate) blocked_nanos: u64,
    pub(crate) watching: WatchFigures,
    /// By the code of the answer.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
}

/// One route and method over all loops.
#[derive(Clone, Debug)]
pub(crate) struct PlaceTotals {
    pub(crate) place: Place,
    /// Answers by status, those that were given; 0 stands for one that has no place of its own.
    pub(crate) statuses: Vec<(u16, u64)>,
    /// By the bounds of [`DURATION_BOUNDS_US`].
    pub(crate) durations: [u64; BUCKETS],
    pub(crate) nanos: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Traffic {
    /// Counters for one more event loop.
    pub(crate) fn join(&self) -> Arc<LoopTraffic> {
        let counters = Arc::new(LoopTraffic::default());
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(counters.clone());
        counters
    }

    /// Takes a place among the open connections, unless `max` are taken.
    pub(crate) fn enter(&self, max: usize) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.leave();
        false
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: &dyn Fn(&LoopTraffic) -> &AtomicU64| {
            loops.iter().fold(0, |sum: u64, counters| {
                sum.wrapping_add(of(counters).load(Ordering::Relaxed))
            })
        };
        let places = (0..ROUTE_PLACES * METHOD_PLACES)
            .filter_map(|place| {
                let at = |number: usize| sum(&|counters| &counters.cells[place * CELL + number]);
                let statuses: Vec<(u16, u64)> = (0..STATUS_PLACES)
                    .map(|status| (STATUSES.get(status).copied().unwrap_or(0), at(status)))
                    .filter(|(_, count)| *count > 0)
                    .collect();
                (!statuses.is_empty()).then(|| PlaceTotals {
                    place: Place(place as u16),
                    statuses,
                    durations: std::array::from_fn(|bucket| at(DURATIONS_AT + bucket)),
                    nanos: at(NANOS_AT),
                    bytes_in: at(IN_AT),
                    bytes_out: at(OUT_AT),
                })
            })
            .collect();
        let mut refusals = BTreeMap::new();
        for counters in loops.iter() {
            let of_loop = counters
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (code, count) in of_loop.iter() {
                *refusals.entry(*code).or_default() += count;
            }
        }
        Totals {
            refusals,
            places,
            accepted: sum(&|counters| &counters.accepted),
            refused: sum(&|counters| &counters.refused),
            blocked: sum(&|counters| &counters.blocked),
            blocked_nanos: sum(&|counters| &counters.blocked_nanos),
            open: self.open.load(Ordering::Relaxed),
            watching: self.watching.figures(),
        }
    }
}

impl Totals {
    /// Answers of `surface`.
    pub(crate) fn requests(&self, surface: Surface) -> u64 {
        self.answers(|place, _| place.surface() == surface)
    }

    /// Answers whose status begins with the digit `class`.
    pub(crate) fn class(&self, class: u16) -> u64 {
        self.answers(|_, status| status / 100 == class)
    }

    fn answers(&self, is_meant: impl Fn(Place, u16) -> bool) -> u64 {
        self.places
            .iter()
            .flat_map(|totals| {
                totals
                    .statuses
                    .iter()
                    .map(move |(status, count)| (totals.place, *status, *count))
            })
            .filter(|(place, status, _)| is_meant(*place, *status))
            .map(|(_, _, count)| count)
            .sum()
    }
}

impl Default for LoopTraffic {
    fn default() -> Self {
        Self {
            cells: (0..ROUTE_PLACES * METHOD_PLACES * CELL)
                .map(|_| AtomicU64::new(0))
                .collect(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            refusals: Mutex::default(),
        }
    }
}

impl LoopTraffic {
    /// Counts an answer: what it was to, how it ended, how long it took, how many bytes of content came and went.
    pub(crate) fn answered(
        &self,
        place: Place,
        status: StatusCode,
        took: Duration,
        bytes_in: u64,
        bytes_out: u64,
    ) {
        let cell = &self.cells[usize::from(place.0) * CELL..][..CELL];
        let status = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .unwrap_or(STATUSES.len());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Most answers are in the first bucket, so the search ends where it begins.
        let bucket = DURATION_BOUNDS_US
            .iter()
            .position(|bound| micros <= *bound)
            .unwrap_or(DURATION_BOUNDS_US.len());
        add(&cell[status], 1);
        add(&cell[DURATIONS_AT + bucket], 1);
        add(
            &cell[NANOS_AT],
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        );
        add(&cell[IN_AT], bytes_in);
        add(&cell[OUT_AT], bytes_out);
    }

    pub(crate) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// Counts a refusal.
    pub(crate) fn refused_with(&self, code: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(code).or_default() += 1;
    }

    pub(crate) fn refused(&self) {
        add(&self.refused, 1);
    }

    /// A client stopped taking its answers.
    pub(crate) fn blocked(&self) {
        add(&self.blocked, 1);
    }

    /// It went on, or is gone.
    pub(crate) fn unblocked(&self, after: Duration) {
        add(&self.blocked, u64::MAX);
        add(
            &self.blocked_nanos,
            u64::try_from(after.as_nanos()).unwrap_or(u64::MAX),
        );
    }
}

/// One writer: a load and a store are enough, and cost less than a locked addition.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let traffic = Traffic::default();
        assert!(traffic.enter(1));
        assert!(!traffic.enter(1));
        traffic.leave();
        assert!(traffic.enter(1));
        assert_eq!(traffic.totals().open, 1);
    }

    #[test]
    fn loops_are_summed() {
        let traffic = Traffic::default();
        let (first, second) = (traffic.join(), traffic.join());
        let place = Place::of(Some(Endpoint::KvKey), &Method::GET);
        first.answered(place, StatusCode::OK, Duration::from_micros(50), 0, 10);
        second.answered(
            place,
            StatusCode::NOT_FOUND,
            Duration::from_micros(51),
            3,
            20,
        );
        let unknown = Place::of(None, &Method::from_bytes(b"BREW").expect("a token"));
        second.answered(
            unknown,
            StatusCode::IM_A_TEAPOT,
            Duration::from_secs(11),
            0,
            0,
        );
        let totals = traffic.totals();
        assert_eq!(totals.requests(Surface::Kv), 2);
        assert_eq!(totals.requests(Surface::Other), 1);
        assert_eq!((totals.class(2), totals.class(4)), (1, 1));
        let [key, other] = &totals.places[..] else {
            panic!("two places: {totals:?}");
        };
        assert_eq!(
            (key.place.route(), key.place.method()),
            ("/kv/{key}", "GET")
        );
        assert_eq!(key.statuses, [(200, 1), (404, 1)]);
        assert_eq!(key.durations[..3], [1, 1, 0]);
        assert_eq!((key.nanos, key.bytes_in, key.bytes_out), (101_000, 3, 30));
        assert_eq!(
            (other.place.route(), other.place.method()),
            ("unknown", "other")
        );
        assert_eq!(other.statuses, [(0, 1)]);
        assert_eq!(other.durations[BUCKETS - 1], 1);
    }

    #[test]
    fn every_route_and_method_has_a_place_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        let methods = METHODS.map(|method| method.parse().expect("a method"));
        for endpoint in Endpoint::ALL.iter().copied().map(Some).chain([None]) {
            for method in &methods {
                let place = Place::of(endpoint, method);
                assert!(seen.insert(place.0));
                assert_eq!(place.endpoint(), endpoint);
                assert_eq!(place.method(), method.as_str());
            }
        }
    }
}
