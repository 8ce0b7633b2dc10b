//! What a vendor's field may become: every place of the canonical model, with its name in the open JSON.

/// A place of the canonical model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Target {
    Time,
    Sent,
    Seq,
    Boot,
    PrevBootLastSeq,
    ServiceMode,
    CarStatus,
    CarDirection,
    DoorZone,
    DoorState,
    DoorClosed,
    Passengers,
    Floor,
    FloorOrdinal,
    PositionMm,
    VelocityMmS,
    LoadKg,
    PeopleCount,
    Flags,
    CarOverload,
    BatteryPower,
    SafetyCircuitOpen,
    DoorLockOpen,
    AlarmButton,
    CarTempC,
    VibrationMmS2,
    Codes,
    Code,
    State,
    Active,
    Readings,
    Events,
}

/// How a target's value looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// A moment.
    Time,
    /// A whole number, not negative.
    Count,
    /// One of these words, each with its number.
    Words(&'static [(&'static str, i16)]),
    /// Yes or no.
    Bool,
    /// A number within bounds; the vendor's unit is one of these, with what makes it ours.
    Number { low: f64, high: f64, units: &'static [(&'static str, f64)] },
    /// A short text.
    Text,
    /// A code, or a list of them.
    Codes,
    /// A list of objects.
    List,
}

/// One row of the table of targets.
#[derive(Debug)]
pub(crate) struct TargetInfo {
    pub(crate) target: Target,
    /// Its name in the open JSON, by which it can always be sent.
    pub(crate) name: &'static str,
    /// Other names by which it can always be sent: those of GB/T 24476-2017, and of its escalators.
    pub(crate) also: &'static [&'static str],
    pub(crate) form: Form,
    pub(crate) unit: &'static str,
}

const MODES: &[(&str, i16)] = &[
    ("out_of_service", 0),
    ("normal", 1),
    ("inspection", 2),
    ("fire_recall", 3),
    ("firefighter", 4),
    ("emergency_power", 5),
    ("earthquake", 6),
    ("unknown", 7),
];
const MOVES: &[(&str, i16)] = &[("stopped", 0), ("running", 1)];
const DIRECTIONS: &[(&str, i16)] = &[("none", 0), ("up", 1), ("down", 2)];
const DOORS: &[(&str, i16)] = &[
    ("unknown", 0),
    ("closing", 1),
    ("closed", 2),
    ("opening", 3),
    ("open", 4),
    ("locked", 5),
    ("held", 6),
    ("not_closed", 7),
];
const STATES: &[(&str, i16)] = &[("open", 1), ("close", 2), ("once", 3)];

const fn number(low: f64, high: f64, units: &'static [(&'static str, f64)]) -> Form {
    Form::Number { low, high, units }
}

const LENGTHS: &[(&str, f64)] = &[("mm", 1.0), ("cm", 10.0), ("m", 1_000.0)];
const SPEEDS: &[(&str, f64)] = &[("mm/s", 1.0), ("cm/s", 10.0), ("m/s", 1_000.0), ("m/min", 1_000.0 / 60.0)];
const LOADS: &[(&str, f64)] = &[("kg", 1.0), ("t", 1_000.0)];
const VIBRATIONS: &[(&str, f64)] = &[
    ("mm/s²", 1.0),
    ("mm/s2", 1.0),
    ("m/s²", 1_000.0),
    ("m/s2", 1_000.0),
    ("g", 9_806.65),
    ("mg", 9.806_65),
];
const TEMPERATURES: &[(&str, f64)] = &[("°C", 1.0), ("C", 1.0)];

macro_rules! rows {
    ($($target:ident $name:literal $(or $also:literal)* = $form:expr, $unit:literal;)+) => {
        /// All targets, in the order of [`Target`].
        pub(crate) static TARGETS: &[TargetInfo] = &[
            $(TargetInfo {
                target: Target::$target,
                name: $name,
                also: &[$($also),*],
                form: $form,
                unit: $unit,
            },)+
        ];
    };
}

rows! {
    Time "time" or "Time_Stamps" = Form::Time, "";
    Sent "sent" = Form::Time, "";
    Seq "seq" = Form::Count, "";
    Boot "boot" = Form::Count, "";
    PrevBootLastSeq "prev_boot_last_seq" = Form::Count, "";
    ServiceMode "service_mode" or "Service_Mode" = Form::Words(MODES), "";
    CarStatus "car_status" or "operation_status" or "Car_Status" = Form::Words(MOVES), "";
    CarDirection "car_direction" or "operation_direction" or "Car_Direction" = Form::Words(DIRECTIONS), "";
    DoorZone "door_zone" or "Door_Zone" = Form::Bool, "";
    DoorState "door_state" = Form::Words(DOORS), "";
    DoorClosed "door_closed" or "Door_Status" = Form::Bool, "";
    Passengers "passengers" or "Passenger_Status" = Form::Bool, "";
    Floor "floor" or "Car_Position" = Form::Text, "";
    FloorOrdinal "floor_ordinal" = number(-32_768.0, 32_767.0, &[]), "";
    PositionMm "position_mm" = number(-2_000_000.0, 2_000_000.0, LENGTHS), "mm";
    VelocityMmS "velocity_mm_s" = number(-30_000.0, 30_000.0, SPEEDS), "mm/s";
    LoadKg "load_kg" = number(0.0, 30_000.0, LOADS), "kg";
    PeopleCount "people_count" = number(0.0, 200.0, &[]), "";
    Flags "flags" = number(0.0, 31.0, &[]), "";
    CarOverload "car_overload" = Form::Bool, "";
    BatteryPower "battery_power" = Form::Bool, "";
    SafetyCircuitOpen "safety_circuit_open" = Form::Bool, "";
    DoorLockOpen "door_lock_open" = Form::Bool, "";
    AlarmButton "alarm_button" = Form::Bool, "";
    CarTempC "car_temp_c" = number(-200.0, 200.0, TEMPERATURES), "°C";
    VibrationMmS2 "vibration_mm_s2" = number(0.0, 1_000_000.0, VIBRATIONS), "mm/s²";
    Codes "codes" or "Message_Code" = Form::Codes, "";
    Code "code" or "Message_Code" = Form::Codes, "";
    State "state" = Form::Words(STATES), "";
    Active "active" = Form::Codes, "";
    Readings "readings" = Form::List, "";
    Events "events" = Form::List, "";
}

/// How many there are.
pub(crate) const TARGETS_LEN: usize = Target::Events as usize + 1;

impl Target {
    /// Its row.
    pub(crate) fn info(self) -> &'static TargetInfo {
        &TARGETS[self as usize]
    }

    /// A contact by a name of its own; the open JSON has them all in `flags`.
    pub(crate) fn is_contact(self) -> bool {
        use Target::{AlarmButton, BatteryPower, CarOverload, DoorLockOpen, SafetyCircuitOpen};
        matches!(self, CarOverload | BatteryPower | SafetyCircuitOpen | DoorLockOpen | AlarmButton)
    }

    /// The target of that canonical name.
    pub(crate) fn named(name: &str) -> Option<&'static TargetInfo> {
        TARGETS.iter().find(|info| info.name == name)
    }
}

impl TargetInfo {
    /// The number of a word: `normal`, `true`, `yes`; a number stands for itself where the table has it.
    pub(crate) fn number_of(&self, word: &str) -> Option<i16> {
        match self.form {
            Form::Words(words) => {
                let number = word.parse::<i16>().ok();
                words
                    .iter()
                    .find(|(name, value)| *name == word || Some(*value) == number)
                    .map(|found| found.1)
            }
            Form::Bool => match word {
                "true" | "yes" => Some(1),
                "false" | "no" => Some(0),
                _ => None,
            },
            _ => None,
        }
    }

    /// The word of a number.
    pub(crate) fn word_of(&self, number: i16) -> &'static str {
        match self.form {
            Form::Words(words) => {
                words.iter().find(|(_, value)| *value == number).map_or("?", |found| found.0)
            }
            Form::Bool if number == 0 => "false",
            Form::Bool => "true",
            _ => "?",
        }
    }

    /// The words it may take, for people.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        match self.form {
            Form::Words(words) => words.iter().map(|(name, _)| *name).collect(),
            Form::Bool => vec!["true", "false"],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_stands_in_its_row() {
        assert_eq!(TARGETS.len(), TARGETS_LEN);
        for (index, info) in TARGETS.iter().enumerate() {
            assert_eq!(info.target as usize, index, "{}", info.name);
            assert_eq!(Target::named(info.name).map(|found| found.target), Some(info.target));
        }
    }
}
