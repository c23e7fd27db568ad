//! Who may join which session. Refuses to know TLS.
