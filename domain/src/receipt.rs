//! The promise behind an acknowledgement.

/// What a message carries until everything it causes is on disk. Each holder says [`Receipt::done`] after its
/// own commit; the terminal is acknowledged when the last holder has. Dropping one without `done` breaks the
/// promise: the terminal is not acknowledged and sends again.
pub trait Receipt: Send + 'static {
    /// This holder's part is committed.
    fn done(self);
}

/// For inputs that nobody waits for: the clock, presence, a recording.
impl Receipt for () {
    fn done(self) {}
}
