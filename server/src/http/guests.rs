//! Who is connected, by address: how many connections each has, and how fast it asks.
//!
//! Only for limits that are set: without any, nothing is kept and nothing is asked. An IPv6 client usually has a whole network
//! of 64 bits to itself, so that counts as one address.

use super::pace::Pace;
use super::settings::Fairness;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Addresses known before those that are gone are looked for.
const SWEEP_AT_MIN: usize = 1024;

/// The addresses that have connections, or have asked a moment ago. Shared by all event loops.
#[derive(Debug)]
pub struct Guests {
    /// The clock of every pace begins here.
    began: Instant,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    by_address: HashMap<IpAddr, Arc<Guest>>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Guest {
    connections: AtomicUsize,
    pace: Option<Pace>,
}

/// What one connection is held to. Its place with its address is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    guests: Arc<Guests>,
    guest: Option<Arc<Guest>>,
    own: Option<Pace>,
}

/// Whose rate was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooFast {
    Connection,
    Address,
}

/// There are as many connections from this address as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Default for Guests {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            book: Mutex::default(),
        }
    }
}

impl Guests {
    /// A seat for a connection from `address`; `None` when nothing is to be held to.
    pub(crate) fn seat(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &Fairness,
    ) -> Result<Option<Seat>, Crowded> {
        let by_address = limits.connections_per_address_max.is_some()
            || limits.requests_per_address_max.is_some();
        if !by_address && limits.requests_per_connection_max.is_none() {
            return Ok(None);
        }
        let guest = by_address.then(|| self.guest(network(address), limits));
        // From here on the seat gives the place back, also the one that was too much.
        let seat = Seat {
            guests: self.clone(),
            guest,
            own: limits.requests_per_connection_max.map(Pace::new),
        };
        let most = limits.connections_per_address_max.unwrap_or(usize::MAX);
        match &seat.guest {
            Some(guest) if guest.connections.load(Ordering::Relaxed) > most => Err(Crowded),
            _ => Ok(Some(seat)),
        }
    }

    /// The guest at `address`, with one connection more.
    fn guest(&self, address: IpAddr, limits: &Fairness) -> Arc<Guest> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.by_address.len() >= book.sweep_at.max(SWEEP_AT_MIN) {
            let now = self.nanos(Instant::now());
            book.by_address.retain(|_, guest| guest.is_here(now));
            book.sweep_at = book.by_address.len() * 2;
        }
        let guest = book.by_address.entry(address).or_insert_with(|| {
            Arc::new(Guest {
                connections: AtomicUsize::new(0),
                pace: limits.requests_per_address_max.map(Pace::new),
            })
        });
        // Under the lock, so that a sweep cannot forget a guest who is just coming.
        guest.connections.fetch_add(1, Ordering::Relaxed);
        guest.clone()
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Guest {
    /// Whether there is anything about it to be remembered.
    fn is_here(&self, now: u64) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
            || self.pace.as_ref().is_some_and(|pace| !pace.is_rested(now))
    }
}

impl Seat {
    /// Counts a request that begins `now`.
    pub(crate) fn asks(&self, now: Instant) -> Result<(), TooFast> {
        let now = self.guests.nanos(now);
        let held = |pace: Option<&Pace>| pace.is_none_or(|pace| pace.allows(now));
        if !held(self.own.as_ref()) {
            Err(TooFast::Connection)
        } else if !held(self.guest.as_ref().and_then(|guest| guest.pace.as_ref())) {
            Err(TooFast::Address)
        } else {
            Ok(())
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(guest) = &self.guest {
            guest.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn without_limits_nobody_is_remembered() {
        let guests = Arc::new(Guests::default());
        assert!(
            guests
                .seat(at("10.0.0.1"), &Fairness::default())
                .expect("a place")
                .is_none()
        );
        assert!(
            guests
                .book
                .lock()
                .expect("nobody panics with it")
                .by_address
                .is_empty()
        );
    }

    #[test]
    fn places_are_counted_by_address_and_come_back() {
        let guests = Arc::new(Guests::default());
        let limits = Fairness {
            connections_per_address_max: Some(2),
            ..Fairness::default()
        };
        let seats: Vec<_> = (0..2)
            .map(|_| guests.seat(at("10.0.0.1"), &limits).expect("a place"))
            .collect();
        // An IPv4 address spelt as an IPv6 one is the same.
        assert!(guests.seat(at("::ffff:10.0.0.1"), &limits).is_err());
        assert!(guests.seat(at("10.0.0.2"), &limits).is_ok());
        drop(seats);
        assert!(guests.seat(at("10.0.0.1"), &limits).is_ok());
        // A network of 64 bits is one address.
        let seats: Vec<_> = (1..3)
            .map(|n| guests.seat(at(&format!("2001:db8::{n}")), &limits))
            .collect();
        assert!(guests.seat(at("2001:db8::9"), &limits).is_err());
        assert!(guests.seat(at("2001:db8:0:1::9"), &limits).is_ok());
        drop(seats);
    }

    #[test]
    fn rates_are_of_the_connection_and_of_all_from_its_address() {
        let guests = Arc::new(Guests::default());
        let limits = Fairness {
            requests_per_connection_max: Some(2),
            requests_per_address_max: Some(3),
            ..Fairness::default()
        };
        let now = guests.began + Duration::from_secs(5);
        let seat = || {
            guests
                .seat(at("10.0.0.1"), &limits)
                .expect("a place")
                .expect("held to limits")
        };
        let (first, second) = (seat(), seat());
        assert_eq!(
            [first.asks(now), first.asks(now), first.asks(now)],
            [Ok(()), Ok(()), Err(TooFast::Connection)]
        );
        assert_eq!(
            [second.asks(now), second.asks(now)],
            [Ok(()), Err(TooFast::Address)]
        );
        // Coming back with another connection does not help; waiting does.
        drop((first, second));
        assert_eq!(seat().asks(now), Err(TooFast::Address));
        assert_eq!(seat().asks(now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn those_who_are_gone_are_forgotten() {
        let guests = Arc::new(Guests::default());
        let limits = Fairness {
            connections_per_address_max: Some(1),
            ..Fairness::default()
        };
        let staying = guests.seat(at("192.168.0.1"), &limits).expect("a place");
        for number in 0..5_000u32 {
            let address = IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + number));
            drop(guests.seat(address, &limits));
        }
        assert!(
            guests
                .book
                .lock()
                .expect("nobody panics with it")
                .by_address
                .len()
                <= SWEEP_AT_MIN
        );
        assert!(
            guests.seat(at("192.168.0.1"), &limits).is_err(),
            "who is here is not"
        );
        drop(staying);
    }
}
