//! The `underpass` binary: it installs what a process has one of, and hands over to `cli`.

fn main() {}
