//! Lanes over in-memory pipes. Refuses to know how they are dialled and proved.
