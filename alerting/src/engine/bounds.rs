//! How much one elevator's state may hold, and what happens beyond.

/// Terminals of one elevator. One more replaces the one unheard for longest; what only that one knew becomes
/// unknown.
pub const TERMINALS_MAX: usize = 8;
/// Boots remembered per terminal. One more forgets the oldest; its messages then count by their age.
pub const BOOTS_MAX: usize = 4;
/// Holes in a boot's sequence numbers. One more joins the two oldest into one: a number between them that was
/// seen may be taken as unseen once more, never the other way round.
pub const GAPS_MAX: usize = 16;
/// Numbers remembered of readings that came without one; older repeats are told by their time.
pub const HASHES_MAX: usize = 16;
/// Clock offsets of a terminal that does not send `sent`; the oldest leaves (DOMAIN.md 6, "Age").
pub const OFFSETS_MAX: usize = 31;
/// Active codes the rules look at, from all terminals. One more replaces the oldest that is decided and has no
/// alarm; where there is none it replaces the oldest.
pub const CODES_MAX: usize = 64;
/// Late S1 events that wait for their end. One more decides the oldest at once.
pub const LATE_MAX: usize = 16;
/// Late alarms remembered against raising them again; the oldest leaves.
pub const LATE_RAISED_MAX: usize = 16;
/// Evidence lines of an alarm. Further evidence counts, but adds no line, and is told only where it changes
/// the alarm.
pub const EVIDENCE_MAX: usize = 16;
/// Changes of the presence sensor remembered; the oldest leaves. One more than the most that is asked for.
pub const FLAPS_MAX: usize = 16;
/// Deadlines of one elevator fired for one input. A bound against a fault of ours; the rest fire at the next.
pub const FIRES_MAX: usize = 256;
