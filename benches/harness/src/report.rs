//! What a run's records look like to people. Refuses to know how they came about.

mod table;

pub(crate) use table::tables;
