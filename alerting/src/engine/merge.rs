//! What partial readings add up to (DOMAIN.md 3.1, "Partial readings").
//!
//! Each field belongs to the terminal that sent it last. A terminal whose boot changed or whose numbers have a
//! hole no longer speaks for its fields: they are unknown until sent again.

use domain::{
    Arrival, CarStatus, Direction, DoorState, Field, Floor, Passengers, Reading, ServiceMode, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::terminal::Terminal;

macro_rules! merged {
    ($($field:ident $short:literal: $type:ty),+ $(,)?) => {
        /// The state of the elevator as far as it is known. Small and without heap parts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub(super) struct Merged {
            /// Device time of the newest reading, as sent, microseconds.
            #[serde(rename = "time")]
            pub(super) time_us: i64,
            /// Arrival of the newest reading; `None` before the first.
            pub(super) arrival: Option<Arrival2>,
            /// The speed was sent before the car status that stands now, so it says nothing of it.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub(super) speed_is_old: bool,
            $(#[serde(rename = $short, default, skip_serializing_if = "Option::is_none")]
            pub(super) $field: Option<$type>),+
        }

        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types)] // one bit per field, by its name
        enum Bit { $($field),+ }

        impl Merged {
            /// Makes the fields of this set unknown.
            pub(super) fn forget(&mut self, fields: u32) {
                $(if fields & (1 << Bit::$field as u32) != 0 { self.$field = None; })+
            }

            /// Takes what a reading sends. Fields in `blocked` are held by another terminal with newer data.
            /// Returns the fields it has set.
            fn take(&mut self, reading: &Reading, owns: u32, blocked: u32) -> u32 {
                let mut set = 0;
                $(match reading.$field {
                    Field::Absent => {}
                    // Not knowing is no news about what another terminal knows.
                    Field::Unknown => if owns & (1 << Bit::$field as u32) != 0 { self.$field = None; },
                    Field::Known(value) => if blocked & (1 << Bit::$field as u32) == 0 {
                        self.$field = Some(value);
                        set |= 1 << Bit::$field as u32;
                    },
                })+
                set
            }
        }
    };
}

merged! {
    service_mode "sm": ServiceMode,
    car_status "cs": CarStatus,
    direction "di": Direction,
    door_zone "dz": bool,
    door_state "ds": DoorState,
    passengers "pa": Passengers,
    floor "fl": Floor,
    floor_ordinal "fo": i16,
    position_mm "po": i32,
    velocity_mm_s "ve": i32,
    load_kg "lo": i16,
    people_count "pc": i16,
    flags "fg": i32,
    temperature_dc "te": i16,
    vibration_mm_s2 "vi": i32,
}

/// An arrival in compact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arrival2(i64, i64);

impl Arrival2 {
    pub(super) fn of(arrival: Arrival) -> Self {
        Self(arrival.no.0, arrival.at.micros())
    }

    pub(super) fn get(self) -> Arrival {
        Arrival { no: domain::ArrivalNo(self.0), at: Timestamp::from_micros(self.1) }
    }
}

/// The fields that the rules judge by: stale data of these pauses timers.
pub(super) const RULE_FIELDS: u32 = (1 << Bit::service_mode as u32)
    | (1 << Bit::car_status as u32)
    | (1 << Bit::door_zone as u32)
    | (1 << Bit::door_state as u32);
/// The fields that tell of people.
pub(super) const PRESENCE_FIELDS: u32 =
    (1 << Bit::passengers as u32) | (1 << Bit::load_kg as u32) | (1 << Bit::people_count as u32);
/// The field that tells whether the car moves.
pub(super) const STATUS_FIELD: u32 = 1 << Bit::car_status as u32;

/// Contacts, which may be told one by one.
const FLAGS_FIELD: u32 = 1 << Bit::flags as u32;

/// Merges a reading of terminal `index`, whose corrected time is already noted in it.
pub(super) fn merge(merged: &mut Merged, terminals: &mut [Terminal], index: usize, reading: &Reading) {
    let time = terminals[index].time;
    let owns = terminals[index].owns;
    let others = terminals.iter().enumerate().filter(|(other, _)| *other != index);
    let blocked = others.fold(0, |set, (_, other)| if other.time > time { set | other.owns } else { set });
    let flags = merged.flags;
    let set = merged.take(reading, owns, blocked);
    if set & FLAGS_FIELD != 0 {
        merged.flags = reading.flags_over(flags);
    }
    if set != 0 && terminals.len() > 1 {
        for terminal in terminals.iter_mut() {
            terminal.owns &= !set;
        }
    }
    terminals[index].owns |= set;
    if set & STATUS_FIELD != 0 || reading.velocity_mm_s.is_sent() {
        merged.speed_is_old = !reading.velocity_mm_s.is_sent();
    }
}

impl Merged {
    pub(super) fn is_stopped(&self, speed_mm_s: i32) -> bool {
        self.car_status == Some(CarStatus::Stopped) && self.speed().is_none_or(|speed| speed < speed_mm_s)
    }

    pub(super) fn is_running(&self, speed_mm_s: i32) -> bool {
        self.car_status == Some(CarStatus::Running) || self.speed().is_some_and(|speed| speed >= speed_mm_s)
    }

    fn speed(&self) -> Option<i32> {
        if self.speed_is_old { None } else { self.velocity_mm_s.map(i32::saturating_abs) }
    }

    pub(super) fn flag(&self, bit: i32) -> bool {
        self.flags.is_some_and(|flags| flags & bit != 0)
    }

    /// Door states that say fully closed; `None` where the door is not known.
    pub(super) fn door_closed(&self) -> Option<bool> {
        self.door_state.filter(|door| *door != DoorState::Unknown).map(DoorState::is_closed)
    }

    pub(super) fn door_is_open(&self) -> bool {
        self.door_state == Some(DoorState::Open)
    }

    pub(super) fn door_open_in_zone(&self) -> bool {
        self.door_is_open() && self.door_zone == Some(true)
    }
}
