//! How a car moves: pieces of constant jerk, from a moment on. Pure arithmetic in metres and seconds.

/// Bounds of a drive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Speed, m/s.
    pub speed: f64,
    /// Acceleration, m/s².
    pub acceleration: f64,
    /// Jerk, m/s³.
    pub jerk: f64,
}

impl Bounds {
    /// A passenger lift of a block of flats (EN 81-20 comfort: jerk about 1 m/s³).
    pub const TRAVEL: Self = Self { speed: 1.75, acceleration: 0.9, jerk: 1.0 };
    /// The brake falling in: hard, yet below the 1 g of a safety gear.
    pub const BRAKE: Self = Self { speed: 1.75, acceleration: 2.5, jerk: 20.0 };
}

/// Position, speed and acceleration at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct State {
    /// Height above the lowest stop, m.
    pub position: f64,
    /// Speed, m/s, up positive.
    pub velocity: f64,
    /// Acceleration, m/s².
    pub acceleration: f64,
}

impl State {
    fn after(self, jerk: f64, seconds: f64) -> Self {
        let Self { position, velocity, acceleration } = self;
        Self {
            position: position + seconds * (velocity + seconds * (acceleration / 2.0 + seconds * jerk / 6.0)),
            velocity: velocity + seconds * (acceleration + seconds * jerk / 2.0),
            acceleration: acceleration + seconds * jerk,
        }
    }
}

/// A motion that ends at rest: at most seven pieces of constant jerk.
#[derive(Debug, Clone, PartialEq)]
pub struct Motion {
    begin: State,
    /// Seconds and jerk of each piece.
    pieces: Vec<(f64, f64)>,
    end: f64,
}

impl Motion {
    /// From rest to rest, as fast as `bounds` allow. A short trip reaches neither full speed nor, where
    /// it is shorter still, full acceleration.
    pub fn travel(from: f64, to: f64, bounds: Bounds) -> Self {
        let (way, sign) = ((to - from).abs(), (to - from).signum());
        let Bounds { speed, acceleration, jerk } = bounds;
        // The speed at which the accelerating half of a trip without cruise has covered half the way:
        // with full acceleration way = v (v/a + a/j), else way = 2 v sqrt(v/j).
        let knee = acceleration * acceleration / jerk;
        let full = f64::midpoint(-knee, (knee * knee + 4.0 * acceleration * way).sqrt());
        let reached = if full >= knee { full } else { (way * way * jerk / 4.0).cbrt() };
        let top = reached.min(speed);
        let (ramp, hold) = ramp_and_hold(top, acceleration, jerk);
        let cruise = if top > 0.0 { (way - top * (2.0 * ramp + hold)).max(0.0) / top } else { 0.0 };
        let pushed = sign * jerk;
        let pieces = vec![
            (ramp, pushed),
            (hold, 0.0),
            (ramp, -pushed),
            (cruise, 0.0),
            (ramp, -pushed),
            (hold, 0.0),
            (ramp, pushed),
        ];
        Self { begin: State { position: from, ..State::default() }, pieces, end: to }
    }

    /// From a running state to rest, wherever that is.
    pub fn stop(begin: State, bounds: Bounds) -> Self {
        let jerk = bounds.jerk;
        let mut pieces = vec![(begin.acceleration.abs() / jerk, -begin.acceleration.signum() * jerk)];
        let level = begin.after(pieces[0].1, pieces[0].0);
        let (ramp, hold) = ramp_and_hold(level.velocity.abs(), bounds.acceleration, jerk);
        let push = -level.velocity.signum() * jerk;
        pieces.extend([(ramp, push), (hold, 0.0), (ramp, -push)]);
        let last = pieces.iter().fold(begin, |state, &(seconds, jerk)| state.after(jerk, seconds));
        Self { begin, pieces, end: last.position }
    }

    /// How long it takes, s.
    pub fn seconds(&self) -> f64 {
        self.pieces.iter().map(|(seconds, _)| seconds).sum()
    }

    /// Where it ends, m.
    pub fn end(&self) -> f64 {
        self.end
    }

    /// The state `seconds` after its begin; at rest after its end.
    pub fn at(&self, seconds: f64) -> State {
        let mut left = seconds.max(0.0);
        let mut state = self.begin;
        for &(piece, jerk) in &self.pieces {
            if left < piece {
                return state.after(jerk, left);
            }
            state = state.after(jerk, piece);
            left -= piece;
        }
        State { position: self.end, ..State::default() }
    }
}

/// Seconds of jerk and of constant acceleration that bring a car from rest to `top`.
fn ramp_and_hold(top: f64, acceleration: f64, jerk: f64) -> (f64, f64) {
    if top * jerk >= acceleration * acceleration {
        (acceleration / jerk, top / acceleration - acceleration / jerk)
    } else {
        ((top / jerk).sqrt(), 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Finite differences over a motion stay inside the bounds, and it ends where it says.
    fn stays_inside(motion: &Motion, bounds: Bounds) -> Result<(), TestCaseError> {
        const STEP: f64 = 0.002;
        let mut before = motion.at(0.0);
        let steps = (motion.seconds() / STEP) as u32 + 2;
        for step in 1..=steps {
            let state = motion.at(f64::from(step) * STEP);
            let velocity = (state.position - before.position) / STEP;
            let acceleration = (state.velocity - before.velocity) / STEP;
            let jerk = (state.acceleration - before.acceleration) / STEP;
            prop_assert!(velocity.abs() <= bounds.speed + 1e-6, "speed {velocity}");
            prop_assert!(acceleration.abs() <= bounds.acceleration + 1e-6, "acceleration {acceleration}");
            prop_assert!(jerk.abs() <= bounds.jerk + 1e-6, "jerk {jerk}");
            before = state;
        }
        prop_assert!((before.position - motion.end()).abs() < 1e-9);
        Ok(())
    }

    proptest! {
        #[test]
        fn a_trip_keeps_its_bounds_and_arrives(from in -5.0..200.0_f64, to in -5.0..200.0_f64) {
            let motion = Motion::travel(from, to, Bounds::TRAVEL);
            stays_inside(&motion, Bounds::TRAVEL)?;
            let nearly = motion.at(motion.seconds() - 1e-9);
            prop_assert!((nearly.position - to).abs() < 1e-6, "the pieces add up to the way");
            prop_assert!(nearly.velocity.abs() < 1e-6);
        }

        #[test]
        fn the_brake_stops_a_car_without_turning_it_round(way in 0.5..100.0_f64, share in 0.0..1.0_f64) {
            let motion = Motion::travel(0.0, way, Bounds::TRAVEL);
            let state = motion.at(motion.seconds() * share);
            let stop = Motion::stop(state, Bounds::BRAKE);
            stays_inside(&stop, Bounds::BRAKE)?;
            prop_assert!(stop.end() >= state.position - 1e-9);
            prop_assert!(stop.seconds() < 2.0);
        }
    }

    #[test]
    fn a_long_trip_cruises_at_full_speed() {
        let motion = Motion::travel(0.0, 60.0, Bounds::TRAVEL);
        assert!((motion.at(motion.seconds() / 2.0).velocity - Bounds::TRAVEL.speed).abs() < 1e-9);
        let short = Motion::travel(0.0, 0.2, Bounds::TRAVEL);
        assert!(short.at(short.seconds() / 2.0).velocity < 0.5);
    }
}
