//! What goes wrong, and at which of the points.

use std::collections::BTreeSet;

use tenantry::decide::quota::Micros;

use crate::dice::Dice;
pub(crate) use crate::points::{POINTS, Point};
use crate::world::{Process, slot};

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// `kill -9`.
    Kill,
    /// SIGSTOP, and SIGCONT after so long.
    Stop(Micros),
    /// The connection ends: to the database; or to a client, who gets no answer; or a notice is lost on it.
    Cut,
    /// Whoever comes by waits until the test opens the gate.
    Gate(u32),
}

/// Something that will happen once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    pub(crate) point: Point,
    /// Only at this server.
    pub(crate) server: Option<usize>,
    /// So many pass before.
    pub(crate) skip: u64,
    pub(crate) act: Act,
}

/// What goes wrong in a schedule.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) armed: Vec<Armed>,
    /// One in so many steps ends with a cut connection; never for 0.
    pub(crate) cuts: u64,
    /// One in so many commits is not answered.
    pub(crate) losses: u64,
    /// One in so many waits for a lock is given up.
    pub(crate) impatience: u64,
    /// One in so many notices is lost.
    pub(crate) lost_notices: u64,
    /// Gates that somebody waits at.
    pub(crate) reached: BTreeSet<u32>,
    /// Gates that are open.
    pub(crate) opened: BTreeSet<u32>,
    /// Nothing goes wrong at all.
    pub(crate) is_calm: bool,
    /// The points where something happened.
    pub(crate) happened: Vec<Point>,
}

impl Faults {
    /// As the dice say. A third of the schedules runs without any.
    pub(crate) fn random(dice: &mut Dice, ttl: Micros) -> Self {
        let mut faults = Self { lost_notices: dice.pick(&[0, 2, 5]), ..Self::default() };
        if dice.one_in(3) {
            faults.is_calm = true;
            return faults;
        }
        if dice.one_in(3) {
            faults.cuts = dice.pick(&[40, 200]);
        }
        if dice.one_in(3) {
            faults.losses = dice.pick(&[4, 15]);
        }
        if dice.one_in(4) {
            faults.impatience = 6;
        }
        for _ in 0..dice.below(4) {
            let act = match dice.below(3) {
                0 => Act::Kill,
                1 => Act::Stop(dice.below(3 * ttl)),
                _ => Act::Cut,
            };
            faults.armed.push(Armed { point: dice.pick(&POINTS), server: None, skip: dice.below(8), act });
        }
        faults
    }

    /// From here on nothing goes wrong.
    pub(crate) fn heal(&mut self) {
        self.armed.clear();
        (self.cuts, self.losses, self.impatience, self.lost_notices) = (0, 0, 0, 0);
    }

    /// What happens to a process at a point.
    pub(crate) fn at(&mut self, point: Point, process: Process) -> Option<Act> {
        let here = |armed: &Armed| armed.point == point && armed.server.is_none_or(|one| one == slot(process));
        let at = self.armed.iter().position(here)?;
        if self.armed[at].skip > 0 {
            self.armed[at].skip -= 1;
            return None;
        }
        self.happened.push(point);
        Some(self.armed.remove(at).act)
    }
}
