//! One reading of an elevator's state, checked: every value inside its range (DOMAIN.md 3).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::message::Code;
use crate::{Seq, Timestamp};

/// A value that a partial reading may leave out (DOMAIN.md 3.1, "Partial readings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Not sent: unchanged within the boot.
    #[default]
    Absent,
    /// Sent as not known.
    Unknown,
    /// Sent with a value.
    Known(T),
}

impl<T> Field<T> {
    /// The value, if there is one.
    pub fn known(self) -> Option<T> {
        match self {
            Field::Known(value) => Some(value),
            Field::Absent | Field::Unknown => None,
        }
    }

    /// Whether the field was sent at all.
    pub fn is_sent(&self) -> bool {
        !matches!(self, Field::Absent)
    }

    /// The value by reference.
    pub fn as_ref(&self) -> Field<&T> {
        match self {
            Field::Absent => Field::Absent,
            Field::Unknown => Field::Unknown,
            Field::Known(value) => Field::Known(value),
        }
    }

    /// The same with the value changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Field::Absent => Field::Absent,
            Field::Unknown => Field::Unknown,
            Field::Known(value) => Field::Known(change(value)),
        }
    }

    /// The same with the value changed, where it can be.
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Field<U>, E> {
        Ok(match self {
            Field::Absent => Field::Absent,
            Field::Unknown => Field::Unknown,
            Field::Known(value) => Field::Known(change(value)?),
        })
    }
}

/// A number does not stand in this table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value} is out of range")]
pub struct RangeError {
    /// The field, as the open JSON spells it.
    pub field: &'static str,
    /// What was sent.
    pub value: i64,
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident, $field:literal, { $($(#[$vdoc:meta])* $variant:ident = $number:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum $name { $($(#[$vdoc])* $variant = $number),+ }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The number on the wire and in the store.
            pub const fn number(self) -> i16 {
                self as i16
            }
        }

        impl TryFrom<i64> for $name {
            type Error = RangeError;
            fn try_from(value: i64) -> Result<Self, RangeError> {
                match value {
                    $($number => Ok($name::$variant),)+
                    _ => Err(RangeError { field: $field, value }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_i16(self.number())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $name::try_from(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

wire_enum! {
    /// Service mode (服务模式) of a lift, GB/T 24476-2017 `Service_Mode`.
    ServiceMode, "service_mode", {
        /// 停止服务.
        OutOfService = 0,
        /// 正常.
        Normal = 1,
        /// 检修.
        Inspection = 2,
        /// 消防返回.
        FireRecall = 3,
        /// 消防员运行.
        Firefighter = 4,
        /// 应急电源.
        EmergencyPower = 5,
        /// 地震.
        Earthquake = 6,
        /// 未知.
        Unknown = 7,
    }
}

wire_enum! {
    /// Running state (运行状态), GB/T 24476-2017 `Car_Status`.
    CarStatus, "car_status", {
        /// The car stands.
        Stopped = 0,
        /// The car moves.
        Running = 1,
    }
}

wire_enum! {
    /// Running direction (运行方向), GB/T 24476-2017 `Car_Direction`.
    Direction, "car_direction", {
        /// None.
        None = 0,
        /// 上行.
        Up = 1,
        /// 下行.
        Down = 2,
    }
}

wire_enum! {
    /// Door state (门状态), DOMAIN.md 3.2. Only `Open` is open (DOMAIN.md 5, "Door words").
    DoorState, "door_state", {
        /// Not known.
        Unknown = 0,
        /// Closing.
        Closing = 1,
        /// Fully closed; also the boolean `door_closed` = true.
        Closed = 2,
        /// Opening.
        Opening = 3,
        /// Open.
        Open = 4,
        /// Closed and locked.
        Locked = 5,
        /// Held not fully closed.
        Held = 6,
        /// Ours: only the boolean is known, and it says "not fully closed". Says neither open nor held.
        NotClosed = 7,
    }
}

impl DoorState {
    /// Fully closed, locked or not.
    pub const fn is_closed(self) -> bool {
        matches!(self, DoorState::Closed | DoorState::Locked)
    }
}

wire_enum! {
    /// Whether somebody is in the car (轿内是否有人), as the sensor says now.
    Passengers, "passengers", {
        /// Nobody.
        No = 0,
        /// Somebody.
        Yes = 1,
    }
}

/// A floor as the lift displays it (当前楼层) and as a number from the lowest stop, where sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    bytes: [u8; limits::FLOOR_BYTES_MAX],
    len: u8,
}

impl Floor {
    /// Takes a label of 1 to [`limits::FLOOR_BYTES_MAX`] bytes without control characters.
    pub fn new(label: &str) -> Result<Self, RangeError> {
        let len = label.len();
        if len == 0 || len > limits::FLOOR_BYTES_MAX || label.chars().any(char::is_control) {
            return Err(RangeError { field: "floor", value: len as i64 });
        }
        let mut bytes = [0; limits::FLOOR_BYTES_MAX];
        bytes[..len].copy_from_slice(label.as_bytes());
        Ok(Self { bytes, len: len as u8 })
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Floor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

impl Serialize for Floor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Floor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let label = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Floor::new(&label).map_err(serde::de::Error::custom)
    }
}

/// One reading. Build it with [`Reading::new`] and set what was sent; [`Reading::check`] enforces ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Sequence number within the boot.
    pub seq: Seq,
    /// Device time as sent; never corrected.
    pub time: Timestamp,
    /// Service mode.
    pub service_mode: Field<ServiceMode>,
    /// Moving or not.
    pub car_status: Field<CarStatus>,
    /// Direction of travel.
    pub direction: Field<Direction>,
    /// Car within the unlocking zone (开锁区域).
    pub door_zone: Field<bool>,
    /// Door.
    pub door_state: Field<DoorState>,
    /// Somebody in the car, raw.
    pub passengers: Field<Passengers>,
    /// Displayed floor.
    pub floor: Field<Floor>,
    /// Floor counted from the lowest stop.
    pub floor_ordinal: Field<i16>,
    /// Height above the lowest stop, mm.
    pub position_mm: Field<i32>,
    /// Speed, mm/s, up positive.
    pub velocity_mm_s: Field<i32>,
    /// Load, kg.
    pub load_kg: Field<i16>,
    /// People counted.
    pub people_count: Field<i16>,
    /// Contacts, see the `FLAG_` constants.
    pub flags: Field<i32>,
    /// Which bits of known `flags` were told: all, unless a terminal sends its contacts one by one. The others are 0
    /// there and say nothing.
    pub flags_told: i32,
    /// Car temperature, tenths of a degree Celsius.
    pub temperature_dc: Field<i16>,
    /// Vibration, mm/s².
    pub vibration_mm_s2: Field<i32>,
    /// All fault and event codes active now.
    pub codes: Field<Vec<Code>>,
}

impl Reading {
    /// Car overload (超载).
    pub const FLAG_OVERLOAD: i32 = 1;
    /// Power from battery: `power_source` 1.
    pub const FLAG_BATTERY_POWER: i32 = 1 << 1;
    /// Safety circuit open.
    pub const FLAG_SAFETY_CIRCUIT_OPEN: i32 = 1 << 2;
    /// Door-lock circuit open.
    pub const FLAG_DOOR_LOCK_OPEN: i32 = 1 << 3;
    /// Alarm button pressed.
    pub const FLAG_ALARM_BUTTON: i32 = 1 << 4;
    /// All bits that have a meaning.
    pub const FLAGS_ALL: i32 = (1 << 5) - 1;

    /// A reading in which nothing but number and time was sent.
    pub fn new(seq: Seq, time: Timestamp) -> Self {
        Self {
            seq,
            time,
            service_mode: Field::Absent,
            car_status: Field::Absent,
            direction: Field::Absent,
            door_zone: Field::Absent,
            door_state: Field::Absent,
            passengers: Field::Absent,
            floor: Field::Absent,
            floor_ordinal: Field::Absent,
            position_mm: Field::Absent,
            velocity_mm_s: Field::Absent,
            load_kg: Field::Absent,
            people_count: Field::Absent,
            flags: Field::Absent,
            flags_told: Self::FLAGS_ALL,
            temperature_dc: Field::Absent,
            vibration_mm_s2: Field::Absent,
            codes: Field::Absent,
        }
    }

    /// Whether every value lies in its range.
    pub fn check(&self) -> Result<(), RangeError> {
        fn within(field: &'static str, value: Field<i64>, low: i64, high: i64) -> Result<(), RangeError> {
            match value {
                Field::Known(value) if value < low || value > high => Err(RangeError { field, value }),
                _ => Ok(()),
            }
        }
        let symmetric = |field, value, bound: i32| within(field, value, -i64::from(bound), i64::from(bound));
        symmetric("position_mm", self.position_mm.map(i64::from), limits::POSITION_MM_ABS_MAX)?;
        symmetric("velocity_mm_s", self.velocity_mm_s.map(i64::from), limits::VELOCITY_MM_S_ABS_MAX)?;
        symmetric("temperature_dc", self.temperature_dc.map(i64::from), limits::TEMPERATURE_DC_ABS_MAX)?;
        within("load_kg", self.load_kg.map(i64::from), 0, i64::from(limits::LOAD_KG_MAX))?;
        within("people_count", self.people_count.map(i64::from), 0, 200)?;
        within("flags", self.flags.map(i64::from), 0, i64::from(Self::FLAGS_ALL))?;
        within("flags_told", Field::Known(i64::from(self.flags_told)), 0, i64::from(Self::FLAGS_ALL))?;
        within(
            "vibration_mm_s2",
            self.vibration_mm_s2.map(i64::from),
            0,
            i64::from(limits::VIBRATION_MM_S2_MAX),
        )?;
        within("codes", self.codes.as_ref().map(|codes| codes.len() as i64), 0, limits::CODES_MAX as i64)
    }

    /// One bit of the flags, if it was told.
    pub fn flag(&self, bit: i32) -> Field<bool> {
        match self.flags {
            Field::Known(_) if self.flags_told & bit == 0 => Field::Absent,
            flags => flags.map(|flags| flags & bit != 0),
        }
    }

    /// The flags after it, where these stood before: what it does not tell stays.
    pub fn flags_over(&self, before: Option<i32>) -> Option<i32> {
        let told = self.flags_told;
        self.flags.known().map(|flags| (before.unwrap_or_default() & !told) | (flags & told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_know_their_numbers_and_no_others() {
        for mode in ServiceMode::ALL {
            assert_eq!(ServiceMode::try_from(i64::from(mode.number())), Ok(*mode));
        }
        assert!(ServiceMode::try_from(8).is_err());
        assert!(DoorState::try_from(-1).is_err());
        assert_eq!(CarStatus::try_from(2).unwrap_err().to_string(), "car_status 2 is out of range");
    }

    #[test]
    fn a_contact_that_is_not_told_stays_as_it_was() {
        let mut reading = Reading::new(Seq(1), Timestamp::from_millis(0));
        reading.flags = Field::Known(Reading::FLAG_DOOR_LOCK_OPEN);
        assert_eq!(reading.flag(Reading::FLAG_ALARM_BUTTON), Field::Known(false));
        assert_eq!(reading.flags_over(Some(Reading::FLAG_ALARM_BUTTON)), Some(Reading::FLAG_DOOR_LOCK_OPEN));
        reading.flags_told = Reading::FLAG_DOOR_LOCK_OPEN | Reading::FLAG_OVERLOAD;
        assert_eq!(reading.flag(Reading::FLAG_ALARM_BUTTON), Field::Absent);
        assert_eq!(reading.flag(Reading::FLAG_OVERLOAD), Field::Known(false));
        let before = Reading::FLAG_ALARM_BUTTON | Reading::FLAG_OVERLOAD;
        let after = Reading::FLAG_ALARM_BUTTON | Reading::FLAG_DOOR_LOCK_OPEN;
        assert_eq!((reading.flags_over(Some(before)), reading.check()), (Some(after), Ok(())));
    }

    #[test]
    fn ranges_are_enforced() {
        let mut reading = Reading::new(Seq(1), Timestamp::from_millis(0));
        assert_eq!(reading.check(), Ok(()));
        reading.velocity_mm_s = Field::Known(30_001);
        assert_eq!(reading.check(), Err(RangeError { field: "velocity_mm_s", value: 30_001 }));
    }

    #[test]
    fn floors_are_short_texts() {
        assert_eq!(Floor::new("B1").unwrap().as_str(), "B1");
        assert_eq!(Floor::new("十二层半").unwrap_or(Floor::new("x").unwrap()).as_str(), "十二层半");
        assert!(Floor::new("").is_err());
        assert!(Floor::new("a\0b").is_err());
        assert!(Floor::new("12345678901234567").is_err());
    }
}
