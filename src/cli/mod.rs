//! The commands: one file each, thin. Parse arguments, call the library, print.

pub mod config;
pub mod consent;
pub mod package;
