//! Occurrences of faults, from what a terminal said: pure. Events open and close them; the list of active faults
//! after a reconnect opens what is missing and closes what has vanished (重连对账, DOMAIN.md 6). So does the list
//! that a reading carries, but it ends only what such lists have named: many terminals always send an empty one.
//! A reading in normal service ends the modes that are told by events.
//!
//! Promises: the periods depend on what was said and when, not on the order in which it arrived or how often.

use crate::order::Place;
use crate::{Code, Timestamp};

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// The fault began.
    Open(Code),
    /// It happened; its end will not be told.
    Once(Code),
    /// It ended.
    Close(Code),
    /// All that is active.
    List(Vec<Code>),
    /// A reading: its state.
    Shown(Shown),
}

/// What a reading shows of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its list of active codes; `None`: it has none.
    pub codes: Option<Vec<Code>>,
    /// It says that the elevator is in normal service.
    pub normal: bool,
}

impl Shown {
    /// Whether it would change anything where this is open. Always `false` where [`follow`] changes nothing.
    pub fn is_news(open: &[FaultPeriod], codes: Option<&[Code]>, normal: bool) -> bool {
        let list = codes.unwrap_or_default();
        let ends = |slug: &str| list.iter().any(|code| code.fault.slug == slug);
        let (whole, automatic) = (ends("no_fault"), ends("auto_mode"));
        let is_missing = |code: &Code| {
            !ends_others(code) && !open.iter().any(|it| it.code.raw == code.raw && it.listed.is_some())
        };
        list.iter().any(is_missing)
            || open.iter().any(|period| {
                let slug = period.code.fault.slug;
                let named = list.iter().any(|code| code.raw == period.code.raw);
                let is_told = period.listed.is_none();
                (codes.is_some() && !named && (whole || !is_told))
                    || (is_told && automatic && ended_by_automatic(slug))
                    || (is_told && normal && ended_by_normal(slug))
            })
    }
}

/// Something said about faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where it stands among what its terminal said.
    pub place: Place,
    /// Device time as sent.
    pub time: Timestamp,
    /// What.
    pub says: Says,
}

impl Mark {
    /// Tells marks of equal place apart.
    pub fn tie(&self) -> &str {
        match &self.says {
            Says::Open(code) | Says::Once(code) | Says::Close(code) => &code.raw,
            Says::List(_) | Says::Shown(_) => "",
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Its name in the store.
            pub const fn slug(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// From its name.
            pub fn from_slug(slug: &str) -> Option<Self> {
                match slug { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What opened a period.
    OpenedBy {
        /// An event with state `open`.
        Event = "event",
        /// An event with state `once`.
        Once = "once",
        /// A list of active faults, of a reading or after a reconnect.
        List = "list",
        /// The server saw it.
        Server = "server",
    }
}

words! {
    /// What closed a period.
    ClosedBy {
        /// An event with state `close`.
        Event = "event",
        /// It was of a moment.
        Once = "once",
        /// A list of active faults no longer has it (`reconciled`).
        List = "list",
        /// `no_fault`.
        NoFault = "no_fault",
        /// The state says normal: back to automatic, or in normal service.
        Normal = "normal",
        /// The server saw it.
        Server = "server",
    }
}

/// One occurrence of a fault at a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPeriod {
    /// Which.
    pub code: Code,
    /// Begin, corrected.
    pub opened: Timestamp,
    /// Device time as sent of what opened it.
    pub device_time: Option<Timestamp>,
    /// End, corrected; `None`: it lasts.
    pub closed: Option<Timestamp>,
    /// What opened it.
    pub opened_by: OpenedBy,
    /// What closed it.
    pub closed_by: Option<ClosedBy>,
    /// Since when the lists of readings name it: their silence ends it.
    pub listed: Option<Timestamp>,
}

impl FaultPeriod {
    fn end(&mut self, at: Timestamp, by: ClosedBy) {
        self.closed = Some(at.max(self.opened));
        self.closed_by = Some(by);
    }

    /// Whether it lasts.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

/// What a list of active faults asks for; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Missing: to be opened.
    pub opens: Vec<Code>,
    /// Vanished: to be closed.
    pub closes: Vec<Code>,
}

/// Compares what is open with a list of all active faults, by the codes as sent.
pub fn reconcile<'a>(open: impl Iterator<Item = &'a Code> + Clone, list: &[Code]) -> Reconciled {
    let mut opens: Vec<Code> = Vec::new();
    for code in list.iter().filter(|code| !ends_others(code)) {
        let is_known = open.clone().any(|known| known.raw == code.raw)
            || opens.iter().any(|known| known.raw == code.raw);
        if !is_known {
            opens.push(code.clone());
        }
    }
    let closes = open.filter(|known| !list.iter().any(|code| code.raw == known.raw)).cloned().collect();
    Reconciled { opens, closes }
}

/// Codes that are no fault, but the end of others.
fn ends_others(code: &Code) -> bool {
    matches!(code.fault.slug, "no_fault" | "auto_mode")
}

fn ended_by_normal(slug: &str) -> bool {
    matches!(slug, "inspection_mode" | "maintenance_mode")
}

fn ended_by_automatic(slug: &str) -> bool {
    ended_by_normal(slug) || slug == "power_off"
}

/// Follows marks in their order (`order::arrange`), beginning with what was open before them. Gives what was open
/// before, as it is now, and all periods opened since.
pub fn follow(open: Vec<FaultPeriod>, marks: &[Mark]) -> Vec<FaultPeriod> {
    let mut periods = open;
    for mark in marks {
        let at = mark.place.at;
        match &mark.says {
            Says::Open(code) | Says::Once(code) if code.fault.slug == "no_fault" => {
                end_all(&mut periods, at, ClosedBy::NoFault, |_| true);
            }
            Says::Open(code) | Says::Once(code) if code.fault.slug == "auto_mode" => {
                end_all(&mut periods, at, ClosedBy::Normal, |it| ended_by_automatic(it.code.fault.slug));
            }
            Says::Open(code) => begin(&mut periods, mark, code, OpenedBy::Event, None),
            Says::Once(code) => begin(&mut periods, mark, code, OpenedBy::Once, None),
            Says::Close(code) => {
                let same = |period: &&mut FaultPeriod| period.is_open() && period.code.raw == code.raw;
                if let Some(period) = periods.iter_mut().find(same) {
                    period.end(at, ClosedBy::Event);
                }
            }
            Says::List(list) => {
                let open = periods.iter().filter(|period| period.is_open()).map(|period| &period.code);
                let Reconciled { opens, closes } = reconcile(open, list);
                end_all(&mut periods, at, ClosedBy::List, |it| closes.contains(&it.code));
                for code in &opens {
                    begin(&mut periods, mark, code, OpenedBy::List, None);
                }
            }
            Says::Shown(shown) => show(&mut periods, mark, shown),
        }
    }
    periods
}

fn end_all(
    periods: &mut [FaultPeriod],
    at: Timestamp,
    by: ClosedBy,
    is_meant: impl Fn(&FaultPeriod) -> bool,
) {
    for period in periods.iter_mut().filter(|period| period.is_open() && is_meant(period)) {
        period.end(at, by);
    }
}

/// A reading: its list goes before its mode, so that normal service does not end a mode that the list names.
fn show(periods: &mut Vec<FaultPeriod>, mark: &Mark, shown: &Shown) {
    let at = mark.place.at;
    let is_told = |period: &FaultPeriod| period.listed.is_none();
    if let Some(list) = &shown.codes {
        let has = |slug: &str| list.iter().any(|code| code.fault.slug == slug);
        let names = |period: &FaultPeriod| list.iter().any(|code| code.raw == period.code.raw);
        end_all(periods, at, ClosedBy::List, |period| !is_told(period) && !names(period));
        if has("no_fault") {
            end_all(periods, at, ClosedBy::NoFault, |period| !names(period));
        }
        for period in periods.iter_mut().filter(|period| period.is_open() && names(period)) {
            period.listed.get_or_insert(at);
        }
        for code in list.iter().filter(|code| !ends_others(code)) {
            begin(periods, mark, code, OpenedBy::List, Some(at));
        }
        if has("auto_mode") {
            let is_meant = |it: &FaultPeriod| is_told(it) && ended_by_automatic(it.code.fault.slug);
            end_all(periods, at, ClosedBy::Normal, is_meant);
        }
    }
    if shown.normal {
        end_all(periods, at, ClosedBy::Normal, |it| is_told(it) && ended_by_normal(it.code.fault.slug));
    }
}

/// Begins a period, unless one is open already. One that ended in the very moment goes on.
fn begin(periods: &mut Vec<FaultPeriod>, mark: &Mark, code: &Code, by: OpenedBy, listed: Option<Timestamp>) {
    let at = mark.place.at;
    let same =
        |period: &&mut FaultPeriod| period.code.raw == code.raw && (period.is_open() || period.opened == at);
    match periods.iter_mut().find(same) {
        Some(period) if period.is_open() || by == OpenedBy::Once => {}
        Some(period) => {
            (period.closed, period.closed_by) = (None, None);
            period.listed = listed;
        }
        None => {
            let mut period = FaultPeriod {
                code: code.clone(),
                opened: at,
                device_time: Some(mark.time),
                closed: None,
                opened_by: by,
                closed_by: None,
                listed,
            };
            if by == OpenedBy::Once {
                period.end(at, ClosedBy::Once);
            }
            periods.push(period);
        }
    }
}

#[cfg(test)]
mod tests;
