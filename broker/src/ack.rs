//! Acknowledgements: the promise that travels with a message, and the order in which promises resolve.
//!
//! An [`Ack`] counts its holders; when the last one is gone the message is settled, as committed if all of
//! them said `done`, as failed otherwise. [`Order`] (pure) puts settled messages back into arrival order;
//! [`Window`] shares it between whoever settles and the connection that answers. A window belongs to one
//! connection, never to a client id: after a take-over its acks settle into nothing.
//!
//! Does not write to sockets. A committed message is given to the hub here, because its connection may be gone
//! by then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore, oneshot};

use crate::hub::{Fanout, Hub};

/// Locks; a panic elsewhere cannot leave these short critical sections half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The promise behind a message: its client is acknowledged when every holder has said [`Ack::done`].
///
/// Clone it to make another holder. A holder that is dropped without `done` fails the message; the gate then
/// closes the connection, so that the client sends again.
#[derive(Debug)]
#[must_use = "dropping an ack without done fails its message"]
pub struct Ack {
    cell: Arc<Cell>,
    done: bool,
}

#[derive(Debug)]
struct Cell {
    failed: AtomicBool,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Window { window: Arc<Window>, seq: u64, bytes: usize, grown: AtomicUsize },
    Watcher(Option<oneshot::Sender<bool>>),
}

impl Ack {
    /// This holder's part is committed.
    pub fn done(mut self) {
        self.done = true;
    }

    /// The message takes `bytes` more than came over the wire: what it has become is larger. Charged to the
    /// budget without waiting and given back when the message is settled. False: the budget is overdrawn and
    /// nothing was charged; whoever made it so large must let go of it.
    #[must_use = "false: the memory is not there"]
    pub fn grow(&self, bytes: usize) -> bool {
        let Target::Window { window, bytes: taken, grown, .. } = &self.cell.target else { return true };
        // Alone, even the largest message has a place.
        let bytes = bytes.min(window.budget.bytes_max().saturating_sub(*taken));
        let charged = window.budget.charge(bytes);
        if charged {
            grown.fetch_add(bytes, Ordering::Relaxed);
        }
        charged
    }

    /// An ack that belongs to no connection, and the channel that tells whether it was kept (true) or failed.
    /// For messages from elsewhere, and for tests of consumers.
    pub fn watched() -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        (Self::new(Target::Watcher(Some(sender))), receiver)
    }

    fn new(target: Target) -> Self {
        Self { cell: Arc::new(Cell { failed: AtomicBool::new(false), target }), done: false }
    }
}

impl Clone for Ack {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), done: false }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.done {
            self.cell.failed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let committed = !self.failed.load(Ordering::Acquire);
        match &mut self.target {
            Target::Window { window, seq, bytes, grown } => {
                window.budget.give(*bytes);
                window.budget.release(*grown.get_mut());
                window.settle(*seq, committed);
            }
            Target::Watcher(sender) => {
                if let Some(sender) = sender.take() {
                    // Nobody watching is not an error.
                    let _ = sender.send(committed);
                }
            }
        }
    }
}

/// Messages in arrival order, settled in any order, taken out in arrival order. Pure.
#[derive(Debug)]
pub(crate) struct Order<T> {
    first: u64,
    slots: VecDeque<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    settled: Option<bool>,
    item: Option<T>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { first: 0, slots: VecDeque::new() }
    }
}

impl<T> Order<T> {
    /// Adds a message and returns its number; `item` comes back when its turn has come.
    pub(crate) fn push(&mut self, item: Option<T>) -> u64 {
        self.slots.push_back(Slot { settled: None, item });
        self.first + self.slots.len() as u64 - 1
    }

    /// Message `seq` is committed, or failed. The first word counts.
    pub(crate) fn settle(&mut self, seq: u64, committed: bool) {
        let slot = seq.checked_sub(self.first).and_then(|i| self.slots.get_mut(usize::try_from(i).ok()?));
        if let Some(slot) = slot {
            slot.settled.get_or_insert(committed);
        }
    }

    /// The oldest message, if it is settled.
    pub(crate) fn pop(&mut self) -> Option<(bool, Option<T>)> {
        let committed = self.slots.front()?.settled?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        Some((committed, slot.item))
    }
}

/// The unacknowledged messages of one connection.
#[derive(Debug)]
pub(crate) struct Window {
    state: Mutex<WindowState>,
    /// Rung when something settled; the gate rings it too for other news to the connection.
    pub(crate) bell: Notify,
    budget: Arc<Budget>,
    hub: Hub,
}

#[derive(Debug, Default)]
struct WindowState {
    order: Order<Box<Fanout>>,
    news: Settled,
    /// Whom to ring instead, once the connection has ended and another goes on with its session.
    heir: Weak<Window>,
}

/// What has settled, in arrival order, since the connection last looked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// So many committed ...
    pub(crate) committed: usize,
    /// ... and the next one failed. What comes after it is not counted.
    pub(crate) failed: bool,
}

impl Window {
    pub(crate) fn new(budget: Arc<Budget>, hub: Hub) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bell: Notify::new(), budget, hub })
    }

    /// Takes in a message whose `bytes` were taken from the budget before.
    pub(crate) fn accept(self: &Arc<Self>, bytes: usize, fanout: Option<Box<Fanout>>) -> Ack {
        let seq = lock(&self.state).order.push(fanout);
        let grown = AtomicUsize::new(0);
        Ack::new(Target::Window { window: Arc::clone(self), seq, bytes, grown })
    }

    /// What has settled since the last call.
    pub(crate) fn take(&self) -> Settled {
        let mut state = lock(&self.state);
        let news = state.news;
        state.news.committed = 0;
        news
    }

    /// The connection has ended, `heir` wants to know what settles.
    pub(crate) fn bequeath(&self, heir: &Arc<Self>) {
        lock(&self.state).heir = Arc::downgrade(heir);
    }

    fn settle(&self, seq: u64, committed: bool) {
        let mut state = lock(&self.state);
        let before = state.news;
        state.order.settle(seq, committed);
        while let Some((committed, fanout)) = state.order.pop() {
            if !committed {
                state.news.failed = true;
                continue;
            }
            if !state.news.failed {
                state.news.committed += 1;
            }
            // Under the lock, so that subscribers see the order of arrival; it never waits.
            if let Some(fanout) = fanout {
                self.hub.forward(*fanout);
            }
        }
        let ring = before.committed == 0 && state.news != before;
        let heir = if ring { state.heir.upgrade() } else { None };
        drop(state);
        if ring {
            heir.as_deref().unwrap_or(self).bell.notify_one();
        }
    }
}

/// Bytes of unacknowledged messages over all connections. Full: connections wait, then drop and count.
///
/// Messages come in while there is room below the reserve, an eighth of the whole; what they become in memory
/// ([`Ack::grow`]) may use the reserve too. So memory stays within the bound although nobody knows beforehand
/// how large a message becomes.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What messages may come in for.
    admitted_max: usize,
    reserve: usize,
    free: Semaphore,
    /// Taken of the reserve.
    overdrawn: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let bytes_max = bytes.clamp(1 << 16, u32::MAX as usize);
        let reserve = bytes_max / 8;
        let admitted_max = bytes_max - reserve;
        let free = Semaphore::new(admitted_max);
        Arc::new(Self { admitted_max, reserve, free, overdrawn: AtomicUsize::new(0) })
    }

    /// Takes `bytes` if they are free.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let Ok(permit) = self.free.try_acquire_many(self.permits(bytes)) else { return false };
        permit.forget();
        true
    }

    /// Waits, first come first served, until `bytes` are free, and takes them.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Ok(permit) = self.free.acquire_many(self.permits(bytes)).await {
            permit.forget();
        }
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.release(self.permits(bytes) as usize);
    }

    /// Takes `bytes` at once, from the reserve what is not free. False, and nothing is taken: not even there.
    fn charge(&self, bytes: usize) -> bool {
        let missing = bytes - self.free.forget_permits(bytes);
        if missing == 0 {
            return true;
        }
        let before = self.overdrawn.fetch_add(missing, Ordering::AcqRel);
        if before + missing <= self.reserve {
            return true;
        }
        self.release(bytes);
        false
    }

    /// Gives back what was charged; the reserve is filled first.
    fn release(&self, bytes: usize) {
        let before = self
            .overdrawn
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| Some(owed.saturating_sub(bytes)))
            .unwrap_or_default();
        self.free.add_permits(bytes - before.min(bytes));
    }

    fn bytes_max(&self) -> usize {
        self.admitted_max + self.reserve
    }

    pub(crate) fn in_use(&self) -> usize {
        let admitted = self.admitted_max.saturating_sub(self.free.available_permits());
        admitted + self.overdrawn.load(Ordering::Acquire)
    }

    /// A message larger than the whole budget takes all of it rather than waiting for ever.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.admitted_max)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HubConfig, Metrics};
    use proptest::prelude::*;

    fn window() -> (Arc<Window>, Arc<Budget>) {
        let budget = Budget::new(1 << 20);
        let hub = Hub::idle(HubConfig::default(), Arc::new(Metrics::default()));
        (Window::new(Arc::clone(&budget), hub), budget)
    }

    fn accept(window: &Arc<Window>) -> Ack {
        assert!(window.budget.try_take(100));
        window.accept(100, None)
    }

    #[test]
    fn commits_count_in_arrival_order() {
        let (window, budget) = window();
        let (first, second, third) = (accept(&window), accept(&window), accept(&window));
        second.done();
        assert_eq!(window.take(), Settled::default());
        first.done();
        assert_eq!(window.take(), Settled { committed: 2, failed: false });
        third.done();
        assert_eq!(window.take(), Settled { committed: 1, failed: false });
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn the_last_of_several_holders_settles() {
        let (window, budget) = window();
        let ack = accept(&window);
        let (a, b) = (ack.clone(), ack.clone());
        ack.done();
        a.done();
        assert_eq!((window.take().committed, budget.in_use()), (0, 100));
        b.done();
        assert_eq!((window.take().committed, budget.in_use()), (1, 0));
    }

    #[test]
    fn one_undone_holder_fails_the_message_and_hides_what_follows() {
        let (window, _) = window();
        let (first, second, third) = (accept(&window), accept(&window), accept(&window));
        let undone = second.clone();
        second.done();
        drop(undone);
        third.done();
        first.done();
        assert_eq!(window.take(), Settled { committed: 1, failed: true });
    }

    #[test]
    fn a_message_that_grows_uses_the_reserve_and_gives_all_back() {
        let budget = Budget::new(1 << 16);
        let hub = Hub::idle(HubConfig::default(), Arc::new(Metrics::default()));
        let window = Window::new(Arc::clone(&budget), hub);
        let admitted = (1 << 16) / 8 * 7;
        assert!(budget.try_take(admitted - 10_000));
        let ack = window.accept(admitted - 10_000, None);
        assert!(ack.grow(12_000), "2,000 of it from the reserve");
        assert!(!budget.try_take(1), "nothing more comes in");
        assert!(!ack.grow(8_000), "more than the reserve");
        assert_eq!(budget.in_use(), admitted + 2_000, "what was refused is not charged");
        assert!(ack.grow(6_192), "the reserve to its end");
        assert_eq!(budget.in_use(), 1 << 16);
        ack.done();
        assert_eq!(budget.in_use(), 0);
        assert!(budget.try_take(admitted) && !budget.try_take(1), "the reserve is kept");
        let alone = window.accept(admitted, None);
        assert!(alone.grow(1 << 30), "larger than all there is, but alone");
        drop(alone);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn a_watched_ack_tells_its_fate() {
        let (ack, fate) = Ack::watched();
        ack.done();
        assert_eq!(fate.await, Ok(true));
        let (ack, fate) = Ack::watched();
        drop(ack);
        assert_eq!(fate.await, Ok(false));
    }

    proptest! {
        #[test]
        fn a_budget_is_never_exceeded_and_always_whole_in_the_end(
            steps in prop::collection::vec((any::<bool>(), 1..40_000_usize), 1..60),
        ) {
            let budget = Budget::new(1 << 16);
            let (mut taken, mut charged) = (Vec::new(), Vec::new());
            for (grows, bytes) in steps {
                match grows {
                    true if budget.charge(bytes) => charged.push(bytes),
                    false if budget.try_take(bytes) => taken.push(bytes),
                    _ => { charged.pop().inspect(|bytes| budget.release(*bytes)); }
                }
                prop_assert_eq!(budget.in_use(), taken.iter().chain(&charged).sum::<usize>());
                prop_assert!(budget.in_use() <= 1 << 16);
            }
            for bytes in taken { budget.give(bytes); }
            for bytes in charged { budget.release(bytes); }
            prop_assert_eq!(budget.in_use(), 0);
        }

        #[test]
        fn order_gives_back_all_in_order_whatever_the_order_of_settling(
            priorities in prop::collection::vec(any::<u32>(), 1..50),
        ) {
            let mut order = Order::default();
            let mut by_priority: Vec<(u32, u64)> = Vec::new();
            for (i, priority) in priorities.iter().enumerate() {
                let seq = order.push(Some(i));
                by_priority.push((*priority, seq));
            }
            by_priority.sort_unstable();
            let mut settled = Vec::new();
            let mut out = Vec::new();
            for (_, seq) in by_priority {
                order.settle(seq, true);
                settled.push(seq as usize);
                while let Some((committed, item)) = order.pop() {
                    prop_assert!(committed);
                    let item = item.unwrap();
                    prop_assert!(settled.contains(&item), "given back before it settled");
                    out.push(item);
                }
            }
            prop_assert_eq!(out, (0..priorities.len()).collect::<Vec<_>>());
        }
    }
}
