//! Where further lanes are dialled, and how often. Refuses to know TLS.
