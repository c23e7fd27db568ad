//! Every kind of mistake with its message, and what is read from a right file.

use super::*;
