//! Normalizing: cases as data, and what must always hold.
