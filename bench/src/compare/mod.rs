//! Servers side by side, in one run on one machine.

pub(crate) mod builds;
pub(crate) mod loops;
pub(crate) mod memory;
pub(crate) mod peers;
pub(crate) mod pressure;
pub(crate) mod saving;
pub(crate) mod speed;
pub(crate) mod table;

use std::path::Path;

use tempfile::TempDir;

use crate::error::Error;

/// A folder that is gone when the comparison ends.
pub(crate) fn temporary_folder(parent: Option<&Path>) -> Result<TempDir, Error> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("inflightkv-bench-");
    match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    }
    .map_err(Error::io("creating a folder for data"))
}

/// The middle one, or the mean of the two in the middle. Zero of nothing.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        len if len % 2 == 1 => numbers[len / 2],
        len => f64::midpoint(numbers[len / 2 - 1], numbers[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_does_not_see_an_outlier() {
        assert_eq!(median(vec![3.0, 1.0, 1000.0]), 3.0);
        assert_eq!(median(vec![1.0, 4.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
