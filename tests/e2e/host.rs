//! Faults of the host that a gateway or an agent runs on: its clock, disk, descriptors, memory, processors, names and addresses.
//! Each is told, harms nothing that it need not, and is got over without anybody's help. Refuses to know networks that fail.

mod clock;
mod descriptors;
mod disk;
mod memory;
mod names;
mod processor;
mod proxies;
