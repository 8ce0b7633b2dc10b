//! What can be done to a lift, and what an observer who knows the truth expects of it.

use std::fmt;
use std::str::FromStr;

use domain::{TerminalId, Timestamp};
use serde::{Serialize, Serializer};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// People in the car, which stops between floors and stays there. The controller reports it too.
    EntrapmentBetweenFloors,
    /// People in the car, which stops at a floor and does not open. Nothing is reported but the state.
    EntrapmentAtLevel,
    /// The alarm button, pressed for 6 s behind closed doors.
    AlarmButton,
    /// The alarm button, pressed for 4 s while the doors stand open at a floor.
    NuisancePress,
    /// Mains power goes; the brake falls in.
    PowerCut,
    /// The safety circuit opens; the brake falls in.
    SafetyCircuit,
    /// The controller reports unintended car movement for 20 s.
    UnintendedMovement,
}

/// A text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault is called '{0}': entrapment, entrapment_at_level, button, nuisance, power_cut, \
     safety_circuit, unintended_movement"
)]
pub struct ParseFaultError(String);

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 7] = [
        Fault::EntrapmentBetweenFloors,
        Fault::EntrapmentAtLevel,
        Fault::AlarmButton,
        Fault::NuisancePress,
        Fault::PowerCut,
        Fault::SafetyCircuit,
        Fault::UnintendedMovement,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::EntrapmentBetweenFloors => "entrapment",
            Fault::EntrapmentAtLevel => "entrapment_at_level",
            Fault::AlarmButton => "button",
            Fault::NuisancePress => "nuisance",
            Fault::PowerCut => "power_cut",
            Fault::SafetyCircuit => "safety_circuit",
            Fault::UnintendedMovement => "unintended_movement",
        }
    }

    /// The slug of the alarm that a good observer raises for it.
    pub const fn expected(self) -> &'static str {
        match self {
            Fault::EntrapmentBetweenFloors => "entrapment_between_floors",
            Fault::EntrapmentAtLevel => "entrapment_at_level",
            Fault::AlarmButton => "alarm_button",
            Fault::NuisancePress => "nuisance_call",
            Fault::PowerCut => "power_off",
            Fault::SafetyCircuit => "safety_circuit_open",
            Fault::UnintendedMovement => "unintended_movement",
        }
    }

    /// The code its controller or terminal reports, if it does.
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Fault::EntrapmentBetweenFloors => Some("entrapment_between_floors"),
            Fault::EntrapmentAtLevel => None,
            Fault::AlarmButton | Fault::NuisancePress => Some("alarm_button"),
            Fault::PowerCut => Some("power_off"),
            Fault::SafetyCircuit => Some("safety_circuit_open"),
            Fault::UnintendedMovement => Some("unintended_movement"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;
    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let named = Self::ALL.into_iter().find(|fault| fault.name() == text);
        named.ok_or_else(|| ParseFaultError(text.to_owned()))
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What really happened: the yardstick for the alarms raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// The terminal of the lift.
    pub terminal_id: TerminalId,
    /// What was done.
    pub fault: Fault,
    /// When it began in the lift (not when it was ordered), by the clock of the terminal.
    pub began: Timestamp,
    /// When it ended, if it has.
    pub ended: Option<Timestamp>,
    /// Whether somebody was in the car then.
    pub people: bool,
    /// Slug of the alarm expected. A power cut or an open safety circuit with people in the car and the
    /// doors not open is an entrapment beside it.
    pub expected: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named_and_expects_a_kind_of_the_taxonomy() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
            assert!(domain::fault_by_slug(fault.expected()).is_some(), "{fault}");
            assert!(fault.code().is_none_or(|code| domain::Code::canonical(code).is_some()), "{fault}");
        }
        assert!("fire".parse::<Fault>().is_err());
    }
}
