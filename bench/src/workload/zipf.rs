//! Ranks by Zipf's law: rank `k` is drawn in proportion to `k^-exponent`.
//!
//! Rejection-inversion (W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6(3), 1996): constant time for any number of items and any exponent above zero, and no
//! table to build.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    items: f64,
    exponent: f64,
    /// The inverse of the integral is drawn between these two.
    integral_first: f64,
    integral_last: f64,
    /// Draws this close to their rank need no second look.
    shortcut: f64,
}

impl Zipf {
    /// Ranks 1 to `items` (at least 1), with an exponent above zero.
    pub(crate) fn new(items: u64, exponent: f64) -> Self {
        let items = items.max(1) as f64;
        let mut zipf = Self {
            items,
            exponent,
            integral_first: 0.0,
            integral_last: 0.0,
            shortcut: 0.0,
        };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(items + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// A rank, counted from 0: the most frequent is 0.
    pub(crate) fn rank(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let drawn =
                self.integral_last + random.f64() * (self.integral_first - self.integral_last);
            let x = self.inverse(drawn);
            let rank = x.round().clamp(1.0, self.items);
            if rank - x <= self.shortcut || drawn >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of `weight`, up to a constant.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        expm1_over((1.0 - self.exponent) * log) * log
    }

    fn inverse(&self, y: f64) -> f64 {
        // Rounding may bring it a hair below, where the logarithm ends.
        let t = (y * (1.0 - self.exponent)).max(-1.0);
        (ln1p_over(t) * y).exp()
    }
}

/// `(e^x - 1) / x`, also near zero.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0
    }
}

/// `ln(1 + x) / x`, also near zero.
fn ln1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::Zipf;

    /// The shares of the first ranks are those of the law, for exponents below, at and above one.
    #[test]
    fn ranks_are_drawn_by_the_law() {
        const ITEMS: u64 = 1_000;
        const DRAWS: u32 = 200_000;
        for exponent in [0.5, 0.99, 1.0, 1.2] {
            let zipf = Zipf::new(ITEMS, exponent);
            let mut random = fastrand::Rng::with_seed(11);
            let mut counts = vec![0_u32; ITEMS as usize];
            for _ in 0..DRAWS {
                counts[zipf.rank(&mut random) as usize] += 1;
            }
            let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
            let sum: f64 = (0..ITEMS as usize).map(weight).sum();
            for rank in [0, 1, 2, 9] {
                let expected = f64::from(DRAWS) * weight(rank) / sum;
                // Five standard deviations of a binomial.
                let tolerance = 5.0 * expected.sqrt() + 1.0;
                let found = f64::from(counts[rank]);
                assert!(
                    (found - expected).abs() < tolerance,
                    "exponent {exponent}, rank {rank}: {found} of about {expected:.0}, seed 11"
                );
            }
        }
    }

    #[test]
    fn one_item_is_always_drawn() {
        let zipf = Zipf::new(1, 0.99);
        let mut random = fastrand::Rng::with_seed(1);
        assert!((0..100).all(|_| zipf.rank(&mut random) == 0));
    }
}
