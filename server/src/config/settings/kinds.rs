//! What each kind of setting accepts, and how it says so.

use super::reading::{count, duration, parse_address, rate, size, text};
use super::{Kind, Value, Written};
use crate::config::units;
use std::path::PathBuf;

impl Kind {
    /// The value that was meant, or `None` when this kind does not accept it.
    pub(crate) fn read(self, written: &Written) -> Option<Value> {
        match self {
            Kind::Address => parse_address(text(written)?).map(Value::Address),
            Kind::Count { min, max } => count(written)
                .filter(|count| (min..=max).contains(count))
                .map(Value::Count),
            Kind::PowerOfTwo { min, max } => count(written)
                .filter(|count| (min..=max).contains(count) && count.is_power_of_two())
                .map(Value::Count),
            Kind::Duration { min, max } => duration(written)
                .filter(|duration| (min..=max).contains(duration))
                .map(Value::Duration),
            Kind::Size { min, max } => size(written)
                .filter(|size| (min..=max).contains(size))
                .map(Value::Size),
            Kind::Memory { min, max } => {
                match text(written).and_then(|text| text.strip_suffix('%')) {
                    Some(percent) => count(&Written::Word(percent.to_owned()))
                        .and_then(|percent| u8::try_from(percent).ok())
                        .filter(|percent| (1..=100).contains(percent))
                        .map(Value::Share),
                    None => size(written)
                        .filter(|size| (min..=max).contains(size))
                        .map(Value::Size),
                }
            }
            Kind::Choice(choices) => {
                let text = text(written)?;
                let choice = choices.iter().find(|choice| **choice == text)?;
                Some(Value::Choice(choice))
            }
            Kind::Name { bytes_max } => text(written)
                .filter(|name| {
                    (1..=bytes_max).contains(&name.len()) && !name.contains(char::is_control)
                })
                .map(|name| Value::Name(name.to_owned())),
            Kind::Path => text(written)
                .filter(|path| !path.is_empty() && !path.contains('\0'))
                .map(|path| Value::Path(PathBuf::from(path))),
            Kind::Switch => match written {
                Written::Boolean(on) => Some(Value::Switch(*on)),
                Written::Word(word) => word.parse().ok().map(Value::Switch),
                Written::String(_) | Written::Integer(_) | Written::Real(_) | Written::Other(_) => {
                    None
                }
            },
            Kind::Rate => rate(written).map(Value::Rate),
        }
    }

    /// What would be right, to stand after "expected".
    pub(crate) fn expected(self) -> String {
        match self {
            Kind::Address => {
                "an IP address and a port, such as 127.0.0.1:8080, [::1]:8080 or :0".to_owned()
            }
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::PowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Kind::Duration { min, max } => format!(
                "a duration from {} to {}, in seconds or such as 1500ms, 90s, 15m, 12h or 7d",
                units::print_duration(min),
                units::print_duration(max)
            ),
            Kind::Size { min, max } => format!(
                "a size from {} to {}, in bytes or such as 512KiB, 64MiB, 1GiB or 64MB",
                units::print_size(min),
                units::print_size(max)
            ),
            Kind::Memory { min, max } => format!(
                "a size from {} to {}, in bytes or such as 512MiB, or 1% to 100% of the machine's memory",
                units::print_size(min),
                units::print_size(max)
            ),
            Kind::Choice(choices) => format!("one of {}", choices.join(", ")),
            Kind::Name { bytes_max } => {
                format!("a name of 1 to {bytes_max} bytes without control characters")
            }
            Kind::Path => "a path".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Rate => "on, off, or a share such as 1% or 0.01".to_owned(),
        }
    }
}
