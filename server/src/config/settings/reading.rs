//! Values out of what was written, each kind by one function.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::units;
use super::{WHOLE, Written};

pub(super) fn text(written: &Written) -> Option<&str> {
    match written {
        Written::Word(text) | Written::String(text) => Some(text),
        Written::Integer(_) | Written::Boolean(_) | Written::Real(_) | Written::Other(_) => None,
    }
}

pub(super) fn count(written: &Written) -> Option<u64> {
    match written {
        // Digits alone: `u64::from_str` would take a plus sign too.
        Written::Word(word) if word.bytes().all(|byte| byte.is_ascii_digit()) => word.parse().ok(),
        Written::Integer(number) => u64::try_from(*number).ok(),
        Written::Word(_)
        | Written::String(_)
        | Written::Boolean(_)
        | Written::Real(_)
        | Written::Other(_) => None,
    }
}

pub(super) fn duration(written: &Written) -> Option<Duration> {
    match written {
        Written::Word(text) | Written::String(text) => units::parse_duration(text),
        Written::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Written::Boolean(_) | Written::Real(_) | Written::Other(_) => None,
    }
}

pub(super) fn size(written: &Written) -> Option<u64> {
    match written {
        Written::Word(text) | Written::String(text) => units::parse_size(text),
        Written::Integer(bytes) => u64::try_from(*bytes).ok(),
        Written::Boolean(_) | Written::Real(_) | Written::Other(_) => None,
    }
}

/// Millionths of a whole.
pub(super) fn rate(written: &Written) -> Option<u32> {
    let part: f64 = match written {
        Written::Boolean(on) => f64::from(u8::from(*on)),
        Written::Integer(number @ 0..=1) => *number as f64,
        Written::Word(text) | Written::String(text) | Written::Real(text) => match &**text {
            "on" => 1.0,
            "off" => 0.0,
            text => {
                let (digits, whole) = match text.strip_suffix('%') {
                    Some(digits) => (digits, 100.0),
                    None => (text, 1.0),
                };
                // Plain decimals: a parser of floats also takes `inf`, `1e3` and signs.
                let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
                let number: f64 = digits.bytes().all(plain).then(|| digits.parse().ok())??;
                number / whole
            }
        },
        Written::Integer(_) | Written::Other(_) => return None,
    };
    (0.0..=1.0)
        .contains(&part)
        .then(|| (part * f64::from(WHOLE)).round() as u32)
}

/// Names are not resolved, except `localhost`: which address a name means should not depend on a resolver at start.
pub(super) fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    if !(host.is_empty() || host == "localhost") || !port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    Some(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        port.parse().ok()?,
    ))
}
