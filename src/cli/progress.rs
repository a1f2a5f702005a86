//! How far long work is: a bar on a terminal, a line now and then elsewhere; all of it on standard error.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often something is said where there is no terminal.
const PULSE: Duration = Duration::from_secs(5);

/// How often the words beside the bar change.
const GLANCE: Duration = Duration::from_millis(100);

/// Long work of a known length.
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    said: Cell<Instant>,
}

impl Progress {
    /// Begins with nothing of `length` done.
    pub(super) fn new(length: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} left");
        let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Self { bar, began: now, said: Cell::new(now) }
    }

    /// So much is done. `told` says it in words, given the seconds since the beginning, 1 at least.
    pub(super) fn show(&self, done: u64, told: impl Fn(u64) -> String) {
        let (terminal, seconds) = (io::stderr().is_terminal(), self.began.elapsed().as_secs().max(1));
        self.bar.set_position(done);
        if self.said.get().elapsed() < if terminal { GLANCE } else { PULSE } {
            return;
        }
        if terminal {
            self.said.set(Instant::now());
            self.bar.set_message(told(seconds));
        } else {
            self.say(&told(seconds));
        }
    }

    /// A line of its own.
    pub(super) fn say(&self, text: &str) {
        self.said.set(Instant::now());
        if io::stderr().is_terminal() {
            self.bar.println(text);
        } else {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
