//! When people call a lift and where they go: a Poisson process whose rate follows the hours of the day.

use std::time::Duration;

use domain::Timestamp;
use rand::Rng;

/// Share of a day's trips in each hour of local time, percent (DOMAIN.md 9; sum 100).
const HOUR_SHARES: [f64; 24] = [
    0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 4.0, 10.5, 12.5, 6.0, 4.5, 6.0, 6.0, 4.0, 3.5, 3.5, 4.5, 7.5, 9.5, 5.5,
    4.0, 3.0, 1.5, 1.0,
];
const HOUR_US: i64 = 3_600_000_000;
/// Lifts live by Chinese time, UTC+8 (DOMAIN.md 6).
const LOCAL_OFFSET_US: i64 = 8 * HOUR_US;

/// One call at a landing: people who go from a floor to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) people: u8,
    /// All of them together.
    pub(crate) weight_kg: i16,
}

/// The next moment of a Poisson process with `per_day` calls a day, drawn after `after`.
pub(crate) fn next_call(rng: &mut impl Rng, after: Timestamp, per_day: f64) -> Timestamp {
    // Unit-rate waiting time, spent hour by hour at that hour's rate.
    let mut left = -(1.0 - rng.random::<f64>()).ln();
    let mut at = after.micros();
    loop {
        let local = at + LOCAL_OFFSET_US;
        let hour = local.div_euclid(HOUR_US).rem_euclid(24) as usize;
        let hour_left = HOUR_US - local.rem_euclid(HOUR_US);
        let per_us = per_day * HOUR_SHARES[hour] / 100.0 / HOUR_US as f64;
        let mass = per_us * hour_left as f64;
        if left < mass {
            return Timestamp::from_micros(at).plus(Duration::from_micros((left / per_us) as u64));
        }
        left -= mass;
        at += hour_left;
    }
}

/// Draws a call in a building of `floors`: half of all trips begin or end at the entrance (floor 0).
pub(crate) fn draw_call(rng: &mut impl Rng, floors: u8, load_kg_max: i16) -> Call {
    let upper = rng.random_range(1..floors);
    let (from, to) = match rng.random_range(0..4) {
        0 => (0, upper),
        1 => (upper, 0),
        _ => {
            let from = rng.random_range(0..floors);
            let to = (from + rng.random_range(1..floors)) % floors;
            (from, to)
        }
    };
    let wanted = 1 + u8::from(rng.random_bool(0.35)) + u8::from(rng.random_bool(0.15)) * 2;
    draw_group(rng, from, to, wanted, load_kg_max)
}

/// A group of at most `wanted` people, as many as the car may carry.
pub(crate) fn draw_group(rng: &mut impl Rng, from: u8, to: u8, wanted: u8, load_kg_max: i16) -> Call {
    let mut call = Call { from, to, people: 0, weight_kg: 0 };
    for _ in 0..wanted.max(1) {
        let weight = rng.random_range(42..=95);
        if call.people > 0 && call.weight_kg + weight > load_kg_max {
            break;
        }
        call.people += 1;
        call.weight_kg += weight;
    }
    call
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn shares_sum_to_the_day() {
        assert!((HOUR_SHARES.iter().sum::<f64>() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn calls_follow_the_hours() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let start: Timestamp = "2026-11-22T00:00:00+08:00".parse().unwrap();
        let (mut at, mut by_hour, days) = (start, [0_u32; 24], 100);
        while at < start.plus(Duration::from_hours(24 * days)) {
            at = next_call(&mut rng, at, 200.0);
            by_hour[(at.since(start).as_secs() / 3600 % 24) as usize] += 1;
        }
        let total: u32 = by_hour.iter().sum();
        assert!((19_000..21_000).contains(&total), "{total} calls in 100 days of 200");
        let share = |hour: usize| f64::from(by_hour[hour]) / f64::from(total) * 100.0;
        assert!((share(8) - 12.5).abs() < 1.0, "morning peak {}", share(8));
        assert!(share(3) < 1.0, "night {}", share(3));
    }
}
