//! Clients as vendors run them, through every entry point: that they work, and that they are held to what they were granted.
//! Refuses to know what is behind the targets.

mod balancers;
mod certificates;
mod curl;
mod noise;
mod programs;
mod rights;
