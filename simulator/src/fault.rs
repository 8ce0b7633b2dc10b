//! What can go wrong with a simulated lift, and the ground truth of it: what happened when, and which alarm a
//! perfect system would raise. Alarm quality is measured against this list, never against our own rules.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use domain::{TerminalId, Timestamp};
use serde::{Deserialize, Serialize};

/// The kinds of trouble that can be staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The brake falls in between floors with people in the car.
    EntrapmentBetweenFloors,
    /// The car arrives with people, and the door stays shut.
    EntrapmentAtLevel,
    /// Somebody in a closed, standing car holds the alarm button.
    ButtonPress,
    /// Somebody presses the alarm button with the door open at a landing.
    NuisancePress,
    /// The mains fail, wherever the car is.
    PowerCut,
    /// The safety circuit opens during a run with people.
    SafetyCircuitOpen,
    /// The car creeps out of the landing with its door open; an S1 fault of the controller.
    UnintendedMovement,
    /// Something in the sill makes the door open again four times. Nothing to raise.
    DoorReclose,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::EntrapmentBetweenFloors,
        Self::EntrapmentAtLevel,
        Self::ButtonPress,
        Self::NuisancePress,
        Self::PowerCut,
        Self::SafetyCircuitOpen,
        Self::UnintendedMovement,
        Self::DoorReclose,
    ];

    /// Its name on the command line and in the ground truth.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::EntrapmentBetweenFloors => "entrapment_between_floors",
            Self::EntrapmentAtLevel => "entrapment_at_level",
            Self::ButtonPress => "button_press",
            Self::NuisancePress => "nuisance_press",
            Self::PowerCut => "power_cut",
            Self::SafetyCircuitOpen => "safety_circuit_open",
            Self::UnintendedMovement => "unintended_movement",
            Self::DoorReclose => "door_reclose",
        }
    }

    /// Whether it can only strike a car that runs with people.
    pub const fn needs_passengers(self) -> bool {
        matches!(self, Self::EntrapmentBetweenFloors | Self::EntrapmentAtLevel | Self::SafetyCircuitOpen)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.slug())
    }
}

/// A fault plan on the command line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFaultError {
    /// No such kind.
    #[error("unknown fault '{0}'; known are {known}", known = FaultKind::ALL.map(FaultKind::slug).join(", "))]
    Kind(String),
    /// The part after `*` or `@`.
    #[error("'{0}' is not of the form kind, kind*count, kind@seconds or kind*count@seconds")]
    Form(String),
}

impl FromStr for FaultKind {
    type Err = ParseFaultError;
    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let found = Self::ALL.into_iter().find(|kind| kind.slug() == text);
        found.ok_or_else(|| ParseFaultError::Kind(text.to_owned()))
    }
}

/// One fault to stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// How long it lasts before the rescuers come; `None`: until released by hand. A button is held this
    /// long.
    pub hold: Option<Duration>,
    /// The terminal recognises an entrapment by itself and sends its code 2 s after the car stands
    /// (evidence for rule E3).
    pub device_code: bool,
    /// The people shut in press the alarm button 10 s after the car stands (evidence for rule E4).
    pub button: bool,
}

impl Fault {
    /// A fault that lasts a usual time: 15 minutes for entrapments, 6 s for a button.
    pub fn new(kind: FaultKind) -> Self {
        let hold = match kind {
            FaultKind::ButtonPress => Duration::from_secs(6),
            FaultKind::NuisancePress => Duration::from_secs(4),
            FaultKind::DoorReclose => Duration::ZERO,
            _ => Duration::from_mins(15),
        };
        Self { kind, hold: Some(hold), device_code: false, button: false }
    }

    /// Lasts `hold`.
    #[must_use]
    pub fn lasting(self, hold: Duration) -> Self {
        Self { hold: Some(hold), ..self }
    }

    /// Lasts until it is released by hand.
    #[must_use]
    pub fn until_released(self) -> Self {
        Self { hold: None, ..self }
    }

    /// The terminal reports the entrapment itself.
    #[must_use]
    pub fn with_device_code(self) -> Self {
        Self { device_code: true, ..self }
    }

    /// The people shut in press the button.
    #[must_use]
    pub fn with_button(self) -> Self {
        Self { button: true, ..self }
    }
}

/// What really happened at a lift. The simulator knows; the rules must find out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Truth {
    /// The terminal that watches the lift.
    pub terminal: TerminalId,
    /// What was staged.
    pub fault: FaultKind,
    /// When it began: the car stood, the button went down, the mains failed.
    pub begin: Timestamp,
    /// When it was over: people out, power back, button up. `None`: not yet.
    pub end: Option<Timestamp>,
    /// People in the car at the begin.
    pub people: u8,
    /// The kind of alarm a perfect system raises; `None`: it stays silent.
    pub expected: Option<&'static str>,
}

/// A fault with its place and time in the run of a fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedFault {
    /// Index of the terminal in the fleet.
    pub terminal: usize,
    /// How long after the start.
    pub after: Duration,
    /// What.
    pub fault: Fault,
}

/// Reads a plan such as `entrapment_between_floors@10,power_cut*5`: kinds with an optional count and an
/// optional second of the run; without a second they are spread over `duration`. Terminals are spread over
/// the fleet.
pub fn parse_plan(
    text: &str,
    terminals: usize,
    duration: Duration,
) -> Result<Vec<PlannedFault>, ParseFaultError> {
    let mut wanted = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let form = || ParseFaultError::Form(item.to_owned());
        let (head, at) = item.split_once('@').map_or((item, None), |(head, at)| (head, Some(at)));
        let at: Option<f64> = at.map(str::parse).transpose().map_err(|_| form())?;
        let at = at.map(Duration::try_from_secs_f64).transpose().map_err(|_| form())?;
        let (kind, count) = head.split_once('*').map_or((head, Ok(1)), |(kind, n)| (kind, n.parse()));
        let count: usize = count.map_err(|_| form())?;
        // More faults than terminals make no sense, and a typing slip must not fill the memory.
        for _ in 0..count.min(terminals) {
            wanted.push((kind.parse::<FaultKind>()?, at));
        }
    }
    let total = wanted.len().max(1);
    let planned = wanted.into_iter().enumerate().map(|(index, (kind, at))| PlannedFault {
        terminal: index * terminals / total,
        after: at.unwrap_or_else(|| duration.mul_f64((index as f64 + 0.5) / total as f64 * 0.6)),
        fault: Fault::new(kind),
    });
    Ok(planned.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_spread() {
        let minute = Duration::from_mins(1);
        let plan = parse_plan("entrapment_between_floors@10, power_cut*3", 100, minute).unwrap();
        assert_eq!(plan.len(), 4);
        assert_eq!((plan[0].terminal, plan[0].after), (0, Duration::from_secs(10)));
        assert_eq!(plan.iter().map(|one| one.terminal).collect::<Vec<_>>(), [0, 25, 50, 75]);
        assert!(plan.iter().all(|one| one.after < minute));
        assert_eq!(parse_plan("", 10, minute), Ok(vec![]));
    }

    #[test]
    fn slips_are_named() {
        let minute = Duration::from_mins(1);
        let error = parse_plan("entrapmant", 1, minute).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown fault 'entrapmant'; known are entrapment_between_floors"),
            "{error}"
        );
        for bad in ["power_cut*x", "power_cut@soon", "power_cut@-1", "power_cut@nan"] {
            assert_eq!(parse_plan(bad, 1, minute), Err(ParseFaultError::Form(bad.into())));
        }
    }
}
