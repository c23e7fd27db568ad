//! Memory that many stalled streams want. Refuses to know how it is counted.
