//! What a terminal can see of a lift at a moment.

use domain::{
    CarStatus, Direction, DoorState, Field, Floor, Passengers, Reading, Seq, ServiceMode, Timestamp,
};

/// The codes a simulated controller or terminal may report; all are slugs of the taxonomy.
const SLUGS: [&str; 8] = [
    "stop_outside_zone",
    "unintended_movement",
    "safety_circuit_open",
    "power_off",
    "alarm_button",
    "entrapment_between_floors",
    "entrapment_at_level",
    "door_obstructed",
];

/// A set of active codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codes(u8);

impl Codes {
    pub(crate) const STOP_OUTSIDE_ZONE: Self = Self(1);
    pub(crate) const UNINTENDED_MOVEMENT: Self = Self(1 << 1);
    pub(crate) const SAFETY_CIRCUIT_OPEN: Self = Self(1 << 2);
    pub(crate) const POWER_OFF: Self = Self(1 << 3);
    pub(crate) const ALARM_BUTTON: Self = Self(1 << 4);
    pub(crate) const ENTRAPMENT_BETWEEN_FLOORS: Self = Self(1 << 5);
    pub(crate) const ENTRAPMENT_AT_LEVEL: Self = Self(1 << 6);
    pub(crate) const DOOR_OBSTRUCTED: Self = Self(1 << 7);

    /// Both sets.
    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less the other.
    #[must_use]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The slugs of this set.
    pub fn slugs(self) -> impl Iterator<Item = &'static str> {
        SLUGS.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, slug)| *slug)
    }
}

/// The state of a lift as its sensors show it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Service mode.
    pub service_mode: ServiceMode,
    /// Moving or not.
    pub car_status: CarStatus,
    /// Direction of travel.
    pub direction: Direction,
    /// Within the unlocking zone of a floor.
    pub door_zone: bool,
    /// Door.
    pub door_state: DoorState,
    /// People in the car.
    pub people: u8,
    /// Their weight, kg.
    pub load_kg: i16,
    /// Nearest floor, from the lowest.
    pub floor: u8,
    /// Its label is `floor + 1 - basements`, `B1` and so on below.
    pub basements: u8,
    /// Above the lowest stop.
    pub position_mm: i32,
    /// Up is positive.
    pub velocity_mm_s: i32,
    /// Tenths of a degree Celsius.
    pub temperature_dc: i16,
    /// Active codes.
    pub codes: Codes,
}

impl Observation {
    /// The floor as displayed.
    pub fn label(&self) -> String {
        if self.floor < self.basements {
            format!("B{}", self.basements - self.floor)
        } else {
            format!("{}", u16::from(self.floor) + 1 - u16::from(self.basements))
        }
    }

    fn flags(&self) -> i32 {
        let bit = |code, flag| if self.codes.has(code) { flag } else { 0 };
        bit(Codes::POWER_OFF, Reading::FLAG_BATTERY_POWER)
            | bit(Codes::SAFETY_CIRCUIT_OPEN, Reading::FLAG_SAFETY_CIRCUIT_OPEN)
            | bit(Codes::ALARM_BUTTON, Reading::FLAG_ALARM_BUTTON)
    }

    /// The complete reading of this state.
    pub fn reading(&self, seq: Seq, time: Timestamp) -> Reading {
        let mut reading = Reading::new(seq, time);
        reading.service_mode = Field::Known(self.service_mode);
        reading.car_status = Field::Known(self.car_status);
        reading.direction = Field::Known(self.direction);
        reading.door_zone = Field::Known(self.door_zone);
        reading.door_state = Field::Known(self.door_state);
        reading.passengers = Field::Known(if self.people > 0 { Passengers::Yes } else { Passengers::No });
        reading.floor = Floor::new(&self.label()).map_or(Field::Unknown, Field::Known);
        reading.floor_ordinal = Field::Known(i16::from(self.floor));
        reading.position_mm = Field::Known(self.position_mm);
        reading.velocity_mm_s = Field::Known(self.velocity_mm_s);
        reading.load_kg = Field::Known(self.load_kg);
        reading.people_count = Field::Known(i16::from(self.people));
        reading.flags = Field::Known(self.flags());
        reading.temperature_dc = Field::Known(self.temperature_dc);
        reading.codes = Field::Known(self.codes.slugs().filter_map(domain::Code::canonical).collect());
        reading
    }

    /// The reading that says only what is new since `before`.
    pub fn changes(&self, before: &Observation, seq: Seq, time: Timestamp) -> Reading {
        let mut reading = self.reading(seq, time);
        let last = before.reading(seq, time);
        macro_rules! drop_same {
            ($($field:ident),+) => { $(if reading.$field == last.$field { reading.$field = Field::Absent; })+ };
        }
        drop_same!(
            service_mode,
            car_status,
            direction,
            door_zone,
            door_state,
            passengers,
            floor,
            floor_ordinal,
            position_mm,
            velocity_mm_s,
            load_kg,
            people_count,
            flags,
            temperature_dc,
            codes
        );
        reading
    }
}
