//! Receivers that fail in every way, and a model of what must come of it.

use super::*;
