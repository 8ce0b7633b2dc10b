//! The latest state of an elevator, as the `elevator_state` table shows it.

use domain::{Arrival, CarStatus, Code, Direction, DoorState, Floor, Passengers, ServiceMode, Timestamp};

use super::state::ElevatorState;

/// The newest live readings added up. `None` in a field means not known.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// Device time of the newest reading, as sent.
    pub time: Timestamp,
    /// Arrival of the newest reading.
    pub arrival: Arrival,
    /// Service mode.
    pub service_mode: Option<ServiceMode>,
    /// Moving or not.
    pub car_status: Option<CarStatus>,
    /// Direction of travel.
    pub direction: Option<Direction>,
    /// Car within the unlocking zone.
    pub door_zone: Option<bool>,
    /// Door.
    pub door_state: Option<DoorState>,
    /// Somebody in the car, raw.
    pub passengers: Option<Passengers>,
    /// Somebody in the car, as the rules judge (锁存).
    pub people: Option<bool>,
    /// Displayed floor.
    pub floor: Option<Floor>,
    /// Floor counted from the lowest stop.
    pub floor_ordinal: Option<i16>,
    /// Height above the lowest stop, mm.
    pub position_mm: Option<i32>,
    /// Speed, mm/s, up positive.
    pub velocity_mm_s: Option<i32>,
    /// Load, kg.
    pub load_kg: Option<i16>,
    /// People counted.
    pub people_count: Option<i16>,
    /// Contacts, `Reading::FLAG_*`.
    pub flags: Option<i32>,
    /// Car temperature, tenths of a degree Celsius.
    pub temperature_dc: Option<i16>,
    /// Vibration, mm/s².
    pub vibration_mm_s2: Option<i32>,
    /// Codes active by the terminals' own lists.
    pub codes: Vec<Code>,
    /// Whether every terminal is connected; `None` where presence was never told.
    pub online: Option<bool>,
    /// When a terminal was last heard.
    pub last_seen: Timestamp,
}

impl ElevatorState {
    /// The latest state; `None` before the first live reading. While a backlog is read it stays as it was.
    pub fn latest(&self) -> Option<Latest> {
        let shown = self.shown.as_deref().unwrap_or(&self.merged);
        let arrival = shown.arrival?.get();
        let mut codes: Vec<Code> = Vec::new();
        for code in self.terminals.iter().flat_map(|terminal| &terminal.codes) {
            if !codes.contains(code) {
                codes.push(code.clone());
            }
        }
        let told = self.terminals.iter().filter_map(|terminal| terminal.online);
        Some(Latest {
            time: Timestamp::from_micros(shown.time_us),
            arrival,
            service_mode: shown.service_mode,
            car_status: shown.car_status,
            direction: shown.direction,
            door_zone: shown.door_zone,
            door_state: shown.door_state,
            passengers: shown.passengers,
            people: self.latch.people(),
            floor: shown.floor,
            floor_ordinal: shown.floor_ordinal,
            position_mm: shown.position_mm,
            velocity_mm_s: shown.velocity_mm_s,
            load_kg: shown.load_kg,
            people_count: shown.people_count,
            flags: shown.flags,
            temperature_dc: shown.temperature_dc,
            vibration_mm_s2: shown.vibration_mm_s2,
            codes,
            online: told.reduce(|all, one| all && one),
            last_seen: self.terminals.iter().map(|it| it.heard).max().unwrap_or_default().time(),
        })
    }
}
