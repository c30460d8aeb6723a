//! The decision, by cases as data and by what must always hold.

mod cases;
mod hierarchy;
mod properties;
mod settings;
