//! How a car gets from rest to rest: the fastest way within limits of speed, acceleration and jerk, in closed
//! form, and the emergency stop. Pure arithmetic in SI units; time counts from the start of the movement.

/// The limits of a drive, in SI units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Rated speed, m/s.
    pub speed: f64,
    /// Acceleration, m/s².
    pub acceleration: f64,
    /// Jerk, m/s³.
    pub jerk: f64,
}

/// Where a car is and what it does, relative to the start of the movement.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Motion {
    /// Distance covered, m, signed.
    pub position: f64,
    /// m/s, up positive.
    pub velocity: f64,
    /// m/s².
    pub acceleration: f64,
}

/// A movement from rest to rest in seven phases: jerk up, hold, jerk down, cruise, and the same backwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// +1 up, -1 down.
    sign: f64,
    jerk: f64,
    /// Length of each of the four phases with jerk, s.
    jerk_s: f64,
    /// Length of each of the two phases of constant acceleration, s.
    hold_s: f64,
    /// Length of the phase of constant speed, s.
    cruise_s: f64,
}

impl Profile {
    /// The fastest movement over `distance` metres (signed).
    pub fn new(distance: f64, limits: Limits) -> Self {
        let Limits { speed, acceleration, jerk } = limits;
        let length = distance.abs();
        // The peak acceleration is cut where the speed limit comes before the acceleration limit.
        let (jerk_s, peak) = if speed * jerk >= acceleration * acceleration {
            (acceleration / jerk, acceleration)
        } else {
            let jerk_s = (speed / jerk).sqrt();
            (jerk_s, jerk * jerk_s)
        };
        let ramp_s = jerk_s + speed / peak;
        let (jerk_s, hold_s, cruise_s) = if speed * ramp_s <= length {
            (jerk_s, ramp_s - 2.0 * jerk_s, (length - speed * ramp_s) / speed)
        } else {
            // Too short for full speed: length = v²/a + v·a/j while the acceleration limit is still reached.
            let lead = acceleration / jerk;
            let top = acceleration / 2.0 * ((lead * lead + 4.0 * length / acceleration).sqrt() - lead);
            if top >= acceleration * lead {
                (lead, top / acceleration - lead, 0.0)
            } else {
                ((length / (2.0 * jerk)).cbrt(), 0.0, 0.0)
            }
        };
        Self {
            sign: if distance < 0.0 { -1.0 } else { 1.0 },
            jerk,
            jerk_s,
            hold_s: hold_s.max(0.0),
            cruise_s,
        }
    }

    /// How long it takes, s.
    pub fn duration(&self) -> f64 {
        4.0 * self.jerk_s + 2.0 * self.hold_s + self.cruise_s
    }

    /// The state `at` seconds after the start; at rest outside the movement.
    pub fn at(&self, at: f64) -> Motion {
        let phases = [
            (self.jerk_s, self.jerk),
            (self.hold_s, 0.0),
            (self.jerk_s, -self.jerk),
            (self.cruise_s, 0.0),
            (self.jerk_s, -self.jerk),
            (self.hold_s, 0.0),
            (self.jerk_s, self.jerk),
        ];
        let mut left = at.clamp(0.0, self.duration());
        let over = at >= self.duration();
        let Motion { mut position, mut velocity, mut acceleration } = Motion::default();
        for (length, jerk) in phases {
            let span = left.min(length);
            position += span * (velocity + span * (acceleration / 2.0 + span * jerk / 6.0));
            velocity += span * (acceleration + span * jerk / 2.0);
            acceleration += span * jerk;
            left -= span;
        }
        if over {
            (velocity, acceleration) = (0.0, 0.0);
        }
        Motion {
            position: self.sign * position,
            velocity: self.sign * velocity,
            acceleration: self.sign * acceleration,
        }
    }
}

/// An emergency stop: the brake falls in and the car slows evenly. No jerk limit holds here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    velocity: f64,
    deceleration: f64,
}

impl Stop {
    /// What the brake of a lift does, m/s².
    pub const DECELERATION: f64 = 2.5;

    /// From `velocity` m/s, signed.
    pub fn new(velocity: f64) -> Self {
        Self { velocity, deceleration: Self::DECELERATION }
    }

    /// How long it takes, s.
    pub fn duration(&self) -> f64 {
        self.velocity.abs() / self.deceleration
    }

    /// How far the car goes, m, signed.
    pub fn distance(&self) -> f64 {
        self.velocity * self.duration() / 2.0
    }

    /// The state `at` seconds after the brake fell in.
    pub fn at(&self, at: f64) -> Motion {
        if at >= self.duration() {
            return Motion { position: self.distance(), velocity: 0.0, acceleration: 0.0 };
        }
        let acceleration = -self.velocity.signum() * self.deceleration;
        Motion {
            position: at * (self.velocity + at * acceleration / 2.0),
            velocity: self.velocity + at * acceleration,
            acceleration,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_limits()(speed in 0.2_f64..10.0, acceleration in 0.3_f64..1.6, jerk in 0.3_f64..2.0) -> Limits {
            Limits { speed, acceleration, jerk }
        }
    }

    proptest! {
        #[test]
        fn a_profile_keeps_its_limits_and_ends_where_it_should(
            limits in any_limits(), distance in prop_oneof![0.005_f64..600.0, -600.0_f64..-0.005],
        ) {
            let profile = Profile::new(distance, limits);
            let end = profile.at(profile.duration());
            prop_assert!((end.position - distance).abs() < 1e-6, "{end:?}");
            let before = profile.at(profile.duration() - 1e-9);
            prop_assert!(before.velocity.abs() < 1e-6 && before.acceleration.abs() < 1e-6, "{before:?}");

            let steps = 1_000;
            let step = profile.duration() / f64::from(steps);
            let mut last = profile.at(0.0);
            for index in 1..=steps {
                let now = profile.at(step * f64::from(index));
                prop_assert!(now.velocity.abs() <= limits.speed * (1.0 + 1e-9));
                prop_assert!(now.acceleration.abs() <= limits.acceleration * (1.0 + 1e-9));
                prop_assert!((now.acceleration - last.acceleration).abs() <= limits.jerk * step + 1e-9);
                prop_assert!((now.velocity - last.velocity).abs() <= limits.acceleration * step + 1e-9);
                prop_assert!(now.velocity * distance >= -1e-9, "never runs backwards");
                last = now;
            }
        }

        #[test]
        fn a_profile_is_the_integral_of_its_speed(limits in any_limits(), distance in 0.1_f64..200.0) {
            let profile = Profile::new(distance, limits);
            let steps = 2_000;
            let step = profile.duration() / f64::from(steps);
            let sum: f64 = (0..steps).map(|i| profile.at(step * (f64::from(i) + 0.5)).velocity * step).sum();
            prop_assert!((sum - distance).abs() < distance * 1e-3, "{sum} for {distance}");
        }

        #[test]
        fn a_stop_slows_evenly(velocity in prop_oneof![0.1_f64..10.0, -10.0_f64..-0.1]) {
            let stop = Stop::new(velocity);
            let half = stop.at(stop.duration() / 2.0);
            prop_assert!((half.velocity - velocity / 2.0).abs() < 1e-9);
            prop_assert!((half.position - stop.distance() * 0.75).abs() < 1e-9);
            prop_assert!(stop.at(stop.duration() + 1.0).velocity.abs() < 1e-12);
        }
    }

    #[test]
    fn a_known_journey() {
        // 30 m at 1.75 m/s, 1 m/s², 1 m/s³: ramps of 2.75 s and 2.40625 m each.
        let profile = Profile::new(30.0, Limits { speed: 1.75, acceleration: 1.0, jerk: 1.0 });
        let expected = 2.0 * 2.75 + (30.0 - 2.0 * 2.406_25) / 1.75;
        assert!((profile.duration() - expected).abs() < 1e-9);
        assert!((profile.at(2.75).position - 2.406_25).abs() < 1e-9);
    }
}
