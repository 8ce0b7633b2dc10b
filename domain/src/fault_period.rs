//! Occurrences of faults, from what a terminal said: pure. Events open and close them; the list of active faults
//! after a reconnect opens what is missing and closes what has vanished (重连对账, DOMAIN.md 6). So does the list
//! that a reading carries, but it ends only what such lists have named: many terminals always send an empty one.
//! A reading in normal service ends the modes that are told by events.
//!
//! Promises: the periods depend on what was said and when, not on the order in which it arrived or how often.
//! No more than [`OPEN_MAX`] are open at a time, and a mark costs no more the longer the history is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::order::Place;
use crate::{Code, Timestamp};

/// Faults of one terminal that are open at a time, at most: eight lists of [`crate::limits::CODES_MAX`]. No elevator
/// has so many; a terminal that counts in its codes does. One more is not opened.
pub const OPEN_MAX: usize = 256;

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
            !ends_others(code)
                && match open.iter().find(|it| it.code.raw == code.raw) {
                    Some(known) => known.listed.is_none(),
                    None => open.len() < OPEN_MAX,
                }
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
    fn new(
        mark: &Mark,
        code: &Code,
        by: OpenedBy,
        closed: Option<Timestamp>,
        listed: Option<Timestamp>,
    ) -> Self {
        Self {
            code: code.clone(),
            opened: mark.place.at,
            device_time: Some(mark.time),
            closed,
            opened_by: by,
            closed_by: closed.map(|_| ClosedBy::Once),
            listed,
        }
    }

    fn end(&mut self, at: Timestamp, by: ClosedBy) {
        self.closed = Some(at.max(self.opened));
        self.closed_by = Some(by);
    }

    /// Whether it lasts.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

/// Whether a list of all active faults would open or close anything where this is open, by the codes as sent.
pub fn is_list_news(open: &[FaultPeriod], list: &[Code]) -> bool {
    let is_open = |code: &Code| open.iter().any(|period| period.code.raw == code.raw);
    let is_missing = |code: &Code| !ends_others(code) && open.len() < OPEN_MAX && !is_open(code);
    list.iter().any(is_missing) || open.iter().any(|period| !names(list, period))
}

fn names(list: &[Code], period: &FaultPeriod) -> bool {
    list.iter().any(|code| code.raw == period.code.raw)
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

/// What became of the faults of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// First what was open before, in its order, as it is now; then all that was opened since.
    pub periods: Vec<FaultPeriod>,
    /// So many were not opened because [`OPEN_MAX`] were.
    pub left_out: u64,
}

/// Follows marks in their order (`order::arrange`), beginning with what was open before them.
pub fn follow(open: Vec<FaultPeriod>, marks: &[Mark]) -> Followed {
    let mut faults = Faults {
        open: (0..open.len()).filter(|index| open[*index].is_open()).collect(),
        periods: open,
        ended: BTreeMap::new(),
        left_out: 0,
    };
    for mark in marks {
        faults.take(mark);
    }
    Followed { periods: faults.periods, left_out: faults.left_out }
}

/// The periods of a terminal while they are followed.
struct Faults {
    periods: Vec<FaultPeriod>,
    /// Which of them are open.
    open: Vec<usize>,
    /// Those that have ended, by code and begin.
    ended: BTreeMap<(Arc<str>, Timestamp), usize>,
    left_out: u64,
}

impl Faults {
    fn take(&mut self, mark: &Mark) {
        let at = mark.place.at;
        match &mark.says {
            Says::Open(code) | Says::Once(code) if code.fault.slug == "no_fault" => {
                self.end(at, ClosedBy::NoFault, |_| true);
            }
            Says::Open(code) | Says::Once(code) if code.fault.slug == "auto_mode" => {
                self.end(at, ClosedBy::Normal, |it| ended_by_automatic(it.code.fault.slug));
            }
            Says::Open(code) => self.begin(mark, code, OpenedBy::Event, None),
            Says::Once(code) => self.begin(mark, code, OpenedBy::Once, None),
            Says::Close(code) => self.end(at, ClosedBy::Event, |it| it.code.raw == code.raw),
            Says::List(list) => {
                self.end(at, ClosedBy::List, |it| !names(list, it));
                for code in list.iter().filter(|code| !ends_others(code)) {
                    self.begin(mark, code, OpenedBy::List, None);
                }
            }
            Says::Shown(shown) => self.show(mark, shown),
        }
    }

    /// A reading: its list goes before its mode, so that normal service does not end a mode that the list names.
    fn show(&mut self, mark: &Mark, shown: &Shown) {
        let at = mark.place.at;
        let is_told = |period: &FaultPeriod| period.listed.is_none();
        if let Some(list) = &shown.codes {
            let has = |slug: &str| list.iter().any(|code| code.fault.slug == slug);
            self.end(at, ClosedBy::List, |period| !is_told(period) && !names(list, period));
            if has("no_fault") {
                self.end(at, ClosedBy::NoFault, |period| !names(list, period));
            }
            for index in &self.open {
                if let Some(period) = self.periods.get_mut(*index).filter(|period| names(list, period)) {
                    period.listed.get_or_insert(at);
                }
            }
            for code in list.iter().filter(|code| !ends_others(code)) {
                self.begin(mark, code, OpenedBy::List, Some(at));
            }
            if has("auto_mode") {
                let is_meant = |it: &FaultPeriod| is_told(it) && ended_by_automatic(it.code.fault.slug);
                self.end(at, ClosedBy::Normal, is_meant);
            }
        }
        if shown.normal {
            self.end(at, ClosedBy::Normal, |it| is_told(it) && ended_by_normal(it.code.fault.slug));
        }
    }

    /// Ends those that are open and meant.
    fn end(&mut self, at: Timestamp, by: ClosedBy, is_meant: impl Fn(&FaultPeriod) -> bool) {
        let Self { periods, open, ended, .. } = self;
        open.retain(|index| {
            let period = &mut periods[*index];
            if !is_meant(period) {
                return true;
            }
            period.end(at, by);
            ended.insert((Arc::clone(&period.code.raw), period.opened), *index);
            false
        });
    }

    /// Begins a period, unless one is open already. One that began in the very moment, and has ended, goes on.
    fn begin(&mut self, mark: &Mark, code: &Code, by: OpenedBy, listed: Option<Timestamp>) {
        let at = mark.place.at;
        if self.open.iter().any(|index| self.periods[*index].code.raw == code.raw) {
            return;
        }
        let key = (Arc::clone(&code.raw), at);
        let known = self.ended.get(&key).copied();
        if by == OpenedBy::Once {
            if known.is_none() {
                self.ended.insert(key, self.periods.len());
                self.periods.push(FaultPeriod::new(mark, code, by, Some(at), None));
            }
        } else if self.open.len() >= OPEN_MAX {
            self.left_out += 1;
        } else if let Some(index) = known {
            self.ended.remove(&key);
            self.open.push(index);
            let period = &mut self.periods[index];
            (period.closed, period.closed_by, period.listed) = (None, None, listed);
        } else {
            self.open.push(self.periods.len());
            self.periods.push(FaultPeriod::new(mark, code, by, None, listed));
        }
    }
}

#[cfg(test)]
mod tests;
