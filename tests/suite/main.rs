//! The black-box suite.

mod cluster;
mod isolation;
mod sabotage;
mod startup;
