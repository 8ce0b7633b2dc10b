//! Statistics (统计): counters that a terminal tells every few minutes (DOMAIN.md 3.2).

use crate::{BootId, RangeError, Seq, Timestamp, limits};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What is counted. The slug is also its column in the store and its field in protobuf; its last word
        /// is the unit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter { $($(#[$doc])* $variant),+ }

        impl Counter {
            /// Every counter, in the order of its number on the wire.
            pub const ALL: [Counter; Counter::COUNT] = [$(Counter::$variant),+];
            /// How many there are.
            pub const COUNT: usize = [$($name),+].len();

            /// Its one name.
            pub const fn slug(self) -> &'static str {
                match self { $(Counter::$variant => $name),+ }
            }
        }
    };
}

counters! {
    /// 开门次数.
    DoorOpenCount = "door_open_count",
    /// 用电量, watt hours.
    EnergyWh = "energy_wh",
    /// 累计运行时间, seconds.
    RunningS = "running_s",
    /// 累计运行次数.
    RunCount = "run_count",
    /// 钢丝绳折弯次数.
    RopeBendCount = "rope_bend_count",
    /// 运行里程, metres.
    MileageM = "mileage_m",
    /// People carried.
    PassengerCount = "passenger_count",
    /// 再平层次数.
    LevellingCount = "levelling_count",
    /// Trips up and back.
    RoundTripCount = "round_trip_count",
}

/// A value for each [`Counter`] that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters([Option<i64>; Counter::COUNT]);

impl Counters {
    /// The value of one, if it was sent.
    pub const fn get(&self, counter: Counter) -> Option<i64> {
        self.0[counter as usize]
    }

    /// Sets one.
    pub const fn set(&mut self, counter: Counter, value: Option<i64>) {
        self.0[counter as usize] = value;
    }

    /// Those that were sent.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, i64)> {
        Counter::ALL.into_iter().filter_map(|counter| Some((counter, self.get(counter)?)))
    }

    /// Whether nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl FromIterator<(Counter, i64)> for Counters {
    fn from_iter<I: IntoIterator<Item = (Counter, i64)>>(values: I) -> Self {
        let mut counters = Self::default();
        for (counter, value) in values {
            counters.set(counter, Some(value));
        }
        counters
    }
}

/// What a terminal has counted at one moment. The counters only grow; where one is smaller than before, the
/// terminal was replaced or reset, and counting begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// The boot it belongs to.
    pub boot: BootId,
    /// Terminal clock at this transmission.
    pub sent: Option<Timestamp>,
    /// Sequence number within the boot, shared with readings and events.
    pub seq: Seq,
    /// Device time as sent.
    pub time: Timestamp,
    /// The counters.
    pub counters: Counters,
}

impl Statistics {
    /// Whether every counter lies in 0 to [`limits::COUNTER_MAX`].
    pub fn check(&self) -> Result<(), RangeError> {
        match self.counters.iter().find(|(_, value)| !(0..=limits::COUNTER_MAX).contains(value)) {
            Some((counter, value)) => Err(RangeError { field: counter.slug(), value }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        for (number, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, number);
            let mut counters = Counters::default();
            assert!(counters.is_empty());
            counters.set(counter, Some(7));
            assert_eq!(counters.iter().collect::<Vec<_>>(), [(counter, 7)]);
            assert_eq!(Counter::ALL.iter().filter(|other| other.slug() == counter.slug()).count(), 1);
        }
    }

    #[test]
    fn counters_are_bounded() {
        let of = |value| Statistics {
            boot: BootId(1),
            sent: None,
            seq: Seq(1),
            time: Timestamp::from_millis(0),
            counters: [(Counter::MileageM, value)].into_iter().collect(),
        };
        assert_eq!(of(0).check(), Ok(()));
        assert_eq!(of(limits::COUNTER_MAX).check(), Ok(()));
        assert_eq!(of(-1).check().unwrap_err().to_string(), "mileage_m -1 is out of range");
        assert!(of(limits::COUNTER_MAX + 1).check().is_err());
    }
}
